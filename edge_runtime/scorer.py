"""Owns the one inference path: frame -> planes -> tiles -> engine -> stitched map -> image score.

The trainer (with torch behind the engine Protocol), calibration and the service all score frames here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.recipe import ImageScoreRule, Recipe
from edge_runtime.deciding_place import deciding_place
from edge_runtime.engines import Engine
from edge_runtime.errors import BundleError, DataError
from edge_runtime.hurry import Countdown
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import Frame, Pixels
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.maps import ListedRegion, Map, list_regions, pooled
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.layout import Layout, lay_out
from edge_runtime.proof import EarlyStop, Progress
from edge_runtime.stages import StageClock, StageTimes


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Raw results of one region."""

    name: str
    image_score: float  # NaN where any cell of the map is not finite; where tiles are missing, the score so far
    grid: Map  # (h, w), stitched, at the feature grid
    smoothed: Map | Callable[[], Map]  # what `plane_map` is, or what makes it and keeps it
    missing: NDArray[np.bool_] | None = (
        None  # (h, w), cells that count and were not scored: the frame was settled before
    )

    @property
    def plane_map(self) -> Map:
        """(plane height, plane width): the grid upsampled and smoothed, computed when it is first asked for.

        NaN where it depends on a missing cell.
        """
        return self.smoothed() if callable(self.smoothed) else self.smoothed


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Raw results of one frame, regions in the recipe's order."""

    regions: tuple[RegionScore, ...]  # those that were begun
    clock: StageClock = field(default_factory=StageClock, compare=False)
    complete: bool = True  # every tile that counts was scored

    @property
    def times_ms(self) -> StageTimes:
        """So far: maps that are made later take their time later."""
        return self.clock.times()


class Scorer:
    """Recipe + engine: turns frames into anomaly maps and image scores. One frame at a time; not thread-safe."""

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        *,
        valid_areas: Mapping[str, NDArray[np.bool_]],
        backgrounds: Mapping[str, Background] | None = None,
    ) -> None:
        """Lay out regions and tile plans.

        Args:
            recipe: geometry, tiling and map policy.
            engine: runs the tile graph.
            valid_areas: masks (frame height, frame width) by the member name that regions give.
            backgrounds: by region; none where the recipe has none.

        Raises:
            BundleError: the recipe was made by a release that resizes or demosaics otherwise.
            ConfigError: a region does not fit the frame.
        """
        _check_versions(recipe)
        self.recipe = recipe
        self.engine = engine
        self.valid_areas = valid_areas
        self.backgrounds = backgrounds or {}
        self.layouts: dict[str, Layout] = {}
        first = 0
        for spec in recipe.geometry.regions:
            made = lay_out(recipe, spec, valid_areas, first=first, background=self.backgrounds.get(spec.name))
            self.layouts[spec.name] = made
            first += made.plan.count

    def score(self, frame: Frame, *, until: float | None = None, early: EarlyStop | None = None) -> FrameScore:
        """Score one frame.

        Args:
            frame: of the recipe's size and format.
            until: seconds on the clock of `time.monotonic` after which nobody wants the result; None for no limit.
            early: when to stop before every tile is scored; None to score them all.

        Raises:
            DataError: size or format of the frame are not the recipe's.
            EngineError: the engine failed.
            OutOfTimeError: the time ran out, or does before the next batch of tiles is done.
        """
        expected = self.recipe.geometry.frame.size
        if frame.size != expected:
            message = f"frame is {frame.size}, the bundle inspects {expected}: check the camera's mode and its crop"
            raise DataError(message)
        clock, countdown = StageClock(), Countdown(until)
        pixels = frame.as_format(self.recipe.geometry.pixel_format)
        regions: list[RegionScore] = []
        for name, layout in self.layouts.items():
            regions.append(self._score_region(layout, pixels, clock, countdown, early))
            if early is not None and early.settles(name, regions[-1].image_score):
                break
        complete = len(regions) == len(self.layouts) and regions[-1].missing is None
        return FrameScore(tuple(regions), clock, complete)

    def region_map(self, scored: RegionScore) -> Map:
        """(crop height, crop width): a region's map in frame pixels, NaN where not valid."""
        return self.crop_map(scored.name, scored.plane_map)

    def crop_map(self, name: str, plane_map: Map) -> Map:
        """(crop height, crop width): a plane's map in frame pixels, NaN where not valid."""
        return self.layouts[name].region.to_frame(plane_map)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions as laid out on the frame."""
        return tuple(layout.region for layout in self.layouts.values())

    def plane_map(self, name: str, grid: Map, clock: StageClock | None = None) -> Map:
        """(plane height, plane width): a region's stitched map, upsampled and smoothed."""
        return self.layouts[name].plane_map.whole(grid, clock or StageClock())

    def valid_grid(self, name: str) -> NDArray[np.bool_] | None:
        """(h, w): the cells of a region that its score may come from; None for all."""
        return self.layouts[name].valid_grid

    def score_gain(self, name: str) -> float:
        """By how much the image score of a region changes, at most, where its raw map changes by 1."""
        background = self.backgrounds.get(name)
        return 1.0 if background is None else 1.0 / float(background.spread.min())

    def origin(self, name: str) -> tuple[int, int]:
        """X and y of a region's crop in the frame."""
        crop = self.layouts[name].region.crop
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
        return self._peak(self.layouts[scored.name], scored.grid, StageClock())

    def valid_median(self, scored: RegionScore) -> float:
        """Median of a region's smoothed map on its valid area."""
        valid = self.layouts[scored.name].valid_plane
        return float(np.median(scored.plane_map if valid is None else scored.plane_map[valid]))

    def tile_peaks(self, scored: RegionScore) -> NDArray[np.float64]:
        """(tiles of the plan,): largest value of the grid that each tile owns; minus infinity for one that never runs."""
        layout = self.layouts[scored.name]
        peaks = np.full(layout.plan.count, -np.inf)
        for tile in layout.tiles:
            peaks[tile] = scored.grid[layout.plan.cells(tile)].max()
        return peaks

    def reaches(self, scored: RegionScore, threshold: float) -> bool:
        """Whether `valid_peak` is not below a threshold; only blocks that may say yes are computed."""
        layout, clock = self.layouts[scored.name], StageClock()
        blocks = self._candidates(layout, scored.grid, threshold)
        return any(not _block_peak(layout, scored.grid, block, clock) < threshold for block in blocks)

    def listed(self, scored: RegionScore, threshold: float, clock: StageClock) -> tuple[ListedRegion, ...]:
        """The areas of a region's map at or above a threshold, in frame pixels; the map is made where they may lie."""
        layout = self.layouts[scored.name]
        clock.start()
        blocks = self._candidates(layout, scored.grid, threshold)
        if not blocks:
            return ()
        x, y = self.origin(scored.name)
        if scored.missing is not None or layout.region.crop.size != layout.plan.plane:
            if not self.reaches(scored, threshold):
                return ()
            region_map = self.region_map(scored)
            clock.lap("upsample")
        else:
            top, left, bottom, right = layout.plane_map.box(blocks)
            region_map = layout.plane_map.some(scored.grid, blocks, (top, left, bottom, right), clock)
            if layout.valid_plane is not None:
                region_map[~layout.valid_plane[top:bottom, left:right]] = np.nan
            x, y = x + left, y + top
        found = list_regions(region_map, threshold, smallest_px=layout.smallest_px, name=scored.name, origin=(x, y))
        clock.lap("components")
        return found

    def deciding_place(self, scored: RegionScore) -> ListedRegion | None:
        """Where a region's image score comes from; None where the graph alone gives it."""
        return deciding_place(self.layouts[scored.name], self.recipe.map_policy, scored.grid, scored.missing)

    def _score_region(
        self, layout: Layout, pixels: Pixels, clock: StageClock, countdown: Countdown, early: EarlyStop | None
    ) -> RegionScore:
        name, plan = layout.region.name, layout.plan
        plane = layout.region.cut(pixels)
        clock.lap("scale")
        grid = np.full((plan.grid.height, plan.grid.width), np.nan, dtype=np.float32)  # what no tile scores stays NaN
        progress = None if early is None else Progress(layout, self.recipe.map_policy, early)
        tiles = layout.tiles if progress is None else progress.order
        graph_score = float("nan")
        for start in range(0, len(tiles), self.recipe.tiling.batch):
            batch = tiles[start : start + self.recipe.tiling.batch]
            countdown.before_batch(len(tiles) - start)
            graph_score = self._score_tiles(layout, plane, batch, grid, clock)
            countdown.after_batch(len(batch))
            if progress is not None and progress.settled(grid, batch, clock):
                return self._settled(layout, grid, progress, clock)
        if layout.skipped is not None:
            grid[layout.skipped] = _filling(grid)
        smoothed = cache(lambda: self._plane_map(layout, grid, clock))  # a good frame's is asked for by nobody
        image_score = self._image_score(layout, grid, graph_score, clock)
        clock.lap("score")
        return RegionScore(name, image_score, grid, smoothed)

    def _score_tiles(
        self, layout: Layout, plane: Pixels, batch: tuple[int, ...], grid: Map, clock: StageClock
    ) -> float:
        """Score some tiles, at most as many as the graph takes, into the grid; the graph's own score of the first."""
        for slot, tile in enumerate(batch):  # unused slots keep old tiles: a score is independent of its batch
            layout.plan.cut(plane, tile, self.engine.tiles[slot])
            self.engine.tile_index[slot] = layout.first + tile
        clock.lap("cut")
        output = self.engine.run()
        clock.lap("infer")
        for slot, tile in enumerate(batch):
            layout.plan.paste(output.map[slot], tile, grid)
        clock.lap("stitch")
        # where the graph's score counts, there is one tile: the schema sees to it
        return float("nan") if output.image_score is None else float(output.image_score[0])

    def _settled(self, layout: Layout, grid: Map, progress: Progress, clock: StageClock) -> RegionScore:
        """What there is of a region when its tiles so far settle the frame's verdict."""
        missing = progress.missing
        filled = np.where(np.isnan(grid), _filling(grid), grid)
        smoothed = cache(lambda: self._plane_map(layout, filled, clock, missing))
        clock.lap("score")
        return RegionScore(layout.region.name, progress.score, filled, smoothed, missing)

    def _plane_map(self, layout: Layout, grid: Map, clock: StageClock, missing: NDArray[np.bool_] | None = None) -> Map:
        clock.start()
        found = layout.plane_map.whole(grid, clock)
        if missing is not None:
            for block in np.flatnonzero(layout.plane_map.touched(missing)):
                found[layout.plane_map.place(int(block))][layout.plane_map.unknown(missing, int(block))] = np.nan
            clock.lap("upsample")
        return found

    def _image_score(self, layout: Layout, grid: Map, graph_score: float, clock: StageClock) -> float:
        if not np.isfinite(grid).all():
            return float("nan")
        policy, judged = self.recipe.map_policy, layout.judged(grid)
        match policy.image_score:
            case ImageScoreRule.MAX_RAW:
                return _largest(judged, layout.valid_grid)
            case ImageScoreRule.POOLED_MAX:
                return _largest(pooled(judged, policy.pooled_cells or 1, layout.valid_grid), layout.valid_grid)
            case ImageScoreRule.MAX_SMOOTHED:
                return self._peak(layout, judged, clock)
            case ImageScoreRule.GRAPH:
                return graph_score

    def _peak(self, layout: Layout, grid: Map, clock: StageClock) -> float:
        """Largest valid value of the smoothed map: blocks by what they may hold, until the rest cannot hold more."""
        bounds = layout.plane_map.bounds(grid, layout.contributing)
        clock.lap("score")
        peak = -np.inf
        for block in np.argsort(-bounds, kind="stable"):
            if bounds[block] <= peak:
                break
            peak = float(np.maximum(peak, _block_peak(layout, grid, int(block), clock)))  # keeps what is no number
        return peak

    def _candidates(self, layout: Layout, grid: Map, threshold: float) -> list[int]:
        """Blocks on which a valid pixel may reach a threshold."""
        bounds = layout.plane_map.bounds(grid, layout.contributing)
        return [int(block) for block in np.flatnonzero(~(bounds < threshold) & (bounds > -np.inf))]


def _check_versions(recipe: Recipe) -> None:
    built, geometry = {"resize": RESIZE_VERSION, "demosaic": DEMOSAIC_VERSION}, recipe.geometry
    for name, found in (("resize", geometry.resize_version), ("demosaic", geometry.demosaic_version)):
        if found != built[name]:
            message = (
                f"the bundle was built with {name} version {found}, "
                f"this release has {built[name]}: scores would differ, rebuild the bundle"
            )
            raise BundleError(message)


def _block_peak(layout: Layout, grid: Map, block: int, clock: StageClock) -> float:
    """Largest valid value of a block of the smoothed map; minus infinity where no pixel is valid."""
    found = layout.plane_map.block(grid, block, clock)
    if layout.valid_plane is not None:
        found = found[layout.valid_plane[layout.plane_map.place(block)]]
    return float(found.max()) if found.size else -np.inf


def _largest(values: Map, valid: NDArray[np.bool_] | None) -> float:
    return float(values.max() if valid is None else values[valid].max())


def _filling(grid: Map) -> float:
    """What cells get that nothing depends on: a number that widens no range, the smallest that a tile gave."""
    finite = grid[np.isfinite(grid)]
    return float(finite.min()) if finite.size else 0.0
