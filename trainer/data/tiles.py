"""Owns the tiles of a share: cut from sensor pixels by the very plan that inspection uses."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.samples import Sample
from edge_runtime.imaging.frames import Pixels
from trainer.data.augment import Views
from trainer.data.planes import Planes
from trainer.data.selection import Selection
from trainer.models.method import TileBatch

_Placed: TypeAlias = tuple[Pixels, NDArray[np.bool_], int]  # a view of a tile, cells that count, which tile it is


class FrameTiles:
    """`TrainingTiles` over image files; frames are read ahead by threads, in order."""

    def __init__(
        self,
        planes: Planes,
        selection: Selection,
        samples: Sequence[Sample],
        *,
        views: Views,
        batch: int,
        workers: int,
        device: torch.device,
        quiet: bool = False,
    ) -> None:
        """Lay out the tiles of all regions.

        Args:
            planes: what images are cut to.
            selection: which of their tiles are taken.
            samples: the images of the share.
            views: how each tile is seen.
            batch: tiles in a batch.
            workers: threads that read ahead; 0 reads in the caller's.
            device: where batches go.
            quiet: show no progress.
        """
        self._planes = planes
        self._selection = selection
        self._samples = samples
        self._views = views
        self._batch = batch
        self._workers = workers
        self._device = device
        self._quiet = True if quiet else None  # None: where stderr is no terminal
        self._count = views.count * selection.tiles(samples)
        self._cells = views.count * selection.count_cells(samples)

    @property
    def cells(self) -> int:
        """How many cells count, over all tiles of all images, each view by itself."""
        return self._cells

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a tile's feature grid."""
        plan = self._planes.regions[0][1]
        return plan.input.height // plan.stride, plan.input.width // plan.stride

    @property
    def places(self) -> int:
        """How many tiles the plans of all regions have; those of which no cell counts are among them."""
        return sum(plan.count for _, plan in self._planes.regions)

    @property
    def margin(self) -> int:
        """Cells of the halo on each side of a tile's grid."""
        plan = self._planes.regions[0][1]
        return plan.halo // plan.stride

    @property
    def whole(self) -> bool:
        """Whether every tile is a whole plane and shows nothing beyond it."""
        return all(plan.halo == 0 and plan.core == region.plane for region, plan in self._planes.regions)

    def __iter__(self) -> Iterator[TileBatch]:
        """Batches in the order of the files; tiles of which no cell counts are left out."""
        tiles = self._tiles(self._samples, keep=False)
        yield from self._batches(tqdm(tiles, total=self.count, desc="fit", unit="", leave=False, disable=self._quiet))

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """Batches in an order drawn from the seed: of the frames, and of the tiles of frames that follow each other."""
        draw = random.Random(seed)  # noqa: S311 - an order to train in, no secret
        samples = list(self._samples)
        draw.shuffle(samples)
        yield from self._batches(_stirred(self._tiles(samples, keep=True), draw, 16 * self._batch))

    @property
    def batch(self) -> int:
        """How many tiles a batch has, but perhaps the last one."""
        return self._batch

    @property
    def count(self) -> int:
        """How many tiles there are, of all images, each view by itself."""
        return self._count

    @property
    def views(self) -> int:
        """How many times each tile is seen, one view after the other in the order of `__iter__`."""
        return self._views.count

    def _tiles(self, samples: Sequence[Sample], *, keep: bool) -> Iterator[_Placed]:
        for sample, planes in self._planes.ahead(samples, workers=self._workers, keep=keep):
            chosen, first = self._selection.of(sample), 0
            for index, ((_, plan), masks, plane) in enumerate(zip(self._planes.regions, chosen, planes, strict=True)):
                for tile, mask in masks.items():
                    cut = np.empty((plan.input.height, plan.input.width, plane.shape[2]), dtype=plane.dtype)
                    plan.cut(plane, tile, cut)
                    for seen, kept in self._views.of(cut, mask, (int(sample.digest[:16], 16), index, tile)):
                        yield seen, kept, first + tile
                first += plan.count

    def _batches(self, tiles: Iterable[_Placed]) -> Iterator[TileBatch]:
        source = iter(tiles)
        while batch := list(islice(source, self._batch)):
            cuts, masks, indices = zip(*batch, strict=True)
            yield TileBatch(
                torch.from_numpy(np.stack(cuts)).to(self._device),
                torch.from_numpy(np.stack(masks)).to(self._device),
                torch.tensor(indices, dtype=torch.int32, device=self._device),
            )


def _stirred(tiles: Iterator[_Placed], draw: random.Random, held: int) -> Iterator[_Placed]:
    """The same tiles in another order, with no more than `held` of them in memory."""
    pool = list(islice(tiles, held))
    for tile in tiles:
        index = draw.randrange(len(pool))
        pool[index], out = tile, pool[index]
        yield out
    draw.shuffle(pool)
    yield from pool
