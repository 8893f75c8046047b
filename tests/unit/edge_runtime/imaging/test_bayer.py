"""Demosaicing: each pattern against a mosaic made by hand, and against the rule in plain whole numbers."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.toys import scramble

from edge_runtime.errors import DataError
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION, demosaic
from edge_runtime.imaging.formats import Pattern, PixelFormat
from edge_runtime.imaging.frames import Frame

RED, GREEN, BLUE = 0, 1, 2
TILES: dict[Pattern, tuple[tuple[int, int], tuple[int, int]]] = {
    "rg": ((RED, GREEN), (GREEN, BLUE)),
    "gr": ((GREEN, RED), (BLUE, GREEN)),
    "gb": ((GREEN, BLUE), (RED, GREEN)),
    "bg": ((BLUE, GREEN), (GREEN, RED)),
}
every_pattern = pytest.mark.parametrize("pattern", list(TILES))


def sensor(colours: NDArray[np.uint16], pattern: Pattern) -> NDArray[np.uint16]:
    """(H, W, 3) -> (H, W): what a sensor with that pattern sees of a scene."""
    mosaic = np.empty(colours.shape[:2], colours.dtype)
    for row in (0, 1):
        for column in (0, 1):
            mosaic[row::2, column::2] = colours[row::2, column::2, TILES[pattern][row][column]]
    return mosaic


def by_the_rule(mosaic: NDArray[np.uint16], pattern: Pattern) -> NDArray[np.uint16]:
    """The same, pixel by pixel: the mean of the nearest pixels of a colour, halves rounded up."""
    around = np.pad(mosaic.astype(np.int64), 2, mode="reflect")
    result = np.empty((*mosaic.shape, 3), mosaic.dtype)
    for row in range(mosaic.shape[0]):
        for column in range(mosaic.shape[1]):
            for colour in (RED, GREEN, BLUE):
                result[row, column, colour] = mean_of_nearest(around, row, column, colour, pattern)
    return result


def mean_of_nearest(around: NDArray[np.int64], row: int, column: int, colour: int, pattern: Pattern) -> int:
    def sees(down: int, right: int) -> bool:
        return TILES[pattern][(row + down) % 2][(column + right) % 2] == colour

    for steps in ([(0, 0)], [(-1, 0), (1, 0), (0, -1), (0, 1)], [(-1, -1), (-1, 1), (1, -1), (1, 1)]):
        near = [int(around[row + 2 + down, column + 2 + right]) for down, right in steps if sees(down, right)]
        if near:
            return (sum(near) + len(near) // 2) // len(near)
    raise AssertionError


@every_pattern
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_scene_of_one_colour_comes_back_as_it_was(pattern: Pattern, dtype: type) -> None:
    scene = np.broadcast_to(np.array([200, 30, 77], dtype), (6, 8, 3))
    assert np.array_equal(demosaic(sensor(scene, pattern), pattern), scene)


@every_pattern
def test_a_pixel_keeps_the_colour_that_it_saw_and_gets_the_means_of_its_neighbours(pattern: Pattern) -> None:
    scene = (scramble(6, 8, 3, np.uint16) >> 4).astype(np.uint16)
    mosaic = sensor(scene, pattern)
    colours = demosaic(mosaic, pattern)
    assert np.array_equal(sensor(colours, pattern), mosaic)
    row, column = next((r, c) for r in (2, 3) for c in (2, 3) if TILES[pattern][r % 2][c % 2] == RED)
    cross = int(scene[row - 1, column, 1]) + scene[row + 1, column, 1] + scene[row, column - 1, 1]
    assert colours[row, column, GREEN] == (cross + scene[row, column + 1, 1] + 2) // 4
    corners = [int(scene[row + down, column + right, BLUE]) for down in (-1, 1) for right in (-1, 1)]
    assert colours[row, column, BLUE] == (sum(corners) + 2) // 4


@given(
    height=st.integers(2, 21),
    width=st.integers(2, 40),
    pattern=st.sampled_from(list(TILES)),
    wide=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_mosaic_comes_out_by_the_rule_bit_for_bit(
    *, height: int, width: int, pattern: Pattern, wide: bool, seed: int
) -> None:
    dtype, top = (np.uint16, 65536) if wide else (np.uint8, 256)
    mosaic = np.random.default_rng(seed).integers(0, top, (height, width)).astype(dtype)
    assert np.array_equal(demosaic(mosaic, pattern), by_the_rule(mosaic, pattern))


@pytest.mark.parametrize(("size", "what"), [((1, 8), "8x1"), ((8, 1), "1x8"), ((1, 1), "1x1")])
def test_a_mosaic_that_lacks_a_colour_altogether_is_refused(size: tuple[int, int], what: str) -> None:
    with pytest.raises(DataError, match=f"frame is {what}, a mosaic has 2x2 pixels at least"):
        Frame(np.zeros(size, np.uint8), PixelFormat.BAYER_RG8).as_format(PixelFormat.RGB8)


@every_pattern
@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_a_frame_knows_its_pattern_by_its_formats_name(pattern: Pattern, depth: int) -> None:
    stated = PixelFormat(f"bayer{pattern}{depth}")
    scene = np.broadcast_to(np.array([200, 30, 77], stated.dtype), (6, 8, 3))
    mosaic = Frame(sensor(scene, pattern), stated)
    assert np.array_equal(mosaic.as_format(PixelFormat(f"rgb{depth}")), scene)


@pytest.mark.parametrize(
    ("version", "dtype", "digest"),
    [(1, np.uint8, "af32253be8e007b8"), (1, np.uint16, "4e4040da4b2d7cff")],
)
def test_colours_are_the_same_bytes_on_every_machine(version: int, dtype: type, digest: str) -> None:
    mosaic = scramble(37, 53, 1, dtype)
    found = b"".join(np.ascontiguousarray(demosaic(mosaic, pattern)).astype(">u2").tobytes() for pattern in TILES)
    assert hashlib.sha256(found).hexdigest()[:16] == digest
    assert version == DEMOSAIC_VERSION, "the version changed: record new digests beside the old"
