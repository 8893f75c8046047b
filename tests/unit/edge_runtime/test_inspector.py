"""The inspector: every frame gets one answer, and nothing that went wrong is an ACCEPT."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import (
    DIGEST,
    BrightnessEngine,
    FailingEngine,
    SickEngine,
    make_inspector,
    make_recipe,
    make_region,
    make_thresholds,
    scramble,
)

from edge_runtime.bundle.manifest import RegionThresholds
from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import Frame, PixelFormat, Size, encode_png
from edge_runtime.imaging.maps import ListedRegion
from edge_runtime.inspector import Inspection, Inspector, Timings
from edge_runtime.normalise import threshold_relative
from edge_runtime.scorer import Scorer

DARK, BRIGHT = 40, 250
HALVES = (make_region("left", (0, 0, 32, 48)), make_region("right", (32, 0, 64, 48)))


def picture(*spots: tuple[int, int], value: int = BRIGHT, size: Size = Size(64, 48)) -> NDArray[np.uint8]:  # noqa: B008
    pixels = np.full((size.height, size.width), DARK, np.uint8)
    for x, y in spots:
        pixels[y, x] = value
    return pixels


def overlaps(region: ListedRegion, x: int, y: int) -> bool:
    return region.x <= x < region.x + region.width and region.y <= y < region.y + region.height


def replace_thresholds(thresholds: RegionThresholds, **fields: float) -> RegionThresholds:
    return thresholds.model_copy(update=fields)


def assert_error(inspection: Inspection, reason: Reason, detail: str) -> None:
    """An ERROR carries its reason and nothing that could be taken for a result."""
    assert inspection.verdict is Verdict.ERROR
    assert inspection.reason is reason
    assert detail in inspection.detail
    assert inspection.score is None
    assert inspection.score_normalized is None
    assert inspection.regions == ()
    assert inspection.scored is None
    assert inspection.bundle == DIGEST
    times = asdict(inspection.timings_ms)
    assert min(*times.pop("stages").values(), *times.values()) >= 0
    assert not inspection.complete or reason is Reason.NOT_FINITE


def test_a_good_frame_is_accepted_with_its_score_and_nothing_listed() -> None:
    inspection = make_inspector(make_recipe()).inspect(picture())
    assert inspection.verdict is Verdict.ACCEPT
    assert inspection.reason is None
    assert inspection.detail == ""
    assert (inspection.region, inspection.score, inspection.threshold) == ("all", DARK, 100.0)
    assert inspection.score_normalized == 40.0
    assert inspection.regions == ()
    assert (inspection.bundle, inspection.artefact) == (DIGEST, "toy-f32")


def test_a_defect_is_rejected_and_listed_where_it_is() -> None:
    inspection = make_inspector(make_recipe()).inspect(picture((44, 20)))
    assert inspection.verdict is Verdict.REJECT
    assert inspection.reason is None
    assert (inspection.score, inspection.score_normalized) == (BRIGHT, 250.0)
    assert len(inspection.regions) == 1
    assert overlaps(inspection.regions[0], 44, 20)
    assert inspection.regions[0].width < 20


def core_marks(length: int, core: int) -> list[int]:
    """First, middle and last pixel of every core along a side, the plane's own last pixel included."""
    starts = range(0, length, core)
    return sorted({min(start + step, length - 1) for start in starts for step in (0, core // 2, core - 1)})


def test_a_defect_on_every_tile_border_corner_and_centre_is_found() -> None:
    size, core = Size(1130, 460), Size(256, 192)
    recipe = make_recipe(frame=size, core=core, halo=32, stride=8, batch=4)
    engine = BrightnessEngine(recipe)
    inspector = make_inspector(recipe, engine=engine, thresholds=make_thresholds(100.0, pixel=60.0))
    assert inspector.inspect(picture(size=size)).verdict is Verdict.ACCEPT
    assert engine.runs == 4  # fifteen tiles: the last batch is filled up
    marks = [(x, y) for x in core_marks(1130, 256) for y in core_marks(460, 192)]
    assert len(marks) == (3 * 5 - 1) * (3 * 3 - 1)  # the last core's middle or end lies beyond the plane
    for x, y in marks:
        inspection = inspector.inspect(picture((x, y), size=size))
        assert inspection.verdict is Verdict.REJECT, (x, y)
        assert inspection.score == BRIGHT
        assert len(inspection.regions) == 1
        assert overlaps(inspection.regions[0], x, y), (x, y)


@pytest.mark.parametrize("size", [Size(65, 48), Size(64, 47), Size(48, 64)])
def test_a_frame_of_the_wrong_size_is_a_bad_image(size: Size) -> None:
    assert_error(make_inspector(make_recipe()).inspect(picture(size=size)), Reason.BAD_IMAGE, f"frame is {size}")


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64), np.uint16),
        np.zeros((48, 64), np.float32),
        np.full((48, 64, 3), (0, 0, 1), np.uint8),
        np.zeros((0, 64), np.uint8),
        np.zeros(64, np.uint8),
        Frame(np.full((48, 64, 3), (0, 0, 1), np.uint8), PixelFormat.BGR8),
        Frame(np.zeros((48, 64), np.uint16), PixelFormat.MONO16),
    ],
    ids=["16 bits", "floats", "colour", "empty", "a row", "a colour frame", "a deep frame"],
)
def test_a_frame_of_the_wrong_format_is_a_bad_image(frame: Frame | NDArray[np.uint8]) -> None:
    assert_error(make_inspector(make_recipe()).inspect(frame), Reason.BAD_IMAGE, "frame is")


def test_a_failing_engine_is_an_error_and_the_next_frame_is_inspected_as_ever() -> None:
    recipe = make_recipe(batch=4)  # two runs a frame
    inspector = make_inspector(recipe, engine=FailingEngine(recipe, failing=(2, 3)))
    assert_error(inspector.inspect(picture((3, 3))), Reason.ENGINE, "toy engine failed on run 2")
    assert_error(inspector.inspect(picture((3, 3))), Reason.ENGINE, "toy engine failed on run 3")
    inspection = inspector.inspect(picture())
    assert (inspection.verdict, inspection.score) == (Verdict.ACCEPT, DARK)


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("spot", [(0, 0), (63, 47), (31, 16)])
def test_a_map_that_is_not_finite_is_an_error_and_never_an_accept(fault: float, spot: tuple[int, int]) -> None:
    recipe = make_recipe()
    inspector = make_inspector(recipe, engine=SickEngine(recipe, fault=fault))
    inspection = inspector.inspect(picture(spot, value=255))
    assert_error(inspection, Reason.NOT_FINITE, "region all")
    assert inspector.frame_map(inspection) is None
    assert inspector.defect_mask(inspection) is None
    assert inspector.overlay(Frame(picture(), PixelFormat.MONO8), inspection) is None
    assert inspector.inspect(picture()).verdict is Verdict.ACCEPT


def test_a_sick_region_outweighs_a_rejected_one() -> None:
    recipe = make_recipe(core=Size(32, 48), regions=HALVES)
    pixels = picture((10, 10))
    pixels[20, 50] = 255
    inspection = make_inspector(recipe, engine=SickEngine(recipe)).inspect(pixels)
    assert_error(inspection, Reason.NOT_FINITE, "region right")
    assert inspection.region == "right"


@pytest.mark.parametrize(
    ("left", "right", "verdict", "region"),
    [
        (60, 70, Verdict.ACCEPT, "left"),  # 60 of 100 is nearer to rejection than 70 of 200
        (60, 190, Verdict.REVIEW, "right"),
        (99, 190, Verdict.REVIEW, "right"),
        (60, 210, Verdict.REJECT, "right"),
        (110, 199, Verdict.REJECT, "left"),
        (110, 250, Verdict.REJECT, "right"),
        (210, 220, Verdict.REJECT, "left"),
    ],
)
def test_of_several_regions_the_worst_decides_and_the_score_is_its_own(
    left: int, right: int, verdict: Verdict, region: str
) -> None:
    thresholds = {"left": make_thresholds(100.0), "right": make_thresholds(200.0, review=180.0)}
    pixels = picture((10, 10), value=left)
    pixels[20, 50] = right
    inspection = make_inspector(make_recipe(regions=HALVES), thresholds=thresholds).inspect(pixels)
    score, threshold = {"left": (left, 100.0), "right": (right, 200.0)}[region]
    assert (inspection.verdict, inspection.region) == (verdict, region)
    assert (inspection.score, inspection.threshold) == (score, threshold)
    assert inspection.score_normalized == threshold_relative(score, threshold)


def test_regions_are_listed_from_all_parts_of_the_frame_highest_peak_first() -> None:
    pixels = picture((12, 12), value=200)
    pixels[36, 52] = 240
    inspection = make_inspector(make_recipe(regions=HALVES)).inspect(pixels)
    assert [part.name for part in inspection.regions] == ["right", "left"]
    assert overlaps(inspection.regions[0], 52, 36)
    assert overlaps(inspection.regions[1], 12, 12)


def test_the_smallest_region_setting_filters_the_list_and_not_the_verdict() -> None:
    inspection = make_inspector(
        make_recipe(regions=(make_region("all", (0, 0, 64, 48), smallest_region_px=2000),))
    ).inspect(picture((20, 20)))
    assert inspection.regions == ()
    assert inspection.verdict is Verdict.REJECT


UNSHOWN = make_thresholds(pixel=BRIGHT + 1.0)


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED])
@pytest.mark.parametrize("spot", [(0, 0), (44, 20), (63, 47)])
@pytest.mark.parametrize("plane", [Size(64, 48), Size(32, 24)])
def test_a_reject_whose_map_is_below_the_pixel_threshold_lists_the_place_that_decided(
    rule: ImageScoreRule, spot: tuple[int, int], plane: Size
) -> None:
    sigma = 8.0 if rule is ImageScoreRule.MAX_SMOOTHED else 0.0
    regions = (make_region("cap", (8, 8, 72, 56), plane=plane),)
    recipe = make_recipe(frame=Size(80, 64), regions=regions, rule=rule, sigma=sigma)
    x, y = spot[0] + 8, spot[1] + 8
    pixels = np.full((64, 80), DARK, np.uint8)
    pixels[max(8, y - 3) : y + 4, max(8, x - 3) : x + 4] = BRIGHT
    thresholds = replace_thresholds(UNSHOWN, reject=DARK + 5.0)

    inspection = make_inspector(recipe, thresholds=thresholds).inspect(pixels)

    assert inspection.verdict is Verdict.REJECT
    (place,) = inspection.regions
    assert (place.name, place.area_px) == ("cap", place.width * place.height)
    assert overlaps(place, x, y)
    assert place.x >= 8
    assert place.y >= 8
    assert place.x + place.width <= 72
    assert place.y + place.height <= 56
    assert max(place.width, place.height) <= (3 if rule is ImageScoreRule.POOLED_MAX else 1) * 8 * 64 / plane.width
    assert DARK < place.peak <= BRIGHT


def test_the_place_that_decided_against_a_background_is_the_unusual_one_and_not_the_brightest() -> None:
    mean = np.full((6, 8), DARK, np.float32)
    mean[1, 1] = BRIGHT  # always bright there
    background = Background(mean, np.full((6, 8), 2, np.float32))
    pixels = picture((12, 12))
    pixels[20, 44] = DARK + 60

    inspection = make_inspector(
        make_recipe(), thresholds=replace_thresholds(UNSHOWN, reject=20.0), backgrounds={"all": background}
    ).inspect(pixels)

    assert (inspection.verdict, inspection.score) == (Verdict.REJECT, 30.0)
    assert inspection.regions == (
        ListedRegion(name="all", x=40, y=16, width=8, height=8, area_px=64, peak=DARK + 60.0),
    )


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED])
def test_of_a_frame_that_was_settled_early_the_place_is_one_that_was_scored(rule: ImageScoreRule) -> None:
    """Cells of tiles that never ran hold what a scored one gave, which is far from usual in a place that is always dark."""
    mean = np.full((6, 8), 100, np.float32)
    mean[:, 4:] = -500
    background = Background(mean, np.full((6, 8), 2, np.float32))
    recipe = make_recipe(core=Size(32, 48), batch=1, rule=rule, sigma=2.0)
    thresholds = replace_thresholds(UNSHOWN, reject=5.0)
    lazy = make_inspector(recipe, thresholds=thresholds, backgrounds={"all": background})
    inspector = Inspector(lazy.scorer, lazy.artefact, DIGEST, early_reject=True)
    pixels = np.full((48, 64), 101, np.uint8)
    pixels[8:32, 0:24] = 160

    inspection = inspector.inspect(pixels)

    assert (inspection.verdict, inspection.complete) == (Verdict.REJECT, False)
    (place,) = inspection.regions
    assert place.peak == 160.0
    assert place.x + place.width <= 32


def test_whatever_fails_after_the_scores_are_there_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Scorer, "listed", broken)
    assert_error(make_inspector(make_recipe()).inspect(picture((44, 20))), Reason.ENGINE, "MemoryError")


def test_a_place_outside_the_valid_area_or_smaller_than_what_is_listed_is_not_listed_either() -> None:
    area = np.zeros((48, 64), np.bool_)
    area[:, :32] = True
    pixels = picture((12, 12), value=120)
    pixels[20, 50] = BRIGHT
    small = make_region("all", (0, 0, 64, 48), valid_area="area", smallest_region_px=65)
    for region, listed in ((small.model_copy(update={"smallest_region_px": 64}), 1), (small, 0)):
        inspection = make_inspector(
            make_recipe(regions=(region,)), thresholds=UNSHOWN, valid_areas={"area": area}
        ).inspect(pixels)
        assert (inspection.verdict, inspection.score) == (Verdict.REJECT, 120.0)
        assert [overlaps(place, 12, 12) for place in inspection.regions] == [True] * listed


def test_an_accepted_frame_and_a_region_that_did_not_decide_list_no_place() -> None:
    inspector = make_inspector(make_recipe(regions=HALVES), thresholds=UNSHOWN)
    assert inspector.inspect(picture()).regions == ()
    assert [place.name for place in inspector.inspect(picture((12, 12), (44, 20), value=150)).regions] == ["left"]


def test_without_a_pixel_threshold_nothing_is_listed_or_marked() -> None:
    inspector = make_inspector(make_recipe(), thresholds=make_thresholds(pixel=None))
    inspection = inspector.inspect(picture((20, 20)))
    assert inspection.verdict is Verdict.REJECT
    assert inspection.regions == ()
    assert not inspector.defect_mask(inspection).any()


def test_a_bright_spot_outside_the_valid_area_changes_nothing() -> None:
    area = np.zeros((48, 64), np.bool_)
    area[:, :24] = True
    recipe = make_recipe(regions=(make_region("cap", (0, 0, 64, 48), valid_area="area"),))
    inspector = make_inspector(recipe, valid_areas={"area": area})
    good, spotted = inspector.inspect(picture()), inspector.inspect(picture((50, 20)))
    assert replace(spotted, timings_ms=Timings(), scored=None) == replace(good, timings_ms=Timings(), scored=None)
    assert not inspector.defect_mask(spotted).any()
    assert np.array_equal(np.isnan(inspector.frame_map(spotted)), ~area)
    assert inspector.inspect(picture((20, 20))).verdict is Verdict.REJECT


def test_the_defect_mask_marks_exactly_what_is_at_or_above_each_regions_pixel_threshold() -> None:
    regions = (make_region("left", (4, 4, 32, 44)), make_region("right", (32, 4, 60, 44)))
    thresholds = {"left": make_thresholds(pixel=150.0), "right": make_thresholds(pixel=90.0)}
    inspector = make_inspector(make_recipe(regions=regions), thresholds=thresholds)
    inspection = inspector.inspect(picture((12, 12), (44, 20), (28, 40)))
    mask, frame_map = inspector.defect_mask(inspection), inspector.frame_map(inspection)
    expected = np.zeros((48, 64), np.bool_)
    expected[4:44, 4:32] = frame_map[4:44, 4:32] >= 150.0
    expected[4:44, 32:60] = frame_map[4:44, 32:60] >= 90.0
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(mask > 0, expected)
    assert (mask > 0).sum() == sum(region.area_px for region in inspection.regions)


def test_the_overlay_outlines_what_is_listed() -> None:
    inspector = make_inspector(make_recipe())
    frame = Frame(picture((20, 20)), PixelFormat.MONO8)
    inspection = inspector.inspect(frame)
    drawn = inspector.overlay(frame, inspection)
    region = inspection.regions[0]
    assert drawn.shape == (48, 64, 3)
    assert drawn[region.y, region.x].tolist() == [255, 64, 255]
    assert (drawn == [255, 64, 255]).all(axis=2).sum() == 2 * (region.width + region.height) - 4
    assert inspector.display_range == (0.0, 255.0)


def assert_same(one: Inspection, other: Inspection) -> None:
    assert replace(one, timings_ms=Timings(), scored=None) == replace(other, timings_ms=Timings(), scored=None)
    assert np.array_equal(one.scored.regions[0].plane_map, other.scored.regions[0].plane_map)


@pytest.mark.parametrize(
    ("rgb", "bgr", "dtype"),
    [(PixelFormat.RGB8, PixelFormat.BGR8, np.uint8), (PixelFormat.RGB16, PixelFormat.BGR16, np.uint16)],
)
@pytest.mark.parametrize("plane", [Size(64, 48), Size(40, 32)])
def test_bgr_and_rgb_frames_give_identical_inspections(
    rgb: PixelFormat, bgr: PixelFormat, dtype: type, plane: Size
) -> None:
    recipe = make_recipe(pixel_format=rgb, regions=(make_region("cap", (0, 0, 64, 48), plane=plane),))

    class RedEngine(BrightnessEngine):
        """Sees the first channel only, so that a swapped order shows."""

        def measured(self, tile: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
            return super().measured(tile[:, :, :1])

    inspector = make_inspector(recipe, engine=RedEngine(recipe, measure="mean"))
    pixels = scramble(48, 64, 3, dtype)
    pixels[:, :, 0] //= 4
    one = inspector.inspect(Frame(pixels, rgb))
    assert_same(one, inspector.inspect(Frame(pixels[:, :, ::-1], bgr)))
    assert_same(one, inspector.inspect(Frame(np.ascontiguousarray(pixels[:, :, ::-1]), bgr)))
    assert_same(one, inspector.inspect(pixels))
    swapped = inspector.inspect(Frame(pixels, bgr))
    assert swapped.score > 2 * one.score


def test_a_mono_frame_is_inspected_by_a_colour_bundle_as_the_same_grey() -> None:
    inspector = make_inspector(make_recipe(pixel_format=PixelFormat.RGB8))
    mono = picture((20, 20))
    assert_same(
        inspector.inspect(Frame(mono, PixelFormat.MONO8)),
        inspector.inspect(Frame(np.repeat(mono[:, :, np.newaxis], 3, axis=2), PixelFormat.RGB8)),
    )


def test_a_file_is_inspected_as_its_pixels_are(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(encode_png(picture((20, 20))))
    inspector = make_inspector(make_recipe())
    inspection = inspector.inspect_file(path)
    assert_same(inspection, inspector.inspect(picture((20, 20))))
    assert inspection.timings_ms.decode > 0


@pytest.mark.parametrize(
    "content", [b"", encode_png(picture())[:60], b"no picture", None], ids=["empty", "truncated", "text", "missing"]
)
def test_a_file_that_cannot_be_read_is_a_bad_image_by_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "part.png"
    if content is not None:
        path.write_bytes(content)
    assert_error(make_inspector(make_recipe()).inspect_file(path), Reason.BAD_IMAGE, str(path))


def test_stage_times_are_not_negative_and_the_total_holds_them() -> None:
    times = make_inspector(make_recipe()).inspect(picture((20, 20))).timings_ms
    assert times.decode == 0
    assert min(times.preprocess, times.infer, times.postprocess) > 0
    assert times.total >= times.preprocess + times.infer + times.postprocess
