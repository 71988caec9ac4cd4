"""Wide ResNet for 32x32 images, with the parameter names of the TRADES release (teachers of RSLAD and ABSLD).

Source: Zagoruyko and Komodakis, BMVC 2016; names as in yaodongyu/TRADES @ 6e8e11b, models/wideresnet.py.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.normalize import Normalize


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and activation; a 1x1 shortcut where the width changes."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes_in)
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.widens = planes_in != planes
        if self.widens:
            self.convShortcut = nn.Conv2d(planes_in, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,planes_in,H,W) to (B,planes,H/stride,W/stride)."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        summed: Tensor = out + (self.convShortcut(active) if self.widens else x)
        return summed


class Stage(nn.Module):
    """Blocks of one width."""

    def __init__(self, blocks: int, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            WideBlock(planes_in, planes, stride), *(WideBlock(planes, planes, 1) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Through all blocks."""
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """WRN-depth-width; depth is 6n + 4. Convolutions start as He et al. have it, with the fan out."""

    def __init__(self, classes: int, channels: int, normalize: Normalize, depth: int, width: int) -> None:
        super().__init__()
        self.normalize = normalize
        blocks, planes = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(channels, planes[0], 3, 1, 1, bias=False)
        self.block1 = Stage(blocks, planes[0], planes[1], 1)
        self.block2 = Stage(blocks, planes[1], planes[2], 2)
        self.block3 = Stage(blocks, planes[2], planes[3], 2)
        self.bn1 = nn.BatchNorm2d(planes[3])
        self.fc = nn.Linear(planes[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # weights that are only counted
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        out = self.block3(self.block2(self.block1(self.conv1(self.normalize(x)))))
        out = F.relu(self.bn1(out))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits
