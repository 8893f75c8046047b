"""Training tiles from memory, for methods that are trained by gradients."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.method import TileBatch


@dataclass(frozen=True)
class MemoryTiles:
    """Tiles (N, H, W, C) on a grid of cells, the cells of `kept` counting, all where it is None."""

    pixels: Tensor
    stride: int
    batch: int = 4
    kept: Tensor | None = None
    views: int = 1

    def __iter__(self) -> Iterator[TileBatch]:
        """In the order given."""
        yield from self._batches(torch.arange(self.count))

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """In an order by seed."""
        yield from self._batches(torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)))

    def _batches(self, order: Tensor) -> Iterator[TileBatch]:
        kept = torch.ones(self.count, *self.grid, dtype=torch.bool) if self.kept is None else self.kept
        for part in order.split(self.batch):
            yield TileBatch(self.pixels[part], kept[part])

    @property
    def count(self) -> int:
        """How many tiles."""
        return len(self.pixels)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.pixels.shape[1] // self.stride, self.pixels.shape[2] // self.stride

    @property
    def cells(self) -> int:
        """How many count."""
        return self.count * self.grid[0] * self.grid[1] if self.kept is None else int(self.kept.sum())


def surfaces(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """(N, side, side, 3) uint8: a grain that differs from tile to tile, lighter towards one side."""
    generator = torch.Generator().manual_seed(seed)
    grain = 12 * torch.randn(count, side, side, 3, generator=generator)
    slope = torch.linspace(80, 160, side).view(1, 1, side, 1)
    return (grain + slope).clamp(0, 255).to(torch.uint8)
