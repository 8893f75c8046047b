"""The scorer: tiles stitched without a seam, batches that do not matter, areas that do not count."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from support.toys import (
    BrightnessEngine,
    FailingEngine,
    PositionEngine,
    SickEngine,
    make_recipe,
    make_region,
    scramble,
)

from edge_runtime.bundle.recipe import ImageScoreRule, Recipe
from edge_runtime.engines import Engine
from edge_runtime.errors import BundleError, ConfigError, DataError, EngineError
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.scorer import FrameScore, Scorer

DARK = 40


def scorer(recipe: Recipe, engine: Engine | None = None, **valid_areas: NDArray[np.bool_]) -> Scorer:
    return Scorer(recipe, engine or BrightnessEngine(recipe), valid_areas=valid_areas)


def mono(pixels: NDArray[np.uint8]) -> Frame:
    return Frame(pixels, PixelFormat.MONO8)


def spotted(size: Size, *spots: tuple[int, int], value: int = 250) -> Frame:
    """A dark frame with bright pixels at (x, y)."""
    pixels = np.full((size.height, size.width), DARK, np.uint8)
    for x, y in spots:
        pixels[y, x] = value
    return mono(pixels)


def local_map(frame: Frame, core: Size, halo: int, *, reach: int) -> NDArray[np.float32]:
    """The stitched map of an engine that sees `reach` pixels beyond each cell."""
    recipe = make_recipe(frame=frame.size, core=core, halo=halo, stride=8)
    return scorer(recipe, BrightnessEngine(recipe, measure="mean", reach=reach)).score(frame).regions[0].grid


WIDE = mono(scramble(150, 200, 1)[:, :, 0])
WHOLE = Size(200, 152)


@pytest.mark.parametrize("core", [Size(16, 16), Size(64, 32), Size(72, 152), Size(8, 8)])
def test_tiles_with_an_exact_halo_give_the_map_of_the_whole_frame(core: Size) -> None:
    assert np.array_equal(local_map(WIDE, core, 16, reach=16), local_map(WIDE, WHOLE, 16, reach=16))


def test_a_halo_that_is_too_small_shows_as_a_seam_and_only_at_the_tiles_borders() -> None:
    tiled, whole = local_map(WIDE, Size(64, 152), 8, reach=16), local_map(WIDE, WHOLE, 16, reach=16)
    columns = np.flatnonzero((tiled != whole)[2:-2].any(axis=0))
    assert set(columns) - {0, 24} == {7, 8, 15, 16, 23}  # either side of every border; the frame's own are 0 and 24


@pytest.mark.parametrize("shift", [(8, 0), (0, 8), (8, 8), (16, 24)])
def test_a_plan_shifted_by_the_stride_gives_the_same_map_shifted_by_cells(shift: tuple[int, int]) -> None:
    x, y = shift
    shifted = mono(np.ascontiguousarray(WIDE.pixels[y:, x:]))
    here = local_map(WIDE, Size(48, 32), 16, reach=16)
    there = local_map(shifted, Size(48, 32), 16, reach=16)
    inner = (slice(2, -3), slice(2, -3))  # the frame's border moves with the shift, and 16 px with it
    assert np.array_equal(here[y // 8 :, x // 8 :][inner], there[inner])


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 15, 16])
def test_a_score_and_a_map_do_not_depend_on_the_batch(batch: int) -> None:
    frame = mono(scramble(90, 150, 1)[:, :, 0] // 2)
    core = Size(32, 32)  # five columns of three tiles

    def scored(batch: int) -> FrameScore:
        recipe = make_recipe(frame=Size(150, 90), core=core, halo=8, batch=batch, sigma=3.0)
        return scorer(recipe, BrightnessEngine(recipe, measure="mean", reach=8)).score(frame)

    one, other = scored(1).regions[0], scored(batch).regions[0]
    assert one.image_score == other.image_score
    assert np.array_equal(one.grid, other.grid)
    assert np.array_equal(one.plane_map, other.plane_map)


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.GRAPH])
def test_slots_that_no_tile_fills_decide_nothing(rule: ImageScoreRule) -> None:
    recipe = make_recipe(core=Size(64, 48), batch=4, rule=rule)  # one tile; three slots stay white
    engine = BrightnessEngine(recipe, image_score=True)
    assert scorer(recipe, engine).score(spotted(Size(64, 48))).regions[0].image_score == DARK


def test_a_sick_map_of_a_slot_that_no_tile_fills_is_not_looked_at() -> None:
    recipe = make_recipe(core=Size(64, 48), batch=4)
    assert scorer(recipe, SickEngine(recipe)).score(spotted(Size(64, 48))).regions[0].image_score == DARK


def test_a_score_does_not_depend_on_the_frame_before() -> None:
    recipe = make_recipe(batch=4, rule=ImageScoreRule.MAX_SMOOTHED, sigma=2.0)
    used = scorer(recipe)
    fresh = used.score(spotted(Size(64, 48), (5, 5)))
    used.score(spotted(Size(64, 48), (60, 40), value=254))
    again = used.score(spotted(Size(64, 48), (5, 5)))
    assert again.regions[0].image_score == fresh.regions[0].image_score
    assert np.array_equal(again.regions[0].plane_map, fresh.regions[0].plane_map)


def test_a_position_bound_graph_is_told_which_tile_it_sees() -> None:
    recipe = make_recipe(frame=Size(64, 48), core=Size(32, 16), batch=4, position_bound=True)
    grid = scorer(recipe, PositionEngine(recipe)).score(spotted(Size(64, 48))).regions[0].grid
    assert np.array_equal(grid, np.repeat(np.repeat(np.arange(6).reshape(3, 2), 2, axis=0), 4, axis=1))


def test_tiles_of_several_regions_are_counted_on() -> None:
    regions = (make_region("left", (0, 0, 32, 48)), make_region("right", (32, 0, 64, 48)))
    recipe = make_recipe(frame=Size(64, 48), core=Size(32, 16), batch=2, position_bound=True, regions=regions)
    left, right = scorer(recipe, PositionEngine(recipe)).score(spotted(Size(64, 48))).regions
    assert (left.grid[:, 0].tolist(), right.grid[:, 0].tolist()) == ([0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5])


@pytest.mark.parametrize("size", [Size(20, 12), Size(1, 1), Size(9, 33)])
def test_a_frame_smaller_than_a_tile_is_scored_in_full(size: Size) -> None:
    recipe = make_recipe(frame=size, core=Size(64, 64), halo=16)
    corner = (size.width - 1, size.height - 1)
    scored = scorer(recipe).score(spotted(size, corner)).regions[0]
    assert scored.image_score == 250
    assert scored.grid.shape == (-(-size.height // 8), -(-size.width // 8))
    assert scored.plane_map.shape == (size.height, size.width)


@pytest.mark.parametrize("size", [Size(63, 48), Size(64, 47), Size(48, 64), Size(128, 96)])
def test_a_frame_of_another_size_is_refused(size: Size) -> None:
    with pytest.raises(DataError, match=f"frame is {size}, the bundle inspects 64x48"):
        scorer(make_recipe()).score(spotted(size))


def test_a_frame_that_would_lose_colour_or_depth_is_refused() -> None:
    for given in (PixelFormat.RGB8, PixelFormat.BGR8, PixelFormat.MONO16):
        frame = Frame(scramble(48, 64, given.channels, given.dtype.type), given)
        with pytest.raises(DataError, match=f"frame is {given.canonical}, the bundle takes mono8"):
            scorer(make_recipe()).score(frame)


def test_sixteen_bit_frames_reach_the_engine_at_their_full_depth() -> None:
    recipe = make_recipe(pixel_format=PixelFormat.RGB16)
    pixels = np.full((48, 64), 300, np.uint16)
    pixels[30, 40] = 40_001
    assert scorer(recipe).score(Frame(pixels, PixelFormat.MONO16)).regions[0].image_score == 40_001


def test_a_failing_engine_is_reported_as_such() -> None:
    recipe = make_recipe(batch=4)  # six tiles: two runs
    with pytest.raises(EngineError, match="run 2"):
        scorer(recipe, FailingEngine(recipe, failing=(2,))).score(spotted(Size(64, 48)))


@pytest.mark.parametrize("rule", list(ImageScoreRule))
@pytest.mark.parametrize("fault", [float("nan"), float("inf"), float("-inf")])
def test_a_single_sick_cell_makes_the_score_nan_by_every_rule(rule: ImageScoreRule, fault: float) -> None:
    recipe = make_recipe(core=Size(64, 48), rule=rule)
    engine = SickEngine(recipe, fault=fault)
    scored = scorer(recipe, engine).score(spotted(Size(64, 48), (33, 20), value=255)).regions[0]
    assert np.isfinite(scored.grid).sum() == scored.grid.size - 1
    assert np.isnan(scored.image_score)


@pytest.mark.parametrize(("spot", "seen"), [((20, 10), True), ((60, 40), False)])
def test_a_sick_cell_outside_the_valid_area_makes_the_score_nan_where_its_tile_counts(
    spot: tuple[int, int], *, seen: bool
) -> None:
    recipe = make_recipe(regions=(make_region("cap", (0, 0, 64, 48), valid_area="area"),))
    area = np.zeros((48, 64), np.bool_)
    area[:8, :8] = True
    scored = scorer(recipe, SickEngine(recipe), area=area).score(spotted(Size(64, 48), spot, value=255))
    assert np.isnan(scored.regions[0].image_score) == seen  # a tile that no valid pixel depends on is not run


def test_a_graph_rule_without_a_score_from_the_graph_is_never_a_number() -> None:
    recipe = make_recipe(core=Size(64, 48), rule=ImageScoreRule.GRAPH)
    assert not np.isfinite(scorer(recipe).score(spotted(Size(64, 48))).regions[0].image_score)


def test_the_graphs_score_is_that_of_each_region() -> None:
    regions = (make_region("left", (0, 0, 32, 48)), make_region("right", (32, 0, 64, 48)))
    recipe = make_recipe(core=Size(32, 48), batch=4, rule=ImageScoreRule.GRAPH, regions=regions)
    engine = BrightnessEngine(recipe, image_score=True)
    for x, wanted in ((31, [250, DARK]), (32, [DARK, 250])):
        scored = scorer(recipe, engine).score(spotted(Size(64, 48), (x, 20)))
        assert [region.image_score for region in scored.regions] == wanted


@pytest.mark.parametrize("core", [Size(56, 48), Size(64, 40), Size(32, 16)])
def test_a_recipe_whose_score_is_the_graphs_has_one_tile_in_each_region(core: Size) -> None:
    with pytest.raises(ValidationError, match=f"region all's plane 64x48 takes several tiles of {core}"):
        make_recipe(core=core, rule=ImageScoreRule.GRAPH)


def test_a_smoothed_maximum_is_that_of_the_smoothed_map_and_a_raw_one_that_of_the_grid() -> None:
    frame = spotted(Size(64, 48), (20, 20))
    raw, pooled, smoothed = (
        scorer(make_recipe(sigma=4.0, rule=rule)).score(frame).regions[0]
        for rule in (ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED)
    )
    assert raw.image_score == raw.grid.max() == 250
    assert DARK < pooled.image_score < 100  # one bright cell among nine
    assert smoothed.image_score == smoothed.plane_map.max()
    assert DARK < smoothed.image_score < 200


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED])
def test_a_bright_spot_outside_the_valid_area_is_kept_out_of_the_score(rule: ImageScoreRule) -> None:
    area = np.zeros((48, 64), np.bool_)
    area[:, :24] = True
    recipe = make_recipe(regions=(make_region("cap", (0, 0, 64, 48), valid_area="area"),), rule=rule)
    masked = scorer(recipe, area=area)
    assert masked.score(spotted(Size(64, 48), (50, 20))).regions[0].image_score == DARK
    assert masked.score(spotted(Size(64, 48), (20, 20))).regions[0].image_score > DARK + 20
    scored = masked.score(spotted(Size(64, 48), (50, 20)))
    assert masked.valid_peak(scored.regions[0]) == DARK
    assert np.nanmax(masked.frame_map(scored)) == DARK


def test_a_region_sees_only_its_crop() -> None:
    recipe = make_recipe(regions=(make_region("left", (3, 5, 30, 40)), make_region("right", (30, 5, 64, 40))))
    scored = scorer(recipe).score(spotted(Size(64, 48), (30, 5), (29, 40)))
    assert [(part.name, part.image_score) for part in scored.regions] == [("left", DARK), ("right", 250)]


def test_the_frame_map_is_nan_outside_the_regions_and_the_larger_value_where_they_overlap() -> None:
    recipe = make_recipe(
        core=Size(64, 48), regions=(make_region("low", (0, 0, 40, 24)), make_region("high", (24, 0, 48, 24)))
    )
    pixels = np.full((48, 64), 10, np.uint8)
    pixels[:24, 40:48] = 200  # only `high` sees it, and shows it left of x = 40 through upsampling
    made = scorer(recipe)
    scored = made.score(mono(pixels))
    frame_map = made.frame_map(scored)
    inside = np.zeros((48, 64), np.bool_)
    inside[:24, :48] = True
    assert frame_map.shape == (48, 64)
    assert frame_map.dtype == np.float32
    assert np.array_equal(np.isfinite(frame_map), inside)
    low, high = (made.region_map(part) for part in scored.regions)
    assert np.array_equal(frame_map[:24, :24], low[:, :24])
    assert np.array_equal(frame_map[:24, 24:40], np.maximum(low[:, 24:], high[:, :16]))
    assert frame_map[10, 39] > low[10, 39]
    assert made.origin("high") == (24, 0)


def test_a_scaled_region_shows_a_spot_where_it_is_on_the_frame() -> None:
    recipe = make_recipe(
        frame=Size(160, 120), regions=(make_region("cap", (20, 10, 148, 106), plane=Size(64, 48)),), core=Size(32, 16)
    )
    pixels = np.full((120, 160), DARK, np.uint8)
    pixels[50:66, 100:116] = 250
    made = scorer(recipe)
    scored = made.score(mono(pixels))
    frame_map = made.frame_map(scored)
    assert scored.regions[0].plane_map.shape == (48, 64)
    assert frame_map[58, 108] > 200
    assert frame_map[20, 30] == DARK
    rows, columns = np.nonzero(np.nan_to_num(frame_map) > 150)
    assert abs(rows.mean() - 57.5) < 4
    assert abs(columns.mean() - 107.5) < 4


def test_stage_times_are_measured_and_not_negative() -> None:
    times = scorer(make_recipe()).score(spotted(Size(64, 48))).times_ms
    assert min(times.preprocess, times.infer, times.postprocess) > 0


def test_a_recipe_of_another_resize_version_is_refused() -> None:
    with pytest.raises(BundleError, match=f"resize version {RESIZE_VERSION + 1}, this release has {RESIZE_VERSION}"):
        scorer(make_recipe(resize_version=RESIZE_VERSION + 1))


def test_regions_that_do_not_fit_the_frame_and_cores_off_the_grid_are_refused_before_any_frame() -> None:
    whole = (0, 0, 64, 48)
    outside = make_recipe(regions=(make_region("cap", whole, polygon=((0, 0), (64, 0), (5, 5))),))
    with pytest.raises(ConfigError, match="polygon"):
        scorer(outside)
    masked = make_recipe(regions=(make_region("cap", whole, valid_area="area"),))
    with pytest.raises(ConfigError, match="mask is 63x48"):
        scorer(masked, area=np.ones((48, 63), np.bool_))
    crooked = make_recipe(core=Size(30, 16))
    with pytest.raises(ConfigError, match="nearest core 32x16"):
        scorer(crooked)


def test_a_recipe_of_another_demosaic_version_is_refused() -> None:
    with pytest.raises(BundleError, match=f"demosaic version {DEMOSAIC_VERSION + 1}, this release has"):
        scorer(make_recipe(demosaic_version=DEMOSAIC_VERSION + 1))


@pytest.mark.parametrize("halo", [0, 16])
@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 7), Size(3, 200), Size(200, 3), Size(7, 5), Size(33, 17)])
def test_a_frame_smaller_than_a_tile_or_a_cell_is_scored_by_reflection(size: Size, halo: int) -> None:
    made = scorer(make_recipe(frame=size, core=Size(64, 64), halo=halo))
    assert made.score(mono(np.full((size.height, size.width), DARK, np.uint8))).regions[0].image_score == DARK
    for x, y in ((0, 0), (size.width - 1, size.height - 1), (size.width // 2, size.height // 2)):
        scored = made.score(spotted(size, (x, y)))
        assert scored.regions[0].image_score == 250
        assert made.frame_map(scored).shape == (size.height, size.width)
        assert np.isfinite(made.frame_map(scored)).all()


@pytest.mark.parametrize("size", [Size(1, 1), Size(3, 200), Size(64, 47), Size(48, 64)])
def test_a_frame_of_another_size_than_the_recipes_is_refused_with_both(size: Size) -> None:
    with pytest.raises(DataError, match=f"frame is {size}, the bundle inspects 64x48"):
        scorer(make_recipe()).score(spotted(size))


def test_a_mosaic_is_scored_as_the_colours_it_makes() -> None:
    made = scorer(make_recipe(pixel_format=PixelFormat.RGB12))
    mosaic = Frame(scramble(48, 64, 1, np.uint16) >> 4, PixelFormat.BAYER_GB12)
    colours = mosaic.converted(PixelFormat.RGB12)
    assert np.array_equal(made.score(mosaic).regions[0].grid, made.score(colours).regions[0].grid)
    with pytest.raises(DataError, match="frame is bayergb10, the bundle takes rgb12: set the camera to bayergb12"):
        made.score(Frame(mosaic.pixels >> 2, PixelFormat.BAYER_GB10))
