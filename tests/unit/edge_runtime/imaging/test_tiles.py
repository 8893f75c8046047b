"""Tile plans: what is refused, and what a tile sees and owns, by hand-made examples."""

import cv2
import numpy as np
import pytest
from support.toys import scramble

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.tiles import TilePlan, reflect


def plan(plane: Size, core: Size, halo: int = 0, stride: int = 1) -> TilePlan:
    return TilePlan(plane=plane, core=core, halo=halo, stride=stride)


def test_a_tile_sees_its_core_and_the_halo_around_it() -> None:
    pixels = scramble(48, 64, 3)
    laid = plan(Size(64, 48), Size(16, 16), halo=8, stride=8)
    out = np.zeros((32, 32, 3), np.uint8)
    laid.cut(pixels, 4 + 1, out)  # second row, second column: wholly inside
    assert np.array_equal(out, pixels[8:40, 8:40])


@pytest.mark.parametrize("tile", range(6))
def test_pixels_beyond_the_plane_are_mirrored_as_opencv_mirrors_them(tile: int) -> None:
    pixels = scramble(40, 50, 3)  # three columns and two rows; the last cores leave the plane
    laid = plan(Size(50, 40), Size(24, 24), halo=8, stride=8)
    bordered = cv2.copyMakeBorder(pixels, 8, 24, 8, 40, cv2.BORDER_REFLECT_101)
    top, left = tile // 3 * 24, tile % 3 * 24
    out = np.zeros((40, 40, 3), np.uint8)
    laid.cut(pixels, tile, out)
    assert laid.count == 6
    assert np.array_equal(out, bordered[top : top + 40, left : left + 40])


def test_a_plane_of_one_pixel_is_repeated_all_over_the_tile() -> None:
    out = np.zeros((24, 24, 1), np.uint16)
    plan(Size(1, 1), Size(8, 8), halo=8, stride=8).cut(np.full((1, 1, 1), 40_000, np.uint16), 0, out)
    assert (out == 40_000).all()


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64])
def test_reflection_is_opencvs_and_numpys_however_often_it_repeats(length: int) -> None:
    index = np.arange(-5 * length - 3, 6 * length + 3)
    expected = [cv2.borderInterpolate(int(i), length, cv2.BORDER_REFLECT_101) for i in index]
    assert np.array_equal(reflect(index, length), expected)
    before, after = -int(index[0]), int(index[-1]) + 1 - length
    assert np.array_equal(reflect(index, length), np.pad(np.arange(length), (before, after), mode="reflect"))


@pytest.mark.parametrize(
    ("core", "halo", "named"),
    [
        (Size(20, 16), 8, "nearest core 16x16, nearest halo 8"),
        (Size(16, 30), 8, "nearest core 16x32, nearest halo 8"),
        (Size(3, 1), 0, "nearest core 8x8, nearest halo 0"),
        (Size(16, 16), 13, "nearest core 16x16, nearest halo 16"),
        (Size(250, 500), 60, "nearest core 248x496, nearest halo 64"),
    ],
)
def test_a_core_or_halo_off_the_grid_is_refused_with_the_nearest_that_fits(core: Size, halo: int, named: str) -> None:
    with pytest.raises(ConfigError, match=f"core {core} and halo {halo} must be multiples of the stride 8: {named}"):
        plan(Size(64, 48), core, halo, stride=8)


@pytest.mark.parametrize(
    ("plane", "core", "halo", "stride"),
    [
        (Size(0, 48), Size(8, 8), 0, 8),
        (Size(64, 0), Size(8, 8), 0, 8),
        (Size(64, 48), Size(0, 8), 0, 8),
        (Size(64, 48), Size(8, -8), 0, 8),
        (Size(64, 48), Size(8, 8), -8, 8),
        (Size(64, 48), Size(8, 8), 0, 0),
    ],
)
def test_a_plan_without_positive_sizes_is_refused(plane: Size, core: Size, halo: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="needs positive sizes"):
        plan(plane, core, halo, stride)


def test_tiles_and_cells_at_the_far_border_are_counted_in_part() -> None:
    laid = plan(Size(65, 17), Size(32, 16), halo=8, stride=8)
    assert (laid.columns, laid.rows, laid.count) == (3, 2, 6)
    assert laid.grid == (9, 3)
    assert laid.input == (48, 32)


def test_paste_keeps_the_cells_of_the_core_and_drops_the_halos() -> None:
    laid = plan(Size(32, 16), Size(16, 16), halo=8, stride=8)
    stitched = np.full((2, 4), np.nan, np.float32)
    laid.paste(np.arange(16, dtype=np.float32).reshape(4, 4), 1, stitched)
    assert np.isnan(stitched[:, :2]).all()
    assert np.array_equal(stitched[:, 2:], [[5, 6], [9, 10]])


def test_cells_that_only_reflected_pixels_fill_are_not_kept() -> None:
    laid = plan(Size(33, 9), Size(32, 32), stride=8)  # the second tile owns one column of two cells
    assert np.array_equal(np.argwhere(laid.kept(1)), [[0, 0], [1, 0]])
    assert laid.kept(0).sum() == 8


def test_coverage_is_one_core_for_every_cell() -> None:
    coverage = plan(Size(1130, 460), Size(256, 192), halo=32, stride=32).coverage()
    assert coverage.shape == (15, 36)
    assert (coverage == 1).all()
