"""ResNet-18 and pre-activation ResNet-18 for 32x32 images, with the parameter names of the released CIFAR models.

Source: He et al., CVPR 2016 and ECCV 2016; names as in kuangliu/pytorch-cifar, which the RSLAD and ABSLD releases use.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.normalize import Normalize


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or planes_in != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(planes_in, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        """(B,planes_in,H,W) to (B,planes,H/stride,W/stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class PreActBlock(nn.Module):
    """The same with normalisation and activation before each convolution."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes_in)
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.reshapes = stride != 1 or planes_in != planes
        if self.reshapes:
            self.shortcut = nn.Sequential(nn.Conv2d(planes_in, planes, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B,planes_in,H,W) to (B,planes,H/stride,W/stride)."""
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if self.reshapes else x
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        summed: Tensor = out + shortcut
        return summed


def stages(block: type[nn.Module]) -> list[nn.Sequential]:
    """The four stages of two blocks each: 64, 128, 256, 512 planes."""
    made, planes_in = [], 64
    for planes, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        made.append(nn.Sequential(block(planes_in, planes, stride), block(planes, planes, 1)))
        planes_in = planes
    return made


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem."""

    def __init__(self, classes: int, channels: int, normalize: Normalize) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(BasicBlock)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        out = F.relu(self.bn1(self.conv1(self.normalize(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18.

    With a normalisation and activation after the last stage, as in the paper and in the code of Rice et al., AWP and
    CFA, in whose line the fairness papers stand; kuangliu's, which leaves both out, is `PlainPreActResNet18`.
    """

    last = True

    def __init__(self, classes: int, channels: int, normalize: Normalize) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(PreActBlock)
        if self.last:
            self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(self.normalize(x))))))
        if self.last:
            out = F.relu(self.bn(out))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class PlainPreActResNet18(PreActResNet18):
    """Pre-activation ResNet-18 that pools the last stage as it is."""

    last = False
