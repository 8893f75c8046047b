"""Owns the way from an image file to the planes of its regions: from memory, from the tile cache, or decoded and scaled."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.samples import Sample, file_digest
from edge_runtime.bundle.recipe import Recipe
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Pixels, read_image
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.tiles import TilePlan
from edge_runtime.layout import make_region, tile_plan
from trainer.data.plane_cache import PlaneCache

_MEMORY_BYTES = 1 << 30  # of planes that are trained on again and again

_Cut: TypeAlias = tuple[Sample, tuple[Pixels, ...]]


class Planes:
    """The planes (height, width, C) of images, one for each region, as inspection would cut them."""

    def __init__(
        self, recipe: Recipe, valid_areas: Mapping[str, NDArray[np.bool_]], cache: PlaneCache | None = None
    ) -> None:
        """Lay out the regions.

        Args:
            recipe: geometry and tiling.
            valid_areas: masks by the member name that regions give.
            cache: where planes are kept between builds; None for nowhere.
        """
        self.recipe = recipe
        frame = recipe.geometry.frame.size
        self.regions: tuple[tuple[Region, TilePlan], ...] = tuple(
            (make_region(spec, frame, valid_areas), tile_plan(recipe, spec)) for spec in recipe.geometry.regions
        )
        self._cache = cache
        self._held: dict[str, tuple[Pixels, ...]] = {}  # by digest, of images that were read before and fitted in
        self._room = _MEMORY_BYTES

    def ahead(self, samples: Sequence[Sample], *, workers: int, keep: bool) -> Iterator[_Cut]:
        """Each image with its planes, in order, read ahead by threads; 0 workers read in the caller's.

        With `keep`, planes stay in memory for the next time as long as there is room.

        Raises:
            DataError: an image cannot be read or is not what the others are.
        """
        if workers == 0:
            for sample in samples:
                yield sample, self._kept(sample, self._of(sample), wanted=keep)
            return
        with ThreadPoolExecutor(workers) as pool:
            rest = iter(samples)
            queue = [(sample, pool.submit(self._of, sample)) for sample in islice(rest, 2 * workers)]
            while queue:
                sample, planes = queue.pop(0)
                yield sample, self._kept(sample, planes.result(), wanted=keep)
                queue.extend((sample, pool.submit(self._of, sample)) for sample in islice(rest, 1))

    def _kept(self, sample: Sample, planes: tuple[Pixels, ...], *, wanted: bool) -> tuple[Pixels, ...]:
        size = sum(plane.nbytes for plane in planes)
        if wanted and sample.digest not in self._held and size <= self._room:
            self._room -= size
            self._held[sample.digest] = planes
        return planes

    def _of(self, sample: Sample) -> tuple[Pixels, ...]:
        held = self._held.get(sample.digest)
        if held is not None:
            return held
        known = self._known(sample)
        if known is not None:
            return known
        pixels = self._read(sample)
        planes = tuple(region.cut(pixels) for region, _ in self.regions)
        if self._cache is not None and unchanged(sample):
            for index, plane in enumerate(planes):
                self._cache.put(self._key(sample, index), plane)
        return planes

    def _known(self, sample: Sample) -> tuple[Pixels, ...] | None:
        """Planes of the cache; None unless all of them are there and of the shape that is expected."""
        if self._cache is None:
            return None
        pixel_format = self.recipe.geometry.pixel_format
        found: list[Pixels] = []
        for index, (region, _) in enumerate(self.regions):
            plane = self._cache.get(self._key(sample, index))
            shape = (region.plane.height, region.plane.width, pixel_format.channels)
            if plane is None or plane.shape != shape or plane.dtype != pixel_format.dtype:
                return None
            found.append(plane)
        return tuple(found)

    def _key(self, sample: Sample, index: int) -> dict[str, object]:
        """All that shapes a plane: polygons and masks do not."""
        geometry = self.recipe.geometry
        spec = geometry.regions[index]
        return {
            "kind": "plane",
            "image": sample.digest,
            "frame": list(geometry.frame.size),
            "crop": spec.crop.model_dump(),
            "plane": list(spec.plane.size),
            "format": geometry.pixel_format.value,
            "stated": geometry.file_format,
            "demosaic": geometry.demosaic_version,
            "resize": geometry.resize_version,
        }

    def _read(self, sample: Sample) -> Pixels:
        frame = read_image(sample.path, self.recipe.geometry.file_format)
        expected = self.recipe.geometry.frame.size
        if frame.size != expected:
            message = f"{sample.path}: is {frame.size}, the other images are {expected}: give images of one size"
            raise DataError(message)
        return frame.as_format(self.recipe.geometry.pixel_format)


def unchanged(sample: Sample) -> bool:
    """Whether the file still is the one that the data set was opened with: else its digest would name other pixels."""
    return file_digest(sample.path) == sample.digest
