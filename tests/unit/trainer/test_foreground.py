"""What of a plane shows the part, and how much of it each core holds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.tiles import TilePlan
from trainer.data.foreground import core_shares, otsu_foreground

PART = (slice(10, 30), slice(12, 40))


def plane(background: int, part: int, *, dtype: type = np.uint8, channels: int = 1) -> NDArray[Any]:
    """(48, 64, C) of two values."""
    pixels = np.full((48, 64, channels), background, dtype)
    pixels[PART] = part
    return pixels


def drawn(*places: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros((48, 64), np.bool_)
    for place in places:
        mask[place] = True
    return mask


@pytest.mark.parametrize(("background", "part"), [(20, 200), (200, 20), (100, 104)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_part_is_what_differs_from_the_border_be_it_brighter_or_darker(
    background: int, part: int, channels: int
) -> None:
    assert np.array_equal(otsu_foreground(plane(background, part, channels=channels)), drawn(PART))


def test_sixteen_bits_are_told_apart_below_the_eighth() -> None:
    assert np.array_equal(otsu_foreground(plane(3000, 3050, dtype=np.uint16)), drawn(PART))


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_plane_of_one_value_has_no_part(value: int) -> None:
    assert not otsu_foreground(plane(value, value)).any()


def test_specks_below_three_by_three_are_removed_and_three_by_three_stay() -> None:
    pixels = plane(20, 20)
    pixels[5, 5] = pixels[20:22, 20:22] = pixels[30:33, 30:33] = pixels[40, 10:60] = 200
    assert np.array_equal(otsu_foreground(pixels), drawn((slice(30, 33), slice(30, 33))))


def test_a_part_that_touches_the_border_keeps_its_rim() -> None:
    pixels = plane(20, 20)
    pixels[:, :20] = 200
    assert np.array_equal(otsu_foreground(pixels), drawn((slice(None), slice(0, 20))))


def test_where_both_sides_hold_as_much_of_the_border_the_darker_one_is_background() -> None:
    pixels = plane(20, 20)
    pixels[:, :32] = 200
    assert np.array_equal(otsu_foreground(pixels), drawn((slice(None), slice(0, 32))))


def test_a_share_is_of_the_cores_pixels_on_the_plane() -> None:
    plan = TilePlan(plane=Size(40, 24), core=Size(16, 16), halo=0, stride=8)  # last column 8 wide, last row 8 high
    mask = np.zeros((24, 40), np.bool_)
    mask[:8, :16] = True  # half of tile 0
    mask[:, 32:] = True  # all of tiles 2 and 5
    mask[16:, 16:20] = True  # a quarter of tile 4
    assert core_shares(plan, mask).tolist() == [0.5, 0.0, 1.0, 0.0, 0.25, 1.0]
