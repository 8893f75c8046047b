"""Pictures for people: the same colour means the same on every image."""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import scramble

from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.imaging.geometry import Crop, Region
from edge_runtime.imaging.maps import ListedRegion
from edge_runtime.imaging.overlay import displayable, heatmap, overlay

MAGENTA = [255, 64, 255]


def ramp(height: int = 20, width: int = 30) -> NDArray[np.float32]:
    return np.linspace(0, 10, height * width, dtype=np.float32).reshape(height, width)


def test_equal_values_have_equal_colours_whatever_else_is_on_the_map() -> None:
    quiet, loud = ramp(), ramp()
    loud[0, :] = 1000.0
    assert np.array_equal(heatmap(quiet, 0.0, 10.0)[1:], heatmap(loud, 0.0, 10.0)[1:])
    assert not np.array_equal(heatmap(quiet, 0.0, 10.0), heatmap(quiet, 0.0, 20.0))


def test_low_is_dark_blue_high_is_dark_red_and_values_beyond_are_no_different() -> None:
    colours = heatmap(np.array([[-5.0, 0.0, 10.0, 15.0, np.inf]], np.float32), 0.0, 10.0)[0].astype(int)
    assert np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[2], colours[3])
    assert np.array_equal(colours[2], colours[4])
    assert colours[1][2] > colours[1][0]  # blue over red
    assert colours[2][0] > colours[2][2]
    assert colours[[0, 2]].max() < 140


@pytest.mark.parametrize("value", [7.0, 1000.0, -3.0])
def test_a_range_of_one_value_parts_the_values_below_from_those_above(value: float) -> None:
    colours = heatmap(np.array([[value - 500, value, value + 500]], np.float32), value, value)[0]
    ends = heatmap(np.array([[0.0, 1.0]], np.float32), 0.0, 1.0)[0]
    assert np.array_equal(colours, ends[[0, 0, 1]])


def test_what_was_not_inspected_stays_grey() -> None:
    frame = Frame(scramble(20, 30, 3), PixelFormat.RGB8)
    frame_map = ramp()
    frame_map[5:10, 5:10] = np.nan
    picture = overlay(frame, frame_map, low=0.0, high=10.0, regions=())
    assert picture.dtype == np.uint8
    assert picture.shape == (20, 30, 3)
    coloured = np.ptp(picture.astype(int), axis=2) > 0
    assert not coloured[5:10, 5:10].any()
    coloured[5:10, 5:10] = True
    assert coloured.mean() > 0.9
    assert picture[5:10, 5:10].max() <= 127  # darkened, so that it is not taken for a grey part


def test_every_listed_region_is_outlined_and_its_inside_left_open() -> None:
    regions = tuple(
        ListedRegion(name="all", x=x, y=y, width=8, height=6, area_px=48, peak=9.0) for x, y in ((2, 3), (15, 10))
    )
    frame = Frame(np.full((20, 30), 90, np.uint8), PixelFormat.MONO8)
    magenta = (overlay(frame, ramp(), low=0.0, high=10.0, regions=regions) == MAGENTA).all(axis=2)
    expected = np.zeros((20, 30), np.bool_)
    for x, y in ((2, 3), (15, 10)):
        expected[y : y + 6, x : x + 8] = True
        expected[y + 1 : y + 5, x + 1 : x + 7] = False
    assert np.array_equal(magenta, expected)


def test_the_frame_shows_through_the_colours() -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:, 15:] = 200
    picture = overlay(
        Frame(pixels, PixelFormat.MONO8), np.zeros((20, 30), np.float32), low=0.0, high=10.0, regions=()
    ).astype(int)
    assert np.abs(picture[:, 15:] - picture[:, :15] - 100).max() <= 1


@pytest.mark.parametrize("stated", list(PixelFormat))
def test_frames_of_all_formats_can_be_shown(stated: PixelFormat) -> None:
    pixels = scramble(20, 30, stated.channels, stated.dtype.type) >> (8 * stated.dtype.itemsize - stated.depth)
    shown = displayable(Frame(pixels, stated))
    assert shown.dtype == np.uint8
    assert shown.shape == (20, 30, 3)
    picture = overlay(Frame(pixels, stated), ramp(), low=0.0, high=10.0, regions=())
    assert picture.shape == (20, 30, 3)


def test_eight_bit_colours_are_shown_as_they_are_and_bgr_in_its_true_colours() -> None:
    rgb = scramble(20, 30, 3)
    assert np.array_equal(displayable(Frame(rgb, PixelFormat.RGB8)), rgb)
    assert np.array_equal(displayable(Frame(rgb[:, :, ::-1], PixelFormat.BGR8)), rgb)


def test_sixteen_bit_frames_are_stretched_to_their_own_range_and_black_stays_black() -> None:
    pixels = np.array([[0, 1023, 2046, 4092]], np.uint16)
    assert displayable(Frame(pixels, PixelFormat.MONO16))[0, :, 0].tolist() == [0, 63, 127, 255]
    assert not displayable(Frame(np.zeros((2, 2), np.uint16), PixelFormat.MONO16)).any()


def test_what_is_inspected_is_outlined_and_a_whole_frame_is_not() -> None:
    frame = Frame(np.full((60, 80), 90, np.uint8), PixelFormat.MONO8)
    square = np.zeros((30, 40), np.bool_)
    square[5:25, 8:32] = True
    whole = Region(name="all", crop=Crop(0, 0, 80, 60), plane=Size(80, 60), valid=None)
    boxed = Region(name="box", crop=Crop(50, 2, 70, 20), plane=Size(20, 18), valid=None)
    masked = Region(name="cap", crop=Crop(4, 24, 44, 54), plane=Size(40, 30), valid=square)

    def white(*inspected: Region) -> NDArray[np.bool_]:
        drawn = overlay(frame, ramp(60, 80), low=0.0, high=10.0, regions=(), inspected=inspected)
        return np.asarray((drawn == 255).all(axis=2))

    assert not white(whole).any()
    box = np.zeros((60, 80), np.bool_)
    box[2:20, 50:70] = True
    box[3:19, 51:69] = False
    assert np.array_equal(white(boxed), box)
    both = white(boxed, masked)
    for x, y in ((12, 40), (35, 40), (20, 29), (20, 48), (50, 10), (69, 10)):
        assert both[y, x], (x, y)
    assert not both[44:48, 16:32].any()  # below the name the inside stays open for the heatmap
