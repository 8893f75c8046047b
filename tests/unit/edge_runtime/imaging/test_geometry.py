"""Regions: what is cut from a frame, what of it counts, and what does not fit."""

import numpy as np
import pytest
from support.toys import scramble

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.geometry import Crop, Region, region
from edge_runtime.imaging.resize import resize

FRAME = Size(40, 30)
WHOLE = Crop(0, 0, 40, 30)
INNER = Crop(10, 5, 26, 17)  # 16x12


def made(crop: Crop = INNER, plane: Size | None = None, **area: object) -> Region:
    return region(name="cap", crop=crop, plane=plane or crop.size, frame=FRAME, **area)


def mask(crop: Crop) -> np.ndarray:
    drawn = np.zeros((FRAME.height, FRAME.width), np.bool_)
    drawn[crop.y1 : crop.y2, crop.x1 : crop.x2] = True
    return drawn


def test_a_crop_is_cut_with_its_far_corner_left_out() -> None:
    pixels = scramble(30, 40, 3)
    assert np.array_equal(made().cut(pixels), pixels[5:17, 10:26])


def test_a_crop_is_scaled_to_its_plane() -> None:
    pixels = scramble(30, 40, 3)
    assert np.array_equal(made(plane=Size(8, 20)).cut(pixels), resize(pixels[5:17, 10:26], Size(8, 20)))


@pytest.mark.parametrize(
    "crop",
    [
        Crop(0, 0, 41, 30),
        Crop(0, 0, 40, 31),
        Crop(-1, 0, 40, 30),
        Crop(0, -1, 40, 30),
        Crop(7, 0, 7, 30),
        Crop(0, 9, 40, 8),
    ],
)
def test_a_crop_that_is_empty_or_leaves_the_frame_is_refused(crop: Crop) -> None:
    with pytest.raises(ConfigError, match=f"region cap: crop {crop.x1},{crop.y1},{crop.x2},{crop.y2} .* frame 40x30"):
        made(crop, plane=Size(8, 8))


def test_without_polygon_and_mask_everything_is_valid() -> None:
    whole = made()
    assert whole.valid is None
    assert whole.valid_on_plane() is None
    assert whole.valid_on_grid(8) is None
    assert np.isfinite(whole.to_frame(np.ones((12, 16), np.float32))).all()


def test_a_polygon_is_valid_on_and_inside_its_outline() -> None:
    box = made(WHOLE, polygon=((3, 4), (12, 4), (12, 9), (3, 9)))
    assert np.array_equal(box.valid, mask(Crop(3, 4, 13, 10)))


def test_a_slanted_polygon_leaves_out_the_other_half() -> None:
    half = made(WHOLE, polygon=((0, 0), (29, 29), (0, 29))).valid
    rows, columns = np.indices(half.shape)
    assert np.array_equal(half, columns <= rows)


def test_a_polygon_is_given_in_frame_pixels_whatever_the_crop() -> None:
    assert np.array_equal(
        made(polygon=((0, 0), (15, 0), (15, 29), (0, 29))).valid, mask(Crop(0, 0, 16, 30))[5:17, 10:26]
    )


@pytest.mark.parametrize(
    ("polygon", "fault"),
    [
        (((1, 1), (5, 5)), r"has 2 corner\(s\)"),
        ((), r"has 0 corner\(s\)"),
        (((1, 1), (40, 5), (3, 9)), r"corner 40,5 lies outside the frame 40x30"),
        (((1, 1), (5, 30), (3, 9)), r"corner 5,30 lies outside"),
        (((1, -1), (5, 20), (3, 9)), r"corner 1,-1 lies outside"),
        (((1, 1), (5, 5), (9, 9), (2, 2)), r"has no area: its 4 corners lie on one line, from \(1, 1\) to \(9, 9\)"),
        (((3, 4), (3, 4), (3, 4)), "has no area"),
    ],
)
def test_a_polygon_of_too_few_corners_or_beyond_the_frame_is_refused(
    polygon: tuple[tuple[int, int], ...], fault: str
) -> None:
    with pytest.raises(ConfigError, match=f"region cap: polygon {fault}"):
        made(polygon=polygon)


def test_a_mask_is_cut_with_its_region() -> None:
    area = scramble(30, 40, 1)[:, :, 0] > 128
    assert np.array_equal(made(valid_area=area).valid, area[5:17, 10:26])


def test_polygon_and_mask_are_valid_where_both_are() -> None:
    both = made(WHOLE, polygon=((0, 0), (19, 0), (19, 29), (0, 29)), valid_area=mask(Crop(10, 10, 40, 30)))
    assert np.array_equal(both.valid, mask(Crop(10, 10, 20, 30)))


@pytest.mark.parametrize("shape", [(30, 41), (29, 40), (40, 30), (12, 16)])
def test_a_mask_of_another_size_than_the_frame_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"region cap: valid-area mask is {shape[1]}x{shape[0]}, the frame 40x30"):
        made(valid_area=np.ones(shape, np.bool_))


def test_a_mask_that_leaves_nothing_of_the_region_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"region cap: nothing is left .* box 10,5,26,17 in the frame 40x30 by its valid-area mask"
    ):
        made(valid_area=~mask(INNER))
    with pytest.raises(ConfigError, match=r"region cap: nothing is left .* by its polygon: "):
        made(polygon=((0, 0), (5, 0), (5, 4)), valid_area=None)


def test_a_mask_that_scaling_would_lose_is_refused_and_never_an_empty_area() -> None:
    area = np.zeros((30, 40), np.bool_)
    area[6, 11] = True
    with pytest.raises(ConfigError, match="nothing is left"):
        made(plane=Size(4, 3), valid_area=area)


def test_the_valid_area_on_a_smaller_plane_is_that_of_the_pixel_under_each_centre() -> None:
    area = scramble(30, 40, 1)[:, :, 0] > 128
    found = made(plane=Size(8, 4), valid_area=area).valid_on_plane()
    assert np.array_equal(found, area[5:17, 10:26][1::3, 1::2])


def test_the_valid_area_on_a_larger_plane_is_that_of_the_nearest_pixel() -> None:
    area = scramble(30, 40, 1)[:, :, 0] > 128
    found = made(plane=Size(48, 24), valid_area=area).valid_on_plane()
    assert np.array_equal(found, np.repeat(np.repeat(area[5:17, 10:26], 2, axis=0), 3, axis=1))


def test_a_cell_counts_where_it_holds_a_single_valid_pixel() -> None:
    area = np.zeros((30, 40), np.bool_)
    area[[0, 7, 8, 29], [0, 15, 16, 39]] = True  # cells (0,0), (0,1), (1,2) and the one cut by the far corner
    cells = made(WHOLE, valid_area=area).valid_on_grid(8)
    assert cells.shape == (4, 5)
    assert np.argwhere(cells).tolist() == [[0, 0], [0, 1], [1, 2], [3, 4]]


def test_a_map_on_the_frame_is_nan_exactly_where_nothing_is_valid() -> None:
    area = scramble(30, 40, 1)[:, :, 0] > 128
    plane_map = scramble(12, 16, 1)[:, :, 0].astype(np.float32)
    found = made(valid_area=area).to_frame(plane_map)
    assert found.dtype == np.float32
    assert np.array_equal(np.isnan(found), ~area[5:17, 10:26])
    assert np.array_equal(found[area[5:17, 10:26]], plane_map[area[5:17, 10:26]])


def test_a_map_of_a_scaled_plane_comes_back_at_the_crops_size() -> None:
    plane_map = np.zeros((6, 8), np.float32)
    plane_map[:, 4:] = 100.0
    found = made(plane=Size(8, 6)).to_frame(plane_map)
    assert found.shape == (12, 16)
    assert (found[:, :7] == 0).all()
    assert (found[:, 9:] == 100).all()


def test_a_polygon_that_crosses_itself_has_an_area_and_is_taken() -> None:
    bow = made(WHOLE, polygon=((0, 0), (20, 20), (20, 0), (0, 20)))
    assert bow.valid is not None
    assert bow.valid[10, 2]
    assert not bow.valid[2, 10]
