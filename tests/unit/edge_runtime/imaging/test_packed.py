"""Packed pixels: what a camera squeezed together comes apart as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.packed import unpack

PACKABLE = [form for form in PixelFormat if form.depth in {10, 12} and form.channels == 1]


def packed(pixels: list[int], depth: int) -> bytes:
    """PFNC's `p`: one stream of bits, the lowest of the first pixel first."""
    stream = sum(pixel << (depth * index) for index, pixel in enumerate(pixels))
    return stream.to_bytes(-(-len(pixels) * depth // 8), "little")


@pytest.mark.parametrize(
    ("data", "form", "expected"),
    [
        (bytes([0x21, 0x43, 0x65]), PixelFormat.MONO12, [0x321, 0x654]),
        (bytes([0x01, 0x08, 0x30, 0x00, 0x01]), PixelFormat.MONO10, [1, 2, 3, 4]),
        (bytes([0xFF, 0x03, 0x00, 0xC0, 0xFF]), PixelFormat.MONO10, [1023, 0, 0, 1023]),
    ],
)
def test_bytes_of_the_standards_tables_come_apart(data: bytes, form: PixelFormat, expected: list[int]) -> None:
    frame = unpack(data, Size(len(expected), 1), form)
    assert frame.pixels.tolist() == [expected]
    assert (frame.format, frame.pixels.dtype) == (form, np.uint16)


@given(form=st.sampled_from(PACKABLE), width=st.integers(1, 13), height=st.integers(1, 7), data=st.data())
def test_what_was_packed_comes_back(form: PixelFormat, width: int, height: int, data: st.DataObject) -> None:
    level = st.integers(0, 2**form.depth - 1)
    pixels = data.draw(st.lists(level, min_size=width * height, max_size=width * height))
    frame = unpack(packed(pixels, form.depth), Size(width, height), form)
    assert frame.pixels.reshape(-1).tolist() == pixels
    assert frame.size == (width, height)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_buffer_of_another_length_is_refused_with_both(length: int) -> None:
    with pytest.raises(DataError, match=f"{length} bytes of packed mono12, expected 12 for 4x2"):
        unpack(bytes(length), Size(4, 2), PixelFormat.MONO12)


@pytest.mark.parametrize("form", [form for form in PixelFormat if form not in PACKABLE])
def test_a_format_without_a_packed_form_is_refused(form: PixelFormat) -> None:
    with pytest.raises(DataError, match=f"{form}: has no packed form"):
        unpack(bytes(12), Size(4, 2), form)
