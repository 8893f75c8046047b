"""Owns DRAEM's two networks: one repairs an image, the other compares it with what it was.

Zavrtanik et al., ICCV 2021, arXiv:2108.07610. Each level's channels are a multiple of the first one's, and the decoders
mirror the encoders.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

RECONSTRUCTION = (1, 2, 4, 8, 8)
DISCRIMINATION = (1, 2, 4, 8, 8, 8)
STRIDE = 2 ** (len(DISCRIMINATION) - 1)  # what sides must be multiples of


class Reconstruction(nn.Module):
    """An autoencoder without skips, so that nothing but what it has learnt gets through."""

    def __init__(self, width: int) -> None:
        """Make its layers; `width` is the first level's channels."""
        super().__init__()
        widths = [width * factor for factor in RECONSTRUCTION]
        self.down = _encoder(3, widths)
        self.widen = nn.ModuleList(_single(deep, deep) for deep in widths[:0:-1])
        self.up = nn.ModuleList(
            nn.Sequential(_single(deep, deep), _single(deep, shallow)) for deep, shallow in _steps(widths)
        )
        self.last = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W), of about [0, 1]."""
        values = _encode(self.down, images)[-1]
        for widen, block in zip(self.widen, self.up, strict=True):
            values = block(widen(_double(values)))
        repaired: Tensor = self.last(values)
        return repaired


class Discrimination(nn.Module):
    """A U-Net over an image and its repaired version."""

    def __init__(self, width: int) -> None:
        """Make its layers; `width` is the first level's channels."""
        super().__init__()
        widths = [width * factor for factor in DISCRIMINATION]
        self.down = _encoder(6, widths)
        self.widen = nn.ModuleList(_single(deep, shallow) for deep, shallow in _steps(widths))
        self.up = nn.ModuleList(_block(2 * shallow, shallow) for _, shallow in _steps(widths))
        self.last = nn.Conv2d(widths[0], 2, 3, padding=1)

    def forward(self, images: Tensor, repaired: Tensor) -> Tensor:
        """Twice (B, 3, H, W) -> (B, 2, H, W) logits, of good and of anomalous."""
        levels = _encode(self.down, torch.cat([images, repaired], dim=1))
        values = levels.pop()
        for widen, block in zip(self.widen, self.up, strict=True):
            values = block(torch.cat([widen(_double(values)), levels.pop()], dim=1))
        logits: Tensor = self.last(values)
        return logits


def _steps(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Channels below and above each step of a decoder, deepest first."""
    return [(widths[index], widths[index - 1]) for index in range(len(widths) - 1, 0, -1)]


def _encoder(channels: int, widths: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(_block(before, after) for before, after in zip((channels, *widths), widths, strict=False))


def _encode(blocks: nn.ModuleList, values: Tensor) -> list[Tensor]:
    """Each level's values, finest first."""
    levels: list[Tensor] = []
    for block in blocks:
        values = block(functional.max_pool2d(values, 2) if levels else values)
        levels.append(values)
    return levels


def _double(values: Tensor) -> Tensor:
    return functional.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)


def _single(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_single(before, after), *_single(after, after))
