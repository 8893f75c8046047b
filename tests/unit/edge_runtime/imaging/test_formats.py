"""Pixel formats: their names are GenICam's and on the wire, so they are pinned; what follows from a name is not."""

import pytest

from edge_runtime.imaging.formats import PixelFormat, parse_pixel_format

DEPTHS = (8, 10, 12, 14, 16)
LAYOUTS = ("mono", "rgb", "bgr", "bayerrg", "bayergr", "bayergb", "bayerbg")


def test_the_names_are_those_that_cameras_use_in_small_letters() -> None:
    assert [str(known) for known in PixelFormat] == [f"{layout}{depth}" for layout in LAYOUTS for depth in DEPTHS]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_name_says_channels_word_depth_and_what_graphs_take(layout: str, depth: int) -> None:
    known = PixelFormat(f"{layout}{depth}")
    assert known.channels == (3 if layout in {"rgb", "bgr"} else 1)
    assert known.dtype.itemsize == (1 if depth == 8 else 2)
    assert known.depth == depth
    assert known.canonical == f"{'mono' if layout == 'mono' else 'rgb'}{depth}"
    assert known.pattern == (layout.removeprefix("bayer") if layout.startswith("bayer") else None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("Mono12", "mono12"), ("BayerRG8", "bayerrg8"), ("BAYERGB16", "bayergb16"), ("rgb10", "rgb10")],
)
def test_a_name_is_read_as_data_sheets_write_it(written: str, expected: str) -> None:
    assert parse_pixel_format(written) == expected


@pytest.mark.parametrize("written", ["", "mono", "Mono12p", "Mono9", "bayer12", "YUV422_8", "Mono12Packed"])
def test_a_name_that_is_none_is_refused_with_what_there_is(written: str) -> None:
    with pytest.raises(ValueError, match=r"is no pixel format: Mono, RGB, .* such as Mono12 or BayerRG8"):
        parse_pixel_format(written)
