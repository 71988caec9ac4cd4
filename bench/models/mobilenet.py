"""MobileNetV2 for 32x32 images, with the parameter names of the released CIFAR models.

Source: Sandler et al., CVPR 2018; names and strides as in kuangliu/pytorch-cifar.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.normalize import Normalize

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, planes, blocks, stride of the first block."""


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the side is kept."""

    def __init__(self, planes_in: int, planes: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        wide = expansion * planes_in
        self.conv1 = nn.Conv2d(planes_in, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride == 1 and planes_in != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(planes_in, planes, 1, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        """(B,planes_in,H,W) to (B,planes,H/stride,W/stride)."""
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        projected: Tensor = out + self.shortcut(x) if self.stride == 1 else out
        return projected


class MobileNetV2(nn.Module):
    """MobileNetV2."""

    def __init__(self, classes: int, channels: int, normalize: Normalize) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        layers, planes_in = [], 32
        for expansion, planes, blocks, first in STAGES:
            for stride in (first, *[1] * (blocks - 1)):
                layers.append(InvertedResidual(planes_in, planes, expansion, stride))
                planes_in = planes
        self.layers = nn.Sequential(*layers)
        self.conv2 = nn.Conv2d(planes_in, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        out = F.relu(self.bn1(self.conv1(self.normalize(x))))
        out = F.relu(self.bn2(self.conv2(self.layers(out))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits
