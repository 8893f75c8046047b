"""Owns what of a method's graph is looked at before the fit, to choose a halo: all that mixes neighbouring cells.

Each is a module tiles (B, H, W, C) integers -> (B, D, h, w), as `Method.seen` gives it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones import Features


class Joined(nn.Module):
    """All layers side by side at the first one's grid."""

    def __init__(self, features: Features) -> None:
        """Take the features."""
        super().__init__()
        self.features = features

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, sum D_i, h, w)."""
        return joined(self.features(tiles))


class Stacked(nn.Module):
    """A module whose map stands for itself."""

    def __init__(self, module: nn.Module) -> None:
        """Take a module that gives (B, h, w)."""
        super().__init__()
        self.module = module

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 1, h, w)."""
        found: Tensor = self.module(tiles)
        return found.unsqueeze(1)


def joined(maps: list[Tensor]) -> Tensor:
    """[(B, D_i, h_i, w_i)] -> (B, sum D_i, h, w), bilinear."""
    grid = maps[0].shape[-2:]
    rest = [functional.interpolate(layer, size=grid, mode="bilinear", align_corners=False) for layer in maps[1:]]
    return torch.cat([maps[0], *rest], dim=1)
