"""Training tiles from memory, for tests of methods."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.method import TileBatch


@dataclass(frozen=True)
class Tiles:
    """`TrainingTiles` over a tensor."""

    pixels: Tensor  # (N, H, W, C)
    stride: int
    batch: int = 4
    kept: Tensor | None = None  # (N, h, w); all cells count when None
    whole: bool = True
    views: int = 1
    index: Tensor | None = None  # (N,) int32; one tile when None
    places: int = 1
    margin: int = 0

    def __iter__(self) -> Iterator[TileBatch]:
        yield from self._batches(torch.arange(self.count))

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """Batches in an order drawn from the seed."""
        yield from self._batches(torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)))

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.pixels)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.pixels.shape[1] // self.stride, self.pixels.shape[2] // self.stride

    @property
    def cells(self) -> int:
        """How many cells count."""
        return int(self._mask.sum())

    @property
    def _mask(self) -> Tensor:
        return torch.ones(self.count, *self.grid, dtype=torch.bool) if self.kept is None else self.kept

    def _batches(self, order: Tensor) -> Iterator[TileBatch]:
        for chosen in order.split(self.batch):
            index = None if self.index is None else self.index[chosen]
            yield TileBatch(self.pixels[chosen], self._mask[chosen], index)
