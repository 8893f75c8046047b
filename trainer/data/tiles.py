"""Owns the tiles of the fit share: cut from sensor pixels by the very plan that inspection uses."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

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
    ) -> None:
        """Lay out the tiles of all regions.

        Args:
            recipe: geometry and tiling.
            paths: image files of the fit share.
            valid_areas: masks by the member name that regions give.
            batch: tiles in a batch.
            workers: threads that read ahead; 0 reads in the caller's.
            device: where batches go.
        """
        self._recipe = recipe
        self._paths = paths
        self._batch = batch
        self._workers = workers
        self._device = device
        frame = recipe.geometry.frame.size
        self._regions: list[tuple[Region, TilePlan]] = [
            (make_region(spec, frame, valid_areas), make_plan(recipe, spec)) for spec in recipe.geometry.regions
        ]
        self._kept = [_kept(region, plan) for region, plan in self._regions]

    @property
    def cells(self) -> int:
        """How many cells count, over all tiles of all images."""
        return len(self._paths) * sum(int(kept.sum()) for region in self._kept for kept in region.values())

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a tile's feature grid."""
        plan = self._regions[0][1]
        return plan.input.height // plan.stride, plan.input.width // plan.stride

    def __iter__(self) -> Iterator[TileBatch]:
        """Batches in the order of the files; tiles of which no cell counts are left out."""
        tiles: list[Pixels] = []
        kept: list[NDArray[np.bool_]] = []
        for pixels in tqdm(self._frames(), total=len(self._paths), desc="fit", unit="", leave=False, disable=None):
            for (region, plan), masks in zip(self._regions, self._kept, strict=True):
                plane = region.cut(pixels)
                for tile, mask in masks.items():
                    cut = np.empty((plan.input.height, plan.input.width, plane.shape[2]), dtype=plane.dtype)
                    plan.cut(plane, tile, cut)
                    tiles.append(cut)
                    kept.append(mask)
                    if len(tiles) == self._batch:
                        yield self._to_device(tiles, kept)
                        tiles, kept = [], []
        if tiles:
            yield self._to_device(tiles, kept)

    def _to_device(self, tiles: list[Pixels], kept: list[NDArray[np.bool_]]) -> TileBatch:
        stacked = torch.from_numpy(np.stack(tiles)).to(self._device)
        return TileBatch(stacked, torch.from_numpy(np.stack(kept)).to(self._device))

    def _frames(self) -> Iterator[Pixels]:
        if self._workers == 0:
            yield from map(self._read, self._paths)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            paths = iter(self._paths)
            ahead = [pool.submit(self._read, path) for path in islice(paths, 2 * self._workers)]
            while ahead:
                yield ahead.pop(0).result()
                ahead.extend(pool.submit(self._read, path) for path in islice(paths, 1))

    def _read(self, path: Path) -> Pixels:
        frame = read_image(path)
        expected = self._recipe.geometry.frame.size
        if frame.size != expected:
            message = f"{path}: is {frame.size}, the other images are {expected}: give images of one size"
            raise DataError(message)
        return frame.as_format(self._recipe.geometry.pixel_format)


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
