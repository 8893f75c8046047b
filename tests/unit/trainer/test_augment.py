"""What a tile is seen as besides itself."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Pixels
from trainer.data.augment import GAIN, OFFSET, Augmentation, Views

STRIDE = 4


def tile(height: int = 16, width: int = 16) -> tuple[Pixels, NDArray[np.bool_]]:
    """Black but for one white cell, the one cell that counts."""
    pixels, kept = np.zeros((height, width, 1), np.uint8), np.zeros((height // STRIDE, width // STRIDE), np.bool_)
    kept[0, 1] = True
    pixels[:STRIDE, STRIDE : 2 * STRIDE] = 200
    return pixels, kept


def where(pixels: Pixels) -> NDArray[np.bool_]:
    """The cells that are white."""
    height, width = pixels.shape[0] // STRIDE, pixels.shape[1] // STRIDE
    return np.asarray(pixels.reshape(height, STRIDE, width, STRIDE).min(axis=(1, 3)) > 150)


@pytest.mark.parametrize("kind", list(Augmentation))
def test_the_cells_that_count_go_where_the_pixels_go(kind: Augmentation) -> None:
    for number in range(20):
        whole, other = Views(kinds=(kind,), seed=3).of(*tile(), (number,))
        assert np.array_equal(whole[0], tile()[0])
        assert np.array_equal(where(other[0]), other[1])
        assert other[0].dtype == np.uint8
        assert (not np.array_equal(other[1], whole[1])) == kind.moves


def test_flips_swap_the_sides_that_their_names_say() -> None:
    _, left, up = Views(kinds=(Augmentation.FLIP_X, Augmentation.FLIP_Y)).of(*tile(8, 16), (0,))
    assert left[1].tolist() == [[False, False, True, False], [False] * 4]
    assert up[1].tolist() == [[False] * 4, [False, True, False, False]]


def test_turns_are_by_one_two_and_three_right_angles() -> None:
    turned = [list(Views(kinds=(Augmentation.TURN,)).of(*tile(), (number,)))[1][1] for number in range(30)]
    assert {tuple(np.argwhere(kept)[0].tolist()) for kept in turned} == {(2, 0), (3, 2), (1, 3)}


def test_a_light_stays_near_the_tile_and_below_the_sensors_white() -> None:
    pixels = np.full((8, 8, 1), 2000, np.uint16)
    pixels[0] = 4095
    seen = []
    for number in range(50):
        _, (lit, _) = Views(kinds=(Augmentation.LIGHT,), white=4095).of(pixels, np.ones((2, 2), np.bool_), (number,))
        assert lit.dtype == np.uint16
        assert lit.max() <= 4095
        assert abs(int(lit[1, 0, 0]) - 2000) <= 2000 * GAIN + 4095 * OFFSET + 1
        seen.append(int(lit[1, 0, 0]))
    assert min(seen) < 1950
    assert max(seen) > 2050
    assert any(first != second for first, second in pairwise(seen))


def test_what_is_drawn_depends_on_seed_and_place_alone() -> None:
    pixels, kept = tile()
    kinds = (Augmentation.LIGHT, Augmentation.TURN)

    def lit(seed: int, place: int, kinds: tuple[Augmentation, ...] = kinds) -> bytes:
        views = dict(zip((None, *kinds), Views(kinds=kinds, seed=seed).of(pixels, kept, (place,)), strict=True))
        return views[Augmentation.LIGHT][0].tobytes()

    assert lit(0, 5) == lit(0, 5) == lit(0, 5, kinds[:1])  # other kinds beside it change nothing
    assert len({lit(0, 5), lit(1, 5), lit(0, 6)}) == 3
