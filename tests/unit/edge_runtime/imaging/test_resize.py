"""Resizing: the same bytes on every machine, for ever."""

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import scramble

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.resize import RESIZE_VERSION, resize

GOLDEN: dict[tuple[int, str, tuple[int, int], int], str] = {  # version, type, size, channels
    (1, "uint8", (41, 23), 3): "d39c21dca4286e51e9f054156080036b736050af362ad2f4716579df0da224ad",
    (1, "uint8", (20, 47), 1): "df8dc38ce4a6e86e605b5ee74c45ab758ed6652466577b7f0f6a56348de44f59",
    (1, "uint8", (83, 12), 3): "bb87739ef50cd0677cedbd49b4a3b959996f4d7da8d2a08ff6f0302ab836c593",
    (1, "uint8", (166, 94), 1): "b679668c8af6c13bd6265e5268c73a861fb23b3612bf4f6c8798ab164aaf1a71",
    (1, "uint8", (31, 130), 3): "8d92c23557a27c1b820490efe27a414ef1cdb8c9436d8b20954985045a01f77f",
    (1, "uint8", (1, 1), 3): "3a6077662b902f94f9ad5215b2640c77d574143cc3046450ac2df031e8cf3d4d",
    (1, "uint8", (7, 5), 1): "0296c3048713e914000a1a6739542e94013fb4442b027ad937d2ca023b324197",
    (1, "uint16", (41, 23), 3): "4ef82451dfba34fdc306d33740a10e14fbbc88e50e2fe151f603a100eb2c33a4",
    (1, "uint16", (20, 47), 1): "2be1a092d5c89e8d0e88af93edd92e3012399b49497bfdd6e56be765ea4cbb3a",
    (1, "uint16", (83, 12), 3): "7d0f53aeb9ccbf8de79e4f05a94d0d792c6488ce3c09ef07d0cc4e4628e2660d",
    (1, "uint16", (166, 94), 1): "f098cf44455bb18099715fed65cab210cc439eeac3f6ae95aa6f6934570dd953",
    (1, "uint16", (31, 130), 3): "05612636e1f9ede73e157214cd13f2c0c58fb7fc1065db5357f820eacdfe53cb",
    (1, "uint16", (1, 1), 3): "3d6b1d19429e680c244ecdd1a1f6a58a2bace2d290bb7d201e428934b0301512",
    (1, "uint16", (7, 5), 1): "ce09bcd011d52b260f4d53a799aa59731a6675df65f5680a8469f2a365404efd",
}


def triangle(pixels: NDArray[Any], size: Size) -> NDArray[np.float64]:
    """The antialiased triangle filter as its definition says, in float64 and with full matrices."""

    def weights(source: int, target: int) -> NDArray[np.float64]:
        centres = (np.arange(target)[:, np.newaxis] + 0.5) * source / target
        reach = max(source / target, 1.0)
        heights = np.maximum(0.0, 1.0 - np.abs(np.arange(source) + 0.5 - centres) / reach)
        return heights / heights.sum(axis=1, keepdims=True)

    rows, columns = weights(pixels.shape[0], size.height), weights(pixels.shape[1], size.width)
    return np.einsum("yi,xj,ijc->yxc", rows, columns, pixels.astype(np.float64), optimize=True)


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_resized_pixels_are_those_of_the_recorded_version_to_the_last_bit(
    case: tuple[int, str, tuple[int, int], int],
) -> None:
    version, dtype, size, channels = case
    assert version == RESIZE_VERSION, "the version changed: record new digests beside the old"
    resized = resize(scramble(47, 83, channels, np.dtype(dtype).type), Size(*size))
    assert resized.shape == (size[1], size[0], channels)
    assert resized.dtype == dtype
    found = hashlib.sha256(resized.astype(resized.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert found == GOLDEN[case]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [Size(41, 23), Size(20, 47), Size(83, 12), Size(166, 94), Size(31, 130), Size(1, 1)])
def test_resized_pixels_are_within_one_grey_level_of_the_exact_filter(dtype: type, size: Size) -> None:
    top = int(np.iinfo(dtype).max)
    noise = scramble(47, 83, 3, dtype)
    stripes = np.broadcast_to(np.where(np.arange(83) % 2, top, 0)[None, :, None], (47, 83, 1)).astype(dtype)
    edge = np.broadcast_to(np.where(np.arange(47) < 20, 0, top)[:, None, None], (47, 83, 1)).astype(dtype)
    for pixels in (noise, noise // 2 * 2, stripes, edge):
        off = np.abs(resize(pixels, size) - triangle(pixels, size)).max()
        assert off <= (1.0 if dtype == np.uint8 else 257.0)  # a grey level is 1 of 255 steps


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("size", [Size(10, 7), Size(200, 1), Size(99, 130)])
def test_a_constant_image_stays_constant(value: int, size: Size) -> None:
    assert (resize(np.full((47, 83, 1), value, np.uint8), size) == value).all()
    wide = value * 257
    assert (resize(np.full((47, 83, 1), wide, np.uint16), size) == wide).all()


def test_the_same_size_gives_the_same_pixels() -> None:
    pixels = scramble(47, 83, 3)
    assert np.array_equal(resize(pixels, Size(83, 47)), pixels)


def test_width_and_height_are_scaled_apart() -> None:
    pixels = np.zeros((40, 80, 1), np.uint8)
    pixels[:, 40:] = 200
    resized = resize(pixels, Size(8, 20))
    assert resized.shape == (20, 8, 1)
    assert (resized[:, :3] == 0).all()
    assert (resized[:, 5:] == 200).all()


def test_shrinking_averages_and_does_not_pick_pixels() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, np.newaxis]
    inner = resize(checks, Size(16, 16))[1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_memory_layout_of_the_pixels_does_not_matter(dtype: type) -> None:
    pixels = scramble(47, 83, 3, dtype)
    expected = resize(pixels, Size(30, 101))
    framed = np.zeros((60, 100, 3), dtype)
    framed[5:52, 9:92] = pixels
    layouts = {
        "fortran": np.asfortranarray(pixels),
        "window": framed[5:52, 9:92],
        "reversed": np.ascontiguousarray(pixels[:, :, ::-1])[:, :, ::-1],
        "strided": np.repeat(np.repeat(pixels, 2, axis=0), 3, axis=1)[::2, ::3],
        "upside down": np.ascontiguousarray(pixels[::-1])[::-1],
    }
    for name, layout in layouts.items():
        assert np.array_equal(resize(layout, Size(30, 101)), expected), name


def test_the_input_is_left_as_it_was() -> None:
    pixels = scramble(47, 83, 1)
    before = pixels.copy()
    resize(pixels, Size(10, 10))
    assert np.array_equal(pixels, before)
