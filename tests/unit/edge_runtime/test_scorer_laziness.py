"""The smoothed map costs more than all the rest on a large frame: it is computed for who asks, once."""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import SickEngine, make_inspector, make_recipe, make_region, make_thresholds

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.decision import Verdict
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.imaging.maps import Map
from edge_runtime.imaging.smoothed import PlaneMap
from edge_runtime.scorer import RegionScore
from edge_runtime.stages import StageClock

DARK, BRIGHT = 40, 250
HALVES = (make_region("left", (0, 0, 32, 48)), make_region("right", (32, 0, 64, 48)))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Map]:
    """Every block of a map that is made, by the grid that it is made of."""
    grids: list[Map] = []
    block = PlaneMap.block

    def counted(self: PlaneMap, grid: Map, number: int, clock: StageClock) -> Map:
        grids.append(grid)
        return block(self, grid, number, clock)

    monkeypatch.setattr(PlaneMap, "block", counted)
    return grids


def picture(*spots: tuple[int, int], value: int = BRIGHT) -> NDArray[np.uint8]:
    pixels = np.full((48, 64), DARK, np.uint8)
    for x, y in spots:
        pixels[y, x] = value
    return pixels


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX])
def test_a_good_frame_computes_no_map(computed: list[Map], rule: ImageScoreRule) -> None:
    inspector = make_inspector(make_recipe(sigma=4.0, rule=rule))
    assert inspector.inspect(picture()).verdict is Verdict.ACCEPT
    assert computed == []


def test_a_sick_frame_computes_no_map(computed: list[Map]) -> None:
    recipe = make_recipe(sigma=4.0)
    inspector = make_inspector(recipe, engine=SickEngine(recipe))
    assert inspector.inspect(picture((20, 20), value=255)).verdict is Verdict.ERROR
    assert computed == []


def test_without_a_pixel_threshold_a_rejected_frame_computes_no_map(computed: list[Map]) -> None:
    inspector = make_inspector(make_recipe(sigma=4.0), thresholds=make_thresholds(pixel=None))
    inspection = inspector.inspect(picture((20, 20)))
    assert inspection.verdict is Verdict.REJECT
    assert inspector.defect_mask(inspection) is not None
    assert computed == []


def test_a_rejected_frame_computes_the_blocks_where_something_is_listed_and_keeps_the_map_that_is_asked_for(
    computed: list[Map],
) -> None:
    inspector = make_inspector(make_recipe(regions=HALVES))
    pixels = picture((50, 20))
    inspection = inspector.inspect(pixels)
    assert [region.name for region in inspection.regions] == ["right"]
    right = inspection.scored.regions[1]
    assert [id(grid) for grid in computed] == [id(right.grid)]
    frame_map = inspector.frame_map(inspection)
    inspector.defect_mask(inspection)
    inspector.overlay(Frame(pixels, PixelFormat.MONO8), inspection)
    assert len(computed) == 3  # both halves, for the pictures
    assert np.array_equal(frame_map[:, 32:], inspector.scorer.plane_map("right", right.grid))
    assert right.plane_map is right.plane_map


def test_the_maps_of_a_good_frame_are_there_for_who_asks_later(computed: list[Map]) -> None:
    inspector = make_inspector(make_recipe(sigma=2.0))
    first = inspector.inspect(picture((10, 10), value=90))
    inspector.inspect(picture((50, 40), value=95))  # a frame later, the first one's is still its own
    assert computed == []
    frame_map = inspector.frame_map(first)
    assert np.unravel_index(frame_map.argmax(), frame_map.shape) < (16, 16)
    assert np.array_equal(frame_map, inspector.scorer.plane_map("all", first.scored.regions[0].grid))


def test_a_score_of_the_smoothed_map_computes_the_block_that_holds_it(computed: list[Map]) -> None:
    inspector = make_inspector(
        make_recipe(sigma=2.0, rule=ImageScoreRule.MAX_SMOOTHED), thresholds=make_thresholds(pixel=None)
    )
    inspection = inspector.inspect(picture((20, 20)))
    assert len(computed) == 1
    assert inspection.score == inspection.scored.regions[0].plane_map.max()


def test_what_is_bright_far_outside_the_valid_area_computes_no_map_and_what_is_near_does(computed: list[Map]) -> None:
    area = np.zeros((48, 64), np.bool_)
    area[:, :16] = True
    recipe = make_recipe(regions=(make_region("cap", (0, 0, 64, 48), valid_area="area"),))
    inspector = make_inspector(recipe, valid_areas={"area": area})
    assert inspector.inspect(picture((50, 20))).regions == ()
    assert computed == []
    assert inspector.inspect(picture((17, 20))).regions != ()  # the cell beside the area reaches into it
    assert len(computed) == 1


def test_a_region_score_takes_a_finished_map_as_well() -> None:
    plane = np.ones((8, 8), np.float32)
    assert RegionScore("cap", 1.0, plane[:1, :1], plane).plane_map is plane
