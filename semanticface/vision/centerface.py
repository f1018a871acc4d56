"""CenterFace (Xu, Yan, Yang, Roy and Chan 2019, MIT licence): a strong detector of photographed faces, and only those.

The published network, a MobileNetV2 with a small feature pyramid, reimplemented in plain torch.
``data_prep/assets/build_centerface.py`` converts its published weights.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4
# MobileNetV2's stages: expansion, channels, blocks, stride of the first (Sandler et al. 2018, table 2).
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# The stages used by the pyramid, finest first, and its width.
_TAPS = (1, 2, 4, 6)
_WIDTH = 24
FEATURES = tuple(_STAGES[tap][1] for tap in _TAPS)


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution as a matrix product: much faster on a CPU with channels-last memory."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, 1)

    def forward(self, values: Tensor) -> Tensor:
        return functional.linear(values.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class CenterFaceNet(nn.Module):
    """1.8 M parameters; batch norm is folded into the convolutions, so it is for inference only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(inplace=True))
        stages, inner = [], 32
        for expansion, outer, count, stride in _STAGES:
            widths = [inner, *[outer] * count]
            strides = [stride, *[1] * (count - 1)]
            pairs = zip(itertools.pairwise(widths), strides, strict=True)
            stages.append(nn.Sequential(*(_Block(a, b, expansion, step) for (a, b), step in pairs)))
            inner = outer
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(Pointwise(_STAGES[tap][1], _WIDTH) for tap in _TAPS)
        self.up = nn.ModuleList(nn.ConvTranspose2d(_WIDTH, _WIDTH, 2, 2) for _ in _TAPS[1:])
        self.head = nn.Sequential(nn.Conv2d(_WIDTH, _WIDTH, 3, 1, 1), nn.ReLU(inplace=True))
        self.answer = Pointwise(_WIDTH, 5)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Map RGB pixels [B, 3, H, W] in 0..255, H and W multiples of 32, to features of the weights' dtype.

        They have 24, 32, 96 and 320 channels at 1/4, 1/8, 1/16 and 1/32 of the size.
        """
        taps, values = [], self.stem(pixels.to(self.answer.weight.dtype))
        for number, stage in enumerate(self.stages):
            values = stage(values)
            if number in _TAPS:
                taps.append(values)
        return taps

    def predict_maps(self, features: list[Tensor]) -> Tensor:
        """Map ``features`` to float32 [B, 5, H/4, W/4].

        Channels: logit that a face's centre lies in the cell; natural logarithms of its height and width in cells; the
        centre's offset from the cell's centre in cells, y and x.
        """
        taps = [lateral(tap).relu_() for lateral, tap in zip(self.lateral, features, strict=True)]
        values = taps.pop()
        for up in self.up:
            values = up(values).relu_() + taps.pop()
        maps: Tensor = self.answer(self.head(values)).float()
        return maps


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inner * expansion
        first = [Pointwise(inner, wide), nn.ReLU(inplace=True)] if expansion > 1 else []
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)
        self.steps = nn.Sequential(*first, depthwise, nn.ReLU(inplace=True), Pointwise(wide, outer))
        self.adds = stride == 1 and inner == outer

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = self.steps(values)
        return values + changed if self.adds else changed


def decode_boxes(maps: Tensor) -> Tensor:
    """Decode maps [B, 5, h, w] to each cell's (score, centre x, centre y, width, height), in pixels."""
    rows, columns = maps.shape[-2:]
    height, width = (maps[:, 1:3].clamp(-8.0, 8.0).exp() * STRIDE).unbind(1)
    y = (torch.arange(rows, device=maps.device)[:, None] + maps[:, 3] + 0.5) * STRIDE
    x = (torch.arange(columns, device=maps.device) + maps[:, 4] + 0.5) * STRIDE
    return torch.stack([maps[:, 0].sigmoid(), x, y, width, height], dim=1)
