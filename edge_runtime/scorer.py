"""Owns the one inference path: frame -> planes -> tiles -> engine -> stitched map -> image score.

The trainer (with torch behind the engine Protocol), calibration and the service all score frames here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.manifest import ImageScoreRule, Recipe, RegionSpec
from edge_runtime.engines import Engine
from edge_runtime.errors import BundleError, DataError
from edge_runtime.imaging.frames import Frame, Pixels, Size
from edge_runtime.imaging.geometry import Crop, Region, region
from edge_runtime.imaging.maps import Map, contributing, peak_bound, pooled, smooth, upsample
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.imaging.tiles import TilePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Milliseconds spent in each stage of scoring."""

    preprocess: float
    infer: float
    postprocess: float


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Raw results of one region."""

    name: str
    image_score: float  # NaN where any cell of the map is not finite
    grid: Map  # (h, w), stitched, at the feature grid
    smoothed: Map | Callable[[], Map]  # what `plane_map` is, or what makes it and keeps it

    @property
    def plane_map(self) -> Map:
        """(plane height, plane width): the grid upsampled and smoothed, computed when it is first asked for."""
        return self.smoothed() if callable(self.smoothed) else self.smoothed


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Raw results of one frame, regions in the recipe's order."""

    regions: tuple[RegionScore, ...]
    times_ms: StageTimes


@dataclass(frozen=True, slots=True)
class _Inspected:
    """A region with what scoring needs of it, computed once."""

    region: Region
    plan: TilePlan
    first: int  # number of its first tile: those of all regions are counted on
    valid_plane: NDArray[np.bool_] | None
    valid_grid: NDArray[np.bool_] | None
    contributing: NDArray[np.bool_] | None  # cells that a valid pixel of the smoothed map depends on; None for all


class Scorer:
    """Recipe + engine: turns frames into anomaly maps and image scores. One frame at a time; not thread-safe."""

    def __init__(self, recipe: Recipe, engine: Engine, *, valid_areas: Mapping[str, NDArray[np.bool_]]) -> None:
        """Lay out regions and tile plans.

        Args:
            recipe: geometry, tiling and map policy.
            engine: runs the tile graph.
            valid_areas: masks (frame height, frame width) by the member name that regions give.

        Raises:
            BundleError: the recipe was made by a release that resizes otherwise.
            ConfigError: a region does not fit the frame.
        """
        if recipe.geometry.resize_version != RESIZE_VERSION:
            message = (
                f"the bundle was built with resize version {recipe.geometry.resize_version}, "
                f"this release has {RESIZE_VERSION}: scores would differ, rebuild the bundle"
            )
            raise BundleError(message)
        self.recipe = recipe
        self.engine = engine
        self.valid_areas = valid_areas
        self._inspected: dict[str, _Inspected] = {}
        first = 0
        for spec in recipe.geometry.regions:
            self._inspected[spec.name] = _lay_out(recipe, spec, valid_areas, first)
            first += self._inspected[spec.name].plan.count

    def score(self, frame: Frame) -> FrameScore:
        """Score one frame.

        Raises:
            DataError: size or format of the frame are not the recipe's.
            EngineError: the engine failed.
        """
        expected = self.recipe.geometry.frame.size
        if frame.size != expected:
            message = f"frame is {frame.size}, the bundle inspects {expected}: check the camera's mode and its crop"
            raise DataError(message)
        pixels = frame.as_format(self.recipe.geometry.pixel_format)
        clock = _StageClock()
        regions = tuple(self._score_region(inspected, pixels, clock) for inspected in self._inspected.values())
        return FrameScore(regions, clock.times())

    def region_map(self, scored: RegionScore) -> Map:
        """(crop height, crop width): a region's map in frame pixels, NaN where not valid."""
        return self.crop_map(scored.name, scored.plane_map)

    def crop_map(self, name: str, plane_map: Map) -> Map:
        """(crop height, crop width): a plane's map in frame pixels, NaN where not valid."""
        return self._inspected[name].region.to_frame(plane_map)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions as laid out on the frame."""
        return tuple(inspected.region for inspected in self._inspected.values())

    def plane_map(self, name: str, grid: Map) -> Map:
        """(plane height, plane width): a region's stitched map, upsampled and smoothed."""
        tiling, plane = self.recipe.tiling, self._inspected[name].plan.plane
        return smooth(
            upsample(grid, stride=tiling.stride, offset=tiling.offset, plane=plane), self.recipe.map_policy.sigma
        )

    def origin(self, name: str) -> tuple[int, int]:
        """X and y of a region's crop in the frame."""
        crop = self._inspected[name].region.crop
        return crop.x1, crop.y1

    def frame_map(self, scored: FrameScore) -> Map:
        """(frame height, frame width): all regions together, the larger value where they overlap, NaN elsewhere."""
        size = self.recipe.geometry.frame.size
        frame_map = np.full((size.height, size.width), np.nan, dtype=np.float32)
        for part in scored.regions:
            region_map = self.region_map(part)
            x, y = self.origin(part.name)
            window = frame_map[y : y + region_map.shape[0], x : x + region_map.shape[1]]
            np.fmax(window, region_map, out=window)
        return frame_map

    def valid_peak(self, scored: RegionScore) -> float:
        """Largest value of a region's smoothed map on its valid area."""
        return _peak(scored.plane_map, self._inspected[scored.name].valid_plane)

    def reaches(self, scored: RegionScore, threshold: float) -> bool:
        """Whether `valid_peak` is not below a threshold; where the grid alone says no, the map is not computed."""
        inspected = self._inspected[scored.name]
        if peak_bound(scored.grid, inspected.contributing, sigma=self.recipe.map_policy.sigma) < threshold:
            return False
        return not self.valid_peak(scored) < threshold  # one that is no number is looked at

    def _score_region(self, inspected: _Inspected, pixels: Pixels, clock: "_StageClock") -> RegionScore:
        plan, tiling = inspected.plan, self.recipe.tiling
        plane = inspected.region.cut(pixels)
        grid = np.full((plan.grid.height, plan.grid.width), np.nan, dtype=np.float32)  # what no tile scores stays NaN
        graph_score = float("nan")
        buffer = self.engine.tiles
        for start in range(0, plan.count, tiling.batch):
            tiles = range(start, min(start + tiling.batch, plan.count))
            for slot, tile in enumerate(tiles):  # unused slots keep old tiles: a score is independent of its batch
                plan.cut(plane, tile, buffer[slot])
                self.engine.tile_index[slot] = inspected.first + tile
            clock.lap("preprocess")
            output = self.engine.run()
            clock.lap("infer")
            for slot, tile in enumerate(tiles):
                plan.paste(output.map[slot], tile, grid)
            if output.image_score is not None:
                graph_score = float(output.image_score[0])  # where it counts, there is one tile: the schema sees to it
        name = inspected.region.name
        smoothed = cache(lambda: self.plane_map(name, grid))  # a good frame's is asked for by nobody
        image_score = self._image_score(inspected, grid, smoothed, graph_score)
        clock.lap("postprocess")
        return RegionScore(name, image_score, grid, smoothed)

    def _image_score(self, inspected: _Inspected, grid: Map, smoothed: Callable[[], Map], graph_score: float) -> float:
        if not np.isfinite(grid).all():
            return float("nan")
        match self.recipe.map_policy.image_score:
            case ImageScoreRule.MAX_RAW:
                return _peak(grid, inspected.valid_grid)
            case ImageScoreRule.POOLED_MAX:
                cells = self.recipe.map_policy.pooled_cells or 1
                return _peak(pooled(grid, cells, inspected.valid_grid), inspected.valid_grid)
            case ImageScoreRule.MAX_SMOOTHED:
                return _peak(smoothed(), inspected.valid_plane)
            case ImageScoreRule.GRAPH:
                return graph_score


class _StageClock:
    """Adds up the time since the last lap, by stage."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(("preprocess", "infer", "postprocess"), 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._spent[stage] += (now - self._last) * 1000
        self._last = now

    def times(self) -> StageTimes:
        return StageTimes(**self._spent)


def make_region(spec: RegionSpec, frame: Size, valid_areas: Mapping[str, NDArray[np.bool_]]) -> Region:
    """The `imaging` region that a specification describes.

    Raises:
        ConfigError: it does not fit the frame.
    """
    crop = Crop(spec.crop.x1, spec.crop.y1, spec.crop.x2, spec.crop.y2)
    mask = None if spec.valid_area is None else valid_areas[spec.valid_area]
    return region(name=spec.name, crop=crop, plane=spec.plane.size, frame=frame, polygon=spec.polygon, valid_area=mask)


def make_plan(recipe: Recipe, spec: RegionSpec) -> TilePlan:
    """The tile plan of one region."""
    tiling = recipe.tiling
    return TilePlan(plane=spec.plane.size, core=tiling.core.size, halo=tiling.halo, stride=tiling.stride)


def _lay_out(recipe: Recipe, spec: RegionSpec, valid_areas: Mapping[str, NDArray[np.bool_]], first: int) -> _Inspected:
    made = make_region(spec, recipe.geometry.frame.size, valid_areas)
    plan = make_plan(recipe, spec)
    valid = made.valid_on_plane()
    tiling, sigma = recipe.tiling, recipe.map_policy.sigma
    behind = None if valid is None else contributing(valid, stride=plan.stride, offset=tiling.offset, sigma=sigma)
    return _Inspected(made, plan, first, valid, made.valid_on_grid(plan.stride), behind)


def _peak(values: Map, valid: NDArray[np.bool_] | None) -> float:
    return float(values.max() if valid is None else values[valid].max())
