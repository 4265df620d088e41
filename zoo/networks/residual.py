"""A residual network of basic blocks that gives one vector an image (He et al. 2016, "Deep residual learning").

Its shortcuts average before they project (He et al. 2019, "Bag of tricks for image classification", ResNet-D), and the
vector is a linear map of the mean over positions, so the network takes any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks import arguments


class BasicBlock(nn.Module):
    """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)): two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.norm2.weight)  # each block starts as its shortcut (Goyal et al. 2017, section 5.1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResidualTower(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, embed_dim).

    The stem's two strided convolutions leave a quarter of the side; each further stage halves it.

    Args:
        widths: channels of each stage. layers: blocks of each stage.
        image_size: pixels a side of the images it is trained on; others fit, but may be read worse.
    """

    def __init__(self, *, widths: Sequence[int], layers: Sequence[int], embed_dim: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        arguments.residual_tower(widths=widths, layers=layers, embed_dim=embed_dim)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0] // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0] // 2), nn.ReLU(),
            nn.Conv2d(widths[0] // 2, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(),
        )  # fmt: skip
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, layers, strict=True)):
            for place in range(count):
                blocks.append(BasicBlock(channels, width, stride=2 if stage > 0 and place == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Linear(channels, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.projection(self.blocks(self.stem(x)).mean(dim=(2, 3)))
