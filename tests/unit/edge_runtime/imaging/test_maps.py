"""Maps: upsampling and smoothing against other people's code, listing against hand-made examples."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from support.toys import scramble

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.maps import ListedRegion, list_regions, pooled, rescale, smooth, upsample


def noise(height: int, width: int) -> NDArray[np.float32]:
    return scramble(height, width, 1, np.uint16)[:, :, 0].astype(np.float32) / np.float32(100)


def bilinear(grid: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear values at fractional cells, in float64 by scipy; the border's value beyond the border."""
    return ndimage.map_coordinates(
        grid.astype(np.float64), np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )


@pytest.mark.parametrize(
    ("stride", "offset"), [(8, 3.5), (8, 0.0), (8, 7.0), (4, 1.5), (1, 0.0), (16, -2.25), (32, 15.5)]
)
@pytest.mark.parametrize("plane", [Size(61, 37), Size(64, 40), Size(1, 1)])
def test_upsampling_is_bilinear_between_the_centres_that_stride_and_offset_name(
    stride: int, offset: float, plane: Size
) -> None:
    grid = noise(-(-plane.height // stride), -(-plane.width // stride))
    expected = bilinear(grid, (np.arange(plane.height) - offset) / stride, (np.arange(plane.width) - offset) / stride)
    found = upsample(grid, stride=stride, offset=offset, plane=plane)
    assert found.dtype == np.float32
    assert found.shape == (plane.height, plane.width)
    assert np.abs(found - expected).max() <= 1e-5 * grid.max()


def test_a_cells_value_stands_unchanged_at_its_centre() -> None:
    grid = noise(5, 7)
    found = upsample(grid, stride=4, offset=2.0, plane=Size(28, 20))
    assert np.array_equal(found[2::4, 2::4], grid)


@pytest.mark.parametrize("value", [0.1, -3.7, 1e-30, 1e30])
def test_a_constant_map_comes_through_upsampling_and_rescaling_to_the_last_bit(value: float) -> None:
    grid = np.full((5, 7), value, np.float32)
    plane = upsample(grid, stride=8, offset=3.5, plane=Size(51, 39))
    assert (plane == np.float32(value)).all()
    assert (rescale(plane, Size(83, 17)) == np.float32(value)).all()


@pytest.mark.parametrize("size", [Size(122, 74), Size(30, 19), Size(61, 80), Size(1, 1), Size(200, 5)])
def test_rescaling_keeps_pixel_centres_over_the_same_area(size: Size) -> None:
    plane = noise(37, 61)
    rows = (np.arange(size.height) + 0.5) * 37 / size.height - 0.5
    columns = (np.arange(size.width) + 0.5) * 61 / size.width - 0.5
    found = rescale(plane, size)
    assert found.shape == (size.height, size.width)
    assert np.abs(found - bilinear(plane, rows, columns)).max() <= 1e-5 * plane.max()


def test_rescaling_to_the_same_size_changes_nothing() -> None:
    plane = noise(37, 61)
    assert np.array_equal(rescale(plane, Size(61, 37)), plane)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 4.0, 12.0])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (7, 40), (2, 3)])
def test_smoothing_is_scipys_gaussian_with_a_mirrored_border_cut_at_four_sigma(
    sigma: float, height: int, width: int
) -> None:
    plane = noise(height, width)
    expected = ndimage.gaussian_filter(plane.astype(np.float64), sigma, mode="mirror", truncate=4.0)
    found = smooth(plane, sigma)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 2e-6 * plane.max()


@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1), (1, 1)])
def test_a_map_one_pixel_wide_is_smoothed_along_its_length(height: int, width: int) -> None:
    plane = noise(height, width)
    expected = ndimage.gaussian_filter(plane.astype(np.float64), 3.0, mode="mirror", truncate=4.0)
    assert np.abs(smooth(plane, 3.0) - expected).max() <= 2e-6 * plane.max()


def test_smoothing_reaches_four_sigma_and_no_further() -> None:
    plane = np.zeros((61, 61), np.float32)
    plane[30, 30] = 1.0
    smoothed = smooth(plane, 3.0)
    assert smoothed[30, 30 + 12] > 0
    assert smoothed[30, 30 + 13] == 0


def test_a_sigma_of_zero_leaves_the_map_alone() -> None:
    plane = noise(20, 30)
    assert np.array_equal(smooth(plane, 0.0), plane)


def listed(region_map: NDArray[np.float32], smallest_px: int = 1) -> tuple[ListedRegion, ...]:
    return list_regions(region_map, 10.0, smallest_px=smallest_px, name="cap", origin=(100, 200))


def scene() -> NDArray[np.float32]:
    """A 3x2 block of peak 20, a diagonal pair of peak 30, and a single pixel at the threshold."""
    region_map = np.zeros((20, 30), np.float32)
    region_map[2:4, 5:8] = 15
    region_map[3, 6] = 20
    region_map[10, 10] = 12
    region_map[11, 11] = 30
    region_map[18, 29] = 10
    return region_map


def test_regions_are_listed_in_frame_pixels_highest_peak_first() -> None:
    assert listed(scene()) == (
        ListedRegion(name="cap", x=110, y=210, width=2, height=2, area_px=2, peak=30.0),
        ListedRegion(name="cap", x=105, y=202, width=3, height=2, area_px=6, peak=20.0),
        ListedRegion(name="cap", x=129, y=218, width=1, height=1, area_px=1, peak=10.0),
    )


@pytest.mark.parametrize(("smallest_px", "areas"), [(1, [2, 6, 1]), (2, [2, 6]), (3, [6]), (6, [6]), (7, [])])
def test_regions_below_the_smallest_area_are_left_out(smallest_px: int, areas: list[int]) -> None:
    assert [region.area_px for region in listed(scene(), smallest_px)] == areas


def test_pixels_that_are_not_valid_are_never_listed_and_part_regions() -> None:
    region_map = np.full((5, 9), 50, np.float32)
    region_map[:, 4] = np.nan
    assert [(region.x, region.width, region.area_px) for region in listed(region_map)] == [(100, 4, 20), (105, 4, 20)]


def test_a_peak_is_the_regions_own_and_not_its_boxs() -> None:
    region_map = np.zeros((9, 9), np.float32)
    region_map[0, :] = region_map[:, 0] = 11  # an angle whose box is the whole map
    region_map[5, 5] = 99
    assert [(region.area_px, region.peak) for region in listed(region_map)] == [(1, 99.0), (17, 11.0)]


def test_a_map_below_the_threshold_or_without_a_valid_pixel_lists_nothing() -> None:
    assert listed(np.full((5, 9), np.nextafter(np.float32(10), np.float32(0)), np.float32)) == ()
    assert listed(np.full((5, 9), np.nan, np.float32)) == ()


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_a_cell_that_is_no_number_comes_through_upsampling_as_none_and_without_a_warning(fault: float) -> None:
    grid = noise(5, 7)
    grid[2, 3] = fault
    found = upsample(grid, stride=4, offset=1.5, plane=Size(28, 20))
    assert not np.isfinite(found[8:12, 12:16]).any()
    assert np.isfinite(found[:4]).all()


def test_pooling_averages_the_valid_cells_of_the_window_and_no_others() -> None:
    grid = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    valid = np.random.default_rng(1).random((5, 7)) < 0.7

    found = pooled(grid, 3, valid)

    for row in range(5):
        for column in range(7):
            window = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            cells = grid[window][valid[window]]
            assert found[row, column] == pytest.approx(cells.mean() if cells.size else 0.0, abs=1e-5)


def test_pooling_over_one_cell_changes_nothing() -> None:
    grid = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)

    np.testing.assert_array_equal(pooled(grid, 1, None), grid)


def test_infinite_values_are_not_listed_wherever_they_lie_and_however_the_map_is_stored() -> None:
    values = np.zeros((12, 16), dtype=np.float32)
    values[4:6, 5:9] = 3.0
    values[5, 6] = np.inf
    values[0, 0] = values[11, 15] = np.inf
    for stored in (values, np.asfortranarray(values)):
        (found,) = list_regions(stored, 2.0, smallest_px=0, name="r", origin=(100, 200))
        assert (found.x, found.y, found.width, found.height) == (105, 204, 4, 2)
        assert (found.area_px, found.peak) == (7, 3.0)
