"""Which tiles are run, and when a frame needs no more of them, changes no verdict, no score and no map."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.toys import BrightnessEngine, make_inspector, make_recipe, make_region, make_thresholds, scramble

from edge_runtime.bundle.recipe import ImageScoreRule, Recipe
from edge_runtime.decision import Verdict
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.inspector import Inspector, Timings
from edge_runtime.layout import tile_plan
from edge_runtime.scorer import Scorer

many = settings(max_examples=120, deadline=None)
RULES = (ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A frame of many small tiles with a drawn mask and a drawn picture."""

    size: Size
    plane: Size | None
    core: Size
    halo: int
    batch: int
    sigma: float
    offset: float
    rule: ImageScoreRule
    masked: bool
    against: bool  # a background
    seed: int

    def recipe(self) -> Recipe:
        """Of the case."""
        area = "area" if self.masked else None
        regions = (make_region("all", (0, 0, *self.size), plane=self.plane, valid_area=area),)
        made = make_recipe(
            frame=self.size,
            core=self.core,
            halo=self.halo,
            batch=self.batch,
            sigma=self.sigma,
            rule=self.rule,
            regions=regions,
        )
        return made.model_copy(update={"tiling": made.tiling.model_copy(update={"offset": self.offset})})

    def areas(self) -> dict[str, NDArray[np.bool_]]:
        """The mask: one box, which shows on the plane whatever its size."""
        area = np.zeros((self.size.height, self.size.width), np.bool_)
        draw = np.random.default_rng(self.seed)
        y, x = draw.integers(self.size.height), draw.integers(self.size.width)
        area[y : y + 20, max(0, x - 15) : x + 15] = True
        width, height = self.plane or self.size
        area[self.size.height // (2 * height), self.size.width // (2 * width)] = (
            True  # what the plane's first pixel shows
        )
        return {"area": area} if self.masked else {}

    def frame(self) -> Frame:
        """Dark noise with a few bright spots."""
        pixels = scramble(self.size.height, self.size.width, 1)[:, :, 0] // 4
        draw = np.random.default_rng(self.seed + 1)
        for _ in range(self.seed % 4):
            y, x = draw.integers(self.size.height), draw.integers(self.size.width)
            pixels[y : y + draw.integers(1, 30), x : x + draw.integers(1, 30)] = draw.integers(60, 255)
        return Frame(pixels, PixelFormat.MONO8)

    def scorer(self) -> Scorer:
        """Over an engine that sees its halo."""
        recipe = self.recipe()
        engine = BrightnessEngine(recipe, measure="mean", reach=self.halo)
        return Scorer(recipe, engine, valid_areas=self.areas(), backgrounds=self.backgrounds())

    def backgrounds(self) -> dict[str, Background]:
        """Each place has a mean and a spread of its own."""
        grid = tile_plan(self.recipe(), self.recipe().geometry.regions[0]).grid
        draw = np.random.default_rng(self.seed + 2)
        mean, spread = (
            draw.uniform(low, high, (grid.height, grid.width)).astype(np.float32) for low, high in ((0, 60), (0.25, 4))
        )
        return {"all": Background(mean, spread)} if self.against else {}

    def inspector(self, reject: float, *, early: bool, order: tuple[int, ...] = ()) -> Inspector:
        """With a threshold."""
        recipe = self.recipe()
        engine = BrightnessEngine(recipe, measure="mean", reach=self.halo)
        thresholds = make_thresholds(reject=reject, pixel=reject).model_copy(update={"tile_order": order})
        made = make_inspector(
            recipe, engine=engine, thresholds=thresholds, valid_areas=self.areas(), backgrounds=self.backgrounds()
        )
        return Inspector(made.scorer, made.artefact, "d", early_reject=early)


cells = st.integers(1, 4).map(lambda n: 8 * n)
sides = st.integers(1, 170)
cases = st.builds(
    Case,
    size=st.builds(Size, sides, sides),
    plane=st.none() | st.builds(Size, st.integers(1, 120), st.integers(1, 120)),
    core=st.builds(Size, cells, cells),
    halo=st.sampled_from([0, 8, 16]),
    batch=st.integers(1, 4),
    sigma=st.sampled_from([0.0, 1.0, 4.0]),
    offset=st.sampled_from([3.5, 0.0, -12.0, 20.0]),
    rule=st.sampled_from(RULES),
    masked=st.booleans(),
    against=st.booleans(),
    seed=st.integers(0, 10_000),
)


def every_tile(scorer: Scorer) -> Scorer:
    """The same with no tile left out."""
    for name, layout in scorer.layouts.items():
        scorer.layouts[name] = replace(layout, tiles=tuple(range(layout.plan.count)), skipped=None)
    return scorer


@many
@given(cases.filter(lambda case: case.masked), st.floats(0, 255))
def test_leaving_tiles_out_changes_no_score_no_map_and_no_listed_region(case: Case, threshold: float) -> None:
    one, other = case.scorer(), every_tile(case.scorer())
    few, all_ = one.score(case.frame()), other.score(case.frame())
    mine, whole = few.regions[0], all_.regions[0]
    assert few.complete
    assert mine.image_score == whole.image_score
    assert np.array_equal(one.frame_map(few), other.frame_map(all_), equal_nan=True)
    assert one.valid_peak(mine) == other.valid_peak(whole)
    assert one.valid_median(mine) == other.valid_median(whole)
    assert one.listed(mine, threshold, few.clock) == other.listed(whole, threshold, all_.clock)
    assert mine.grid.min() >= whole.grid.min()  # what fills the cells left out widens no range
    assert mine.grid.max() <= whole.grid.max()


@many
@given(cases)
def test_the_smoothed_peak_is_the_largest_valid_pixel_of_the_whole_map(case: Case) -> None:
    scorer = case.scorer()
    part = scorer.score(case.frame()).regions[0]
    valid = scorer.regions[0].valid_on_plane()
    assert scorer.valid_peak(part) == (part.plane_map.max() if valid is None else part.plane_map[valid].max())


def shuffled(count: int, seed: int) -> tuple[int, ...]:
    return tuple(int(tile) for tile in np.random.default_rng(seed).permutation(count))


@many
@given(case=cases, share=st.sampled_from([0.3, 0.9, 1.0, 1.0001, 1.3]), told=st.booleans())
def test_an_early_verdict_is_the_full_one_and_only_a_reject_is_early(case: Case, share: float, *, told: bool) -> None:
    full = case.inspector(1.0, early=False)
    score = full.scorer.score(case.frame()).regions[0].image_score
    count = full.scorer.layouts["all"].plan.count
    order = shuffled(count, case.seed) if told else ()
    late, early = (case.inspector(score * share, early=way, order=order).inspect(case.frame()) for way in (False, True))
    assert late.complete
    assert early.verdict is late.verdict
    assert early.verdict is (Verdict.REJECT if score >= score * share else Verdict.ACCEPT)
    if early.complete:
        assert bare(early) == bare(late)
    else:
        assert early.verdict is Verdict.REJECT
        assert score * share <= early.score <= score


def bare(inspection: Any) -> Any:  # noqa: ANN401
    """Without times and maps."""
    return replace(inspection, timings_ms=Timings(), scored=None)


@many
@given(cases, st.sampled_from([0.3, 0.8]))
def test_the_map_of_a_frame_that_was_settled_early_is_right_where_it_is_known(case: Case, share: float) -> None:
    score = case.scorer().score(case.frame()).regions[0].image_score
    late, early = (case.inspector(score * share, early=way) for way in (False, True))
    full, found = (inspector.inspect(case.frame()) for inspector in (late, early))
    whole, known = late.frame_map(full), early.frame_map(found)
    here = np.isfinite(known)
    if case.plane is None:
        assert np.array_equal(known[here], whole[here])
    assert not (here & np.isnan(whole)).any()


def test_the_highest_cell_need_not_lie_where_the_smoothed_map_is_highest() -> None:
    recipe = make_recipe(frame=Size(320, 64), core=Size(320, 64), sigma=4.0, rule=ImageScoreRule.MAX_SMOOTHED)
    pixels = np.zeros((64, 320), np.uint8)
    pixels[24:32, 24:32] = 200  # one cell
    pixels[16:56, 256:312] = 190  # a field, two blocks to the right
    scorer = Scorer(recipe, BrightnessEngine(recipe), valid_areas={})
    part = scorer.score(Frame(pixels, PixelFormat.MONO8)).regions[0]
    assert part.image_score == part.plane_map.max() > 189


def test_a_window_that_is_scored_in_part_proves_nothing() -> None:
    recipe = make_recipe(frame=Size(64, 64), core=Size(8, 8), batch=1, rule=ImageScoreRule.POOLED_MAX)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[24:32, 24:32] = 200  # the tile that is run first: 200 alone, a ninth of it among its neighbours
    order = (27, *(tile for tile in range(64) if tile != 27))
    thresholds = make_thresholds(reject=100.0).model_copy(update={"tile_order": order})
    made = make_inspector(recipe, thresholds=thresholds)
    inspection = Inspector(made.scorer, made.artefact, "d", early_reject=True).inspect(pixels)
    assert (inspection.verdict, inspection.complete) == (Verdict.ACCEPT, True)
