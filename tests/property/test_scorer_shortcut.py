"""Whether a map reaches a threshold is told from the grid where that is enough, and never otherwise than from the map."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.toys import BrightnessEngine, make_inspector, make_recipe, make_region, make_thresholds

from edge_runtime.bundle.recipe import Recipe
from edge_runtime.decision import Verdict
from edge_runtime.engines import GraphOutput
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.imaging.maps import contributing, list_regions, peak_bound, smooth, upsample
from edge_runtime.inspector import Inspection, Inspector, Timings
from edge_runtime.scorer import FrameScore, Scorer

many = settings(max_examples=150, deadline=None)
sides = st.integers(1, 70)
sigmas = st.sampled_from([0.0, 0.3, 1.0, 4.0, 15.0, 100.0])
seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["noise", "constant", "negative", "far from zero", "one peak", "huge", "overflowing"])


def drawn(kind: str, seed: int, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width))
    grids = {
        "noise": noise,
        "constant": np.full((height, width), rng.normal()),
        "negative": -np.abs(noise) - 1,
        "far from zero": 1e6 + noise,
        "one peak": np.where(np.arange(height * width).reshape(height, width) == seed % (height * width), 9.0, 0.1),
        "huge": noise * 1e33,
        "overflowing": np.clip(noise * 3e38, -3.4e38, 3.4e38),
    }
    return grids[kind].astype(np.float32)


def drawn_mask(seed: int, height: int, width: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.choice([0.001, 0.2, 0.9])
    y, x = rng.integers(height), rng.integers(width)
    mask[y : y + 1 + seed % 20, x : x + 1 + seed % 13] = True
    return mask


class DrawnEngine(BrightnessEngine):
    """Gives one map for the one tile, whatever it sees."""

    def __init__(self, recipe: Recipe, grid: NDArray[np.float32]) -> None:
        """Make buffers and keep the map."""
        super().__init__(recipe)
        self.grid = grid

    def run(self) -> GraphOutput:
        """The map, for every slot."""
        return GraphOutput(np.repeat(self.grid[np.newaxis], self.shape.batch, axis=0), None)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A frame with one region, a drawn map of it, and perhaps a drawn mask."""

    size: Size
    plane_width: int
    kind: str
    seed: int
    sigma: float
    masked: bool

    def inspector(self) -> Inspector:
        """Its thresholds are to be set."""
        size, plane = self.size, Size(self.plane_width, self.size.height)
        area = "area" if self.masked else None
        core = Size(-(-plane.width // 8) * 8, -(-plane.height // 8) * 8)
        region = make_region("all", (0, 0, *size), plane=plane, valid_area=area)
        recipe = make_recipe(frame=size, core=core, sigma=self.sigma, regions=(region,), batch=1)
        engine = DrawnEngine(recipe, drawn(self.kind, self.seed, core.height // 8, core.width // 8))
        mask = drawn_mask(self.seed + 1, size.height, size.width)
        mask[self.seed % size.height, (np.arange(plane.width) * 2 + 1) * size.width // (2 * plane.width)] = True
        return make_inspector(recipe, engine=engine, valid_areas={"area": mask} if self.masked else {})


cases = st.builds(
    Case,
    size=st.builds(Size, sides, sides),
    plane_width=sides,
    kind=kinds,
    seed=seeds,
    sigma=sigmas,
    masked=st.booleans(),
)


def score(scorer: Scorer) -> FrameScore:
    size = scorer.recipe.geometry.frame.size
    return scorer.score(Frame(np.zeros((size.height, size.width), np.uint8), PixelFormat.MONO8))


def near(*values: float) -> list[float]:
    """Values and their neighbours in float32 and in float64, of those that are finite."""
    around = [
        step
        for value in values
        for dtype in (np.float32, np.float64)
        for step in (value, *(float(np.nextafter(dtype(value), dtype(end))) for end in (-np.inf, np.inf)))
    ]
    return [value for value in around if np.isfinite(value)]


@many
@given(cases)
def test_a_threshold_is_reached_exactly_where_the_largest_valid_pixel_of_the_map_is_not_below_it(case: Case) -> None:
    scorer = case.inspector().scorer
    with np.errstate(all="ignore"):
        part = score(scorer).regions[0]
        peak = scorer.valid_peak(part)
        cells = part.grid
        for threshold in (1e300, *near(peak, float(cells.max()), float(cells.mean(dtype=np.float64)))):
            assert scorer.reaches(part, threshold) != (peak < threshold), (peak, threshold)


def listed_in_full(inspector: Inspector, found: Inspection) -> tuple[Any, ...]:
    """What is listed when every map is computed and looked at."""
    assert found.scored is not None, found.detail
    part = found.scored.regions[0]
    threshold = inspector.artefact.thresholds["all"].pixel
    if threshold is None:
        return ()
    if (
        inspector.scorer.valid_peak(part) < threshold
    ):  # where the score comes from, if it rejects the frame all the same
        place = None if found.verdict is Verdict.ACCEPT else inspector.scorer.deciding_place(part)
        return () if place is None else (place,)
    region_map = inspector.scorer.region_map(part)
    return list_regions(region_map, threshold, smallest_px=1, name="all", origin=(0, 0))


@many
@given(cases, st.floats(-0.2, 1.2))
def test_an_inspection_is_the_same_as_with_every_map_computed(case: Case, level: float) -> None:
    inspector = case.inspector()
    frame = np.zeros((case.size.height, case.size.width), np.uint8)
    with np.errstate(all="ignore"):
        grid = score(inspector.scorer).regions[0].grid.astype(np.float64)
        pixel = float(grid.min() + level * (grid.max() - grid.min()))
        artefact = inspector.artefact
        thresholds = {"all": make_thresholds(reject=float(grid.max()), pixel=float(np.clip(pixel, -1e38, 1e38)))}
        inspector = Inspector(inspector.scorer, artefact.model_copy(update={"thresholds": thresholds}), "d")
        found = inspector.inspect(frame)
        assert found.regions == listed_in_full(inspector, found)
        again = inspector.inspect(frame)
        assert replace(again, timings_ms=Timings(), scored=None) == replace(found, timings_ms=Timings(), scored=None)


@many
@given(sides, sides, seeds, sigmas, st.sampled_from([1, 2, 8]), st.floats(-12, 20))
def test_cells_that_do_not_contribute_change_no_valid_pixel(
    height: int, width: int, seed: int, sigma: float, stride: int, offset: float
) -> None:
    valid = drawn_mask(seed, height, width)
    if not valid.any():
        return
    cells = contributing(valid, stride=stride, offset=offset, sigma=sigma)
    grid = drawn("noise", seed, -(-height // stride), -(-width // stride))
    changed = np.where(cells, grid, np.float32(1e6))
    assert cells.shape == grid.shape
    assert cells.any()
    one, other = (
        smooth(upsample(each, stride=stride, offset=offset, plane=Size(width, height)), sigma)[valid]
        for each in (grid, changed)
    )
    assert np.array_equal(one, other)
    assert one.max() <= peak_bound(changed, cells, sigma=sigma)


@many
@given(sides, sides, kinds.filter(lambda kind: kind not in {"huge", "overflowing"}), seeds, sigmas)
def test_the_bound_is_close_so_that_good_frames_are_told_from_it(
    height: int, width: int, kind: str, seed: int, sigma: float
) -> None:
    grid = drawn(kind, seed, height, width)
    bound = peak_bound(grid, None, sigma=sigma)
    assert 0 <= bound - grid.max() <= 3e-4 * np.abs(grid).max()
