"""Geometry of a build: what the images have in common, where is inspected, how planes are cut."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.samples import Label, Sample, Split
from edge_runtime.bundle.recipe import CropSpec, ImageScoreRule, SizeSpec, TilingSpec
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import PixelFormat, Size, decode_png
from edge_runtime.imaging.tiles import TilePlan
from trainer.config import make_config
from trainer.geometry import FrameSurvey, even_core, make_geometry, make_tiling, survey

Write = Callable[..., list[Sample]]
FRAME = FrameSurvey(size=Size(96, 64), pixel_format=PixelFormat.MONO8, bit_depth=8)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes images and gives them as samples."""

    def written(*images: NDArray[Any]) -> list[Sample]:
        samples = []
        for index, pixels in enumerate(images):
            path = tmp_path / f"{index}.png"
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            name = path.name
            samples.append(
                Sample(path=path, name=name, label=Label.GOOD, split=Split.TRAIN, folder=".", digest=str(index) * 64)
            )
        return samples

    return written


def grey(peak: int = 200, dtype: type = np.uint8, size: tuple[int, int] = (8, 10)) -> NDArray[Any]:
    """Pixels from 0 to a peak."""
    return np.linspace(0, peak, size[0] * size[1]).astype(dtype).reshape(size)


def colour(dtype: type = np.uint8) -> NDArray[Any]:
    return np.stack([grey(100, dtype), grey(150, dtype), grey(200, dtype)], axis=2)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([grey(), grey()], (PixelFormat.MONO8, 8)),
        ([grey(1), grey(2)], (PixelFormat.MONO8, 8)),
        ([colour(), colour()], (PixelFormat.RGB8, 8)),
        ([grey(), colour()], (PixelFormat.RGB8, 8)),  # one colour image makes the bundle one of colour
        ([grey(255, np.uint16)], (PixelFormat.MONO16, 8)),
        ([grey(4095, np.uint16), grey(900, np.uint16)], (PixelFormat.MONO12, 12)),
        ([grey(900, np.uint16), grey(4096, np.uint16)], (PixelFormat.MONO14, 14)),
        ([grey(900, np.uint16)], (PixelFormat.MONO10, 10)),
        ([grey(65535, np.uint16)], (PixelFormat.MONO16, 16)),
        ([colour(np.uint16)], (PixelFormat.RGB16, 8)),
    ],
)
def test_the_survey_finds_the_format_and_the_sensors_depth(
    write: Write, images: list[NDArray[Any]], expected: tuple[PixelFormat, int]
) -> None:
    found = survey(write(*images))
    assert (found.pixel_format, found.bit_depth) == expected
    assert found.size == (10, 8)


@pytest.mark.parametrize(
    ("stated", "expected", "depth"),
    [
        (PixelFormat.MONO12, PixelFormat.MONO12, 12),
        (PixelFormat.MONO16, PixelFormat.MONO16, 16),  # said, not guessed: white is 65535
        (PixelFormat.BAYER_RG12, PixelFormat.RGB12, 12),
        (PixelFormat.BAYER_BG16, PixelFormat.RGB16, 16),
    ],
)
def test_what_is_stated_of_the_images_is_not_guessed(
    write: Write, stated: PixelFormat, expected: PixelFormat, depth: int
) -> None:
    found = survey(write(grey(900, np.uint16)), stated)
    assert (found.pixel_format, found.bit_depth, found.file_format) == (expected, depth, stated)


def test_an_image_that_is_deeper_than_stated_is_refused_by_name(write: Write) -> None:
    with pytest.raises(DataError, match=r"1\.png holds 1100, mono10 ends at 1023"):
        survey(write(grey(1000, np.uint16), grey(1100, np.uint16)), PixelFormat.MONO10)


def test_images_of_two_sizes_are_refused_with_both_names_and_sizes(write: Write) -> None:
    with pytest.raises(DataError, match=r"1\.png: is 12x8, 0\.png is 10x8"):
        survey(write(grey(), grey(size=(8, 12))))


def test_images_of_two_depths_are_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r"1\.png: is mono16, 0\.png is mono8"):
        survey(write(grey(), grey(4000, np.uint16)))


@pytest.mark.parametrize("level", [0, 255])
def test_images_that_show_nothing_are_refused(write: Write, level: int) -> None:
    with pytest.raises(DataError, match="do not vary"):
        survey(write(*[np.full((8, 10), level, np.uint8)] * 3))


def test_one_image_that_shows_something_is_enough(write: Write) -> None:
    assert survey(write(np.zeros((8, 10), np.uint8), grey())).bit_depth == 8


def test_without_a_crop_the_whole_frame_is_scaled_to_the_size() -> None:
    geometry, members = make_geometry(make_config({"size": [32, 16]}, None), FRAME)
    (region,) = geometry.regions
    assert (region.name, region.crop.size, region.plane.size) == ("frame", (96, 64), (32, 16))
    assert members == {}
    assert geometry.frame.size == (96, 64)


@pytest.mark.parametrize(
    ("region", "crop"),
    [
        ({"crop": [8, 4, 40, 20]}, (8, 4, 40, 20)),
        ({"polygon": [[10, 5], [50, 5], [30, 40]]}, (10, 5, 51, 41)),  # inclusive corners
        ({"crop": [0, 0, 96, 64], "polygon": [[10, 5], [50, 5], [30, 40]]}, (0, 0, 96, 64)),
        ({}, (0, 0, 96, 64)),
    ],
)
def test_a_region_is_its_crop_or_its_polygons_box_or_the_frame(region: dict[str, Any], crop: tuple[int, ...]) -> None:
    geometry, _ = make_geometry(make_config({"region": [{"name": "a", **region}]}, None), FRAME)
    x1, y1, x2, y2 = crop
    assert geometry.regions[0].crop == CropSpec(x1=x1, y1=y1, x2=x2, y2=y2)


@pytest.mark.parametrize("crop", [[-1, 0, 8, 8], [0, 0, 97, 8], [0, 0, 8, 65], [8, 0, 8, 8], [9, 0, 8, 8]])
def test_a_crop_that_is_empty_or_leaves_the_frame_is_refused_with_the_frames_size(crop: list[int]) -> None:
    with pytest.raises(ConfigError, match="is empty or leaves the frame 96x64"):
        make_geometry(make_config({"crop": crop}, None), FRAME)


def test_a_valid_area_becomes_a_member_of_black_and_white(tmp_path: Path) -> None:
    drawn = np.zeros((64, 96, 3), np.uint8)
    drawn[10:20, 30:50, 2] = 1
    file = tmp_path / "mask.png"
    file.write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
    geometry, members = make_geometry(make_config({"valid_area": str(file)}, None), FRAME)
    name = geometry.regions[0].valid_area
    assert name == "geometry/frame.png"
    assert np.array_equal(decode_png(members[name], name).pixels, (drawn[:, :, 2] > 0) * np.uint8(255))


def test_a_missing_valid_area_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothere\.png: cannot be read"):
        make_geometry(make_config({"valid_area": str(tmp_path / "nothere.png")}, None), FRAME)


def test_a_tiled_plane_keeps_sensor_pixels_or_scales_them() -> None:
    whole, _ = make_geometry(make_config({"tile": 32}, None), FRAME)
    scaled, _ = make_geometry(make_config({"tile": 32, "scale": 0.5}, None), FRAME)
    assert (whole.regions[0].plane.size, scaled.regions[0].plane.size) == ((96, 64), (48, 32))


def tiling(
    flags: dict[str, Any],
    *,
    position_bound: bool = False,
    rule: ImageScoreRule = ImageScoreRule.MAX_RAW,
    frame: Size | None = None,
) -> TilingSpec:
    config = make_config(flags, None)
    geometry, _ = make_geometry(config, FRAME if frame is None else replace(FRAME, size=frame))
    return make_tiling(
        config,
        geometry,
        grid_stride=8,
        input_stride=16,
        position_bound=position_bound,
        image_score=rule,
        default_halo=lambda core: core.width // 2,
    )


def test_a_tile_owns_its_core_and_sees_its_halo() -> None:
    found = tiling({"tile": 32, "halo": 16})
    assert (found.core, found.halo, found.stride, found.offset) == (SizeSpec(width=32, height=32), 16, 8, 3.5)
    assert found.batch > 1


@pytest.mark.parametrize(
    ("tile", "halo", "batch"), [(32, 16, 4), (96, 16, 4), (112, 16, 3), (128, 16, 2), (160, 32, 1), (512, 128, 1)]
)
def test_tiles_that_are_large_to_the_graph_go_one_by_one(tile: int, halo: int, batch: int) -> None:
    assert tiling({"tile": tile, "halo": halo}, frame=Size(2000, 1500)).batch == batch


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tile": 2048, "halo": 0}, r"--tile 2048: the longest side .* has 96 px, .*: give 512 at most"),
        ({"tile": 32, "halo": 4096}, r"--halo 4096: .*: give 512 at most"),
    ],
)
def test_tiles_and_halos_of_nothing_but_reflections_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiling(flags)
    assert tiling({"tile": 512, "halo": 512}).core.size == (512, 512)
    assert tiling(flags, frame=Size(1100, 900)).halo == flags["halo"]


def test_a_scale_that_leaves_nothing_to_see_is_refused_and_a_small_crop_is_not() -> None:
    with pytest.raises(ConfigError, match=r"--scale 0.1 leaves 10x6 pixels of 96x64: .*raise it"):
        make_geometry(make_config({"tile": 32, "scale": 0.1}, None), FRAME)
    small, _ = make_geometry(make_config({"tile": 32, "crop": [0, 0, 4, 4]}, None), FRAME)
    assert small.regions[0].plane.size == (4, 4)


def test_one_input_has_no_halo_and_a_batch_of_one() -> None:
    found = tiling({"size": [96, 64]})
    assert (found.core.size, found.halo, found.batch) == ((96, 64), 0, 1)


def test_the_halo_that_nobody_gave_is_asked_for_by_the_core() -> None:
    assert tiling({"tile": 32}).halo == 16
    assert tiling({"tile": 32, "halo": 48}).halo == 48
    assert tiling({"tile": 32, "halo": 0}).halo == 0


@pytest.mark.parametrize("flags", [{"tile": 96}, {"tile": 128}])
def test_one_tile_meets_no_other_and_gets_no_halo(flags: dict[str, Any]) -> None:
    found = tiling(flags)
    assert (found.halo, found.halo_kind, found.seam_error) == (0, "exact", 0.0)


def test_a_frame_graph_of_one_tile_is_refused() -> None:
    with pytest.raises(ConfigError, match="--frame-graph: one tile of 96x96 holds the whole region"):
        tiling({"tile": 96, "frame_graph": True})


@pytest.mark.parametrize("flags", [{"size": [100, 64]}, {"tile": 40}, {"tile": 32, "halo": 8}])
def test_a_size_that_is_no_multiple_of_the_networks_stride_is_refused_with_the_nearest(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="multiples of the stride 16: nearest"):
        tiling(flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "padim", "tile": 32, "halo": 16},
        {"method": "padim", "size": [32, 32], "region": [{"name": "a"}, {"name": "b"}]},
    ],
)
def test_a_method_of_places_is_told_the_tile_where_there_are_several_and_gets_one_at_a_time(
    flags: dict[str, Any],
) -> None:
    found = tiling(flags, position_bound=True)
    assert (found.position_bound, found.batch) == (True, 1)


def test_a_method_of_places_need_not_be_told_of_the_only_tile() -> None:
    found = tiling({"size": [32, 32]}, position_bound=True)
    assert (found.position_bound, found.batch) == (False, 1)


@pytest.mark.parametrize("halo", [16, 7])  # also where the halo would not do: another one would not help
def test_a_score_of_the_graph_refuses_tiles_with_the_reason_and_the_alternatives(halo: int) -> None:
    flags = {"method": "csflow", "tile": 32, "halo": halo}
    with pytest.raises(
        ConfigError, match=r"--method csflow .*region frame would take 6 tiles.*--size, or --method patchcore"
    ):
        tiling(flags, rule=ImageScoreRule.GRAPH)


@pytest.mark.parametrize("flags", [{"size": [32, 32], "region": [{"name": "a"}, {"name": "b"}]}, {"tile": 96}])
def test_a_score_of_the_graph_takes_any_number_of_regions_of_one_tile_each(flags: dict[str, Any]) -> None:
    assert tiling(flags, rule=ImageScoreRule.GRAPH).batch == 1


SIDES = st.integers(1, 3000)


@given(
    planes=st.lists(st.builds(Size, SIDES, SIDES), min_size=1, max_size=3),
    cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    stride=st.sampled_from([4, 8, 16, 32]),
)
def test_the_even_core_is_the_smallest_that_cuts_every_plane_as_often(
    planes: list[Size], cells: tuple[int, int], stride: int
) -> None:
    core = Size(cells[0] * stride, cells[1] * stride)

    def counts(core: Size) -> list[tuple[int, int]]:
        plans = [TilePlan(plane=plane, core=core, halo=0, stride=stride) for plane in planes]
        return [(plan.columns, plan.rows) for plan in plans]

    even = even_core(planes, core, stride)

    assert counts(even) == counts(core)
    for smaller in (Size(even.width - stride, even.height), Size(even.width, even.height - stride)):
        assert min(smaller) == 0 or counts(smaller) != counts(core)
