"""Owns the pictures that a teacher is distilled on: any photographs, each scaled to one square."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from edge_runtime.imaging.frames import Size
from trainer.data.textures import read_picture
from trainer.models.method import TileBatch


class Pictures:
    """`TrainingTiles` over a folder of pictures; every cell counts."""

    def __init__(
        self, paths: Sequence[Path], *, side: int, stride: int, batch: int, workers: int, device: torch.device
    ) -> None:
        """Take the files.

        Args:
            paths: of pictures of any size.
            side: pixels a side that they are scaled to.
            stride: pixels a cell.
            batch: pictures in a batch.
            workers: threads that read ahead; 0 reads in the caller's.
            device: where batches go.
        """
        self._paths = tuple(paths)
        self._side = side
        self._stride = stride
        self._batch = batch
        self._workers = workers
        self._device = device

    def __iter__(self) -> Iterator[TileBatch]:
        """Batches in the order of the files."""
        return self._batches(self._paths)

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """Batches in an order drawn from the seed."""
        paths = list(self._paths)
        random.Random(seed).shuffle(paths)  # noqa: S311 - an order to train in, no secret
        return self._batches(paths)

    @property
    def batch(self) -> int:
        """How many pictures a batch has, but perhaps the last one."""
        return self._batch

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self._paths)

    @property
    def cells(self) -> int:
        """How many cells there are in all."""
        return self.count * self.grid[0] * self.grid[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a picture's grid."""
        return self._side // self._stride, self._side // self._stride

    @property
    def places(self) -> int:
        """One: a picture has no plan."""
        return 1

    @property
    def margin(self) -> int:
        """A picture has no halo."""
        return 0

    @property
    def whole(self) -> bool:
        """A picture is not cut."""
        return True

    @property
    def views(self) -> int:
        """A picture is seen as it is."""
        return 1

    def _batches(self, paths: Sequence[Path]) -> Iterator[TileBatch]:
        """Batches, of which two are read ahead."""
        groups = iter([paths[start : start + self._batch] for start in range(0, len(paths), self._batch)])
        if self._workers == 0:
            yield from (self._stacked([self._read(path) for path in group]) for group in groups)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            ahead = [[pool.submit(self._read, path) for path in group] for group in islice(groups, 2)]
            while ahead:
                yield self._stacked([read.result() for read in ahead.pop(0)])
                ahead.extend([pool.submit(self._read, path) for path in group] for group in islice(groups, 1))

    def _read(self, path: Path) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(read_picture(path, Size(self._side, self._side))))

    def _stacked(self, pictures: list[torch.Tensor]) -> TileBatch:
        tiles = torch.stack(pictures).to(self._device)
        return TileBatch(tiles, torch.ones(len(tiles), *self.grid, dtype=torch.bool, device=self._device))
