"""A small convolutional network for small images, of a given width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.normalize import Normalize


class ConvNet(nn.Module):
    """Three convolutions (w, 2w, 4w channels, the last two halving the side), pooling to 2x2, a linear layer."""

    def __init__(self, classes: int, channels: int, normalize: Normalize, width: int) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.linear = nn.Linear(16 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        x = self.normalize(x)
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(bn(conv(x)))
        height, width = x.shape[2:]
        if height % 2 == 0 and width % 2 == 0:
            # The same as the adaptive pooling below, which has no deterministic gradient on CUDA.
            x = F.avg_pool2d(x, (height // 2, width // 2)) if (height, width) != (2, 2) else x
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        logits: Tensor = self.linear(x.flatten(1))
        return logits
