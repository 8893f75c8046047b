"""Owns the tiles of the fit share: cut from sensor pixels by the very plan that inspection uses."""

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edge_runtime.bundle.manifest import Recipe
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Pixels, read_image
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.tiles import TilePlan
from edge_runtime.scorer import make_plan, make_region
from trainer.models.method import TileBatch

_CACHE_BYTES = 1 << 30  # of planes that are trained on again and again

_Tile: TypeAlias = tuple[Pixels, NDArray[np.bool_], int]


class FrameTiles:
    """`TrainingTiles` over image files; frames are read ahead by threads, in order."""

    def __init__(
        self,
        recipe: Recipe,
        paths: Sequence[Path],
        *,
        valid_areas: dict[str, NDArray[np.bool_]],
        batch: int,
        workers: int,
        device: torch.device,
        quiet: bool = False,
    ) -> None:
        """Lay out the tiles of all regions.

        Args:
            recipe: geometry and tiling.
            paths: image files of the fit share.
            valid_areas: masks by the member name that regions give.
            batch: tiles in a batch.
            workers: threads that read ahead; 0 reads in the caller's.
            device: where batches go.
            quiet: show no progress.
        """
        self._recipe = recipe
        self._paths = paths
        self._batch = batch
        self._workers = workers
        self._device = device
        self._quiet = True if quiet else None  # None: where stderr is no terminal
        frame = recipe.geometry.frame.size
        self._regions: list[tuple[Region, TilePlan]] = [
            (make_region(spec, frame, valid_areas), make_plan(recipe, spec)) for spec in recipe.geometry.regions
        ]
        self._kept = [_kept(region, plan) for region, plan in self._regions]
        self._planes: dict[Path, tuple[Pixels, ...]] = {}  # of frames that were read before, as long as they fit
        self._room = _CACHE_BYTES

    @property
    def cells(self) -> int:
        """How many cells count, over all tiles of all images."""
        return len(self._paths) * sum(int(kept.sum()) for region in self._kept for kept in region.values())

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a tile's feature grid."""
        plan = self._regions[0][1]
        return plan.input.height // plan.stride, plan.input.width // plan.stride

    @property
    def places(self) -> int:
        """How many tiles the plans of all regions have; those of which no cell counts are among them."""
        return sum(plan.count for _, plan in self._regions)

    @property
    def margin(self) -> int:
        """Cells of the halo on each side of a tile's grid."""
        plan = self._regions[0][1]
        return plan.halo // plan.stride

    @property
    def whole(self) -> bool:
        """Whether every tile is a whole plane and shows nothing beyond it."""
        return all(plan.halo == 0 and plan.core == region.plane for region, plan in self._regions)

    def __iter__(self) -> Iterator[TileBatch]:
        """Batches in the order of the files; tiles of which no cell counts are left out."""
        tiles = self._tiles(self._paths, keep=False)
        yield from self._batches(tqdm(tiles, total=self.count, desc="fit", unit="", leave=False, disable=self._quiet))

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """Batches in an order drawn from the seed: of the frames, and of the tiles of frames that follow each other."""
        draw = random.Random(seed)  # noqa: S311 - an order to train in, no secret
        paths = list(self._paths)
        draw.shuffle(paths)
        yield from self._batches(_stirred(self._tiles(paths, keep=True), draw, 16 * self._batch))

    @property
    def batch(self) -> int:
        """How many tiles a batch has, but perhaps the last one."""
        return self._batch

    @property
    def count(self) -> int:
        """How many tiles there are, of all images."""
        return len(self._paths) * sum(len(masks) for masks in self._kept)

    def _tiles(self, paths: Sequence[Path], *, keep: bool) -> Iterator[_Tile]:
        for planes in self._read_ahead(paths, keep=keep):
            first = 0
            for (_, plan), masks, plane in zip(self._regions, self._kept, planes, strict=True):
                for tile, mask in masks.items():
                    cut = np.empty((plan.input.height, plan.input.width, plane.shape[2]), dtype=plane.dtype)
                    plan.cut(plane, tile, cut)
                    yield cut, mask, first + tile
                first += plan.count

    def _batches(self, tiles: Iterable[_Tile]) -> Iterator[TileBatch]:
        source = iter(tiles)
        while batch := list(islice(source, self._batch)):
            cuts, masks, indices = zip(*batch, strict=True)
            yield TileBatch(
                torch.from_numpy(np.stack(cuts)).to(self._device),
                torch.from_numpy(np.stack(masks)).to(self._device),
                torch.tensor(indices, dtype=torch.int32, device=self._device),
            )

    def _read_ahead(self, paths: Sequence[Path], *, keep: bool) -> Iterator[tuple[Pixels, ...]]:
        """The planes of each frame, in order; kept for the next time where that was asked for and there is room."""
        if self._workers == 0:
            for path in paths:
                yield self._keep(path, self._cut(path), wanted=keep)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            rest = iter(paths)
            ahead = [(path, pool.submit(self._cut, path)) for path in islice(rest, 2 * self._workers)]
            while ahead:
                path, planes = ahead.pop(0)
                yield self._keep(path, planes.result(), wanted=keep)
                ahead.extend((path, pool.submit(self._cut, path)) for path in islice(rest, 1))

    def _keep(self, path: Path, planes: tuple[Pixels, ...], *, wanted: bool) -> tuple[Pixels, ...]:
        size = sum(plane.nbytes for plane in planes)
        if wanted and path not in self._planes and size <= self._room:
            self._room -= size
            self._planes[path] = planes
        return planes

    def _cut(self, path: Path) -> tuple[Pixels, ...]:
        known = self._planes.get(path)
        if known is not None:
            return known
        pixels = self._read(path)
        return tuple(region.cut(pixels) for region, _ in self._regions)

    def _read(self, path: Path) -> Pixels:
        frame = read_image(path)
        expected = self._recipe.geometry.frame.size
        if frame.size != expected:
            message = f"{path}: is {frame.size}, the other images are {expected}: give images of one size"
            raise DataError(message)
        return frame.as_format(self._recipe.geometry.pixel_format)


def _stirred(tiles: Iterator[_Tile], draw: random.Random, held: int) -> Iterator[_Tile]:
    """The same tiles in another order, with no more than `held` of them in memory."""
    pool = list(islice(tiles, held))
    for tile in tiles:
        index = draw.randrange(len(pool))
        pool[index], out = tile, pool[index]
        yield out
    draw.shuffle(pool)
    yield from pool


def _kept(region: Region, plan: TilePlan) -> dict[int, NDArray[np.bool_]]:
    """By tile, the cells to train on: of the core, on the plane, in the valid area; tiles without any are left out."""
    valid = region.valid_on_grid(plan.stride)
    kept = {tile: plan.kept(tile) for tile in range(plan.count)}
    if valid is not None:
        for tile, mask in kept.items():
            on_tile = np.zeros_like(mask)
            plan.take(valid, tile, on_tile)
            kept[tile] = mask & on_tile
    return {tile: mask for tile, mask in kept.items() if mask.any()}
