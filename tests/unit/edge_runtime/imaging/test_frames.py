"""Frames: what files and cameras may give, and that nothing else gets through."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import scramble

from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Frame, PixelFormat, decode_png, encode_png, read_image, read_mask

WEBP_LOSSLESS = (cv2.IMWRITE_WEBP_QUALITY, 101)
UNCOMPRESSED = (cv2.IMWRITE_TIFF_COMPRESSION, 1)

LOSSLESS = {
    "grey.png": (1, np.uint8, ()),
    "grey16.png": (1, np.uint16, ()),
    "colour.png": (3, np.uint8, ()),
    "colour16.png": (3, np.uint16, ()),
    "grey.bmp": (1, np.uint8, ()),
    "colour.bmp": (3, np.uint8, ()),
    "grey.tiff": (1, np.uint8, ()),
    "grey16.tiff": (1, np.uint16, ()),
    "colour.tiff": (3, np.uint8, ()),
    "colour16.tiff": (3, np.uint16, ()),
    "plain.tif": (3, np.uint8, UNCOMPRESSED),
    "colour.webp": (3, np.uint8, WEBP_LOSSLESS),
    "grey.pgm": (1, np.uint8, ()),
    "grey16.pgm": (1, np.uint16, ()),
    "colour.ppm": (3, np.uint8, ()),
}
FORMATS = {
    (1, np.uint8): PixelFormat.MONO8,
    (1, np.uint16): PixelFormat.MONO16,
    (3, np.uint8): PixelFormat.RGB8,
    (3, np.uint16): PixelFormat.RGB16,
}
LOSSY = {
    "colour.jpg": (3, np.uint8, ()),
    "grey.jpg": (1, np.uint8, ()),
    "progressive.jpg": (3, np.uint8, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "lossy.webp": (3, np.uint8, (cv2.IMWRITE_WEBP_QUALITY, 80)),
}
WHOLE = LOSSLESS | LOSSY


def encoded(name: str, pixels: NDArray[Any], settings: tuple[int, ...] = ()) -> bytes:
    """A file's bytes, as another program would write them; colour pixels are RGB."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    done, data = cv2.imencode("." + name.rpartition(".")[2], np.ascontiguousarray(pixels[:, :, order]), list(settings))
    assert done
    return data.tobytes()


def whole_file(name: str) -> bytes:
    channels, dtype, settings = WHOLE[name]
    return encoded(name, scramble(24, 32, channels, dtype), settings)


def assert_refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as refusal:
        read_image(path)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "lies here"
    made.mkdir()
    return made


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_gives_exactly_the_pixels_that_were_saved(folder: Path, name: str) -> None:
    channels, dtype, settings = LOSSLESS[name]
    pixels = scramble(24, 32, channels, dtype)
    (folder / name).write_bytes(encoded(name, pixels, settings))
    frame = read_image(folder / name)
    assert frame.size == (32, 24)
    assert np.array_equal(frame.as_format(FORMATS[channels, dtype]), pixels)


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_file_gives_about_the_pixels_that_were_saved(folder: Path, name: str) -> None:
    channels, dtype, settings = LOSSY[name]
    pixels = np.full((24, 32, channels), 90, dtype)
    pixels[:, 16:, 0] = 200
    (folder / name).write_bytes(encoded(name, pixels, settings))
    read = read_image(folder / name).as_format(FORMATS[channels, dtype])
    assert np.abs(read[:, [4, 28]].astype(int) - pixels[:, [4, 28]]).max() <= 6


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_refused_by_name_wherever_it_was_cut(folder: Path, name: str) -> None:
    data = whole_file(name)
    for kept in (1, 2, 8, len(data) // 4, len(data) // 2, 3 * len(data) // 4, 9 * len(data) // 10):
        assert "truncated" in assert_refused(folder / name, data[:kept])
        with pytest.raises(DataError, match=f"lies here/{name}: .*truncated"):
            read_mask(folder / name)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_without_its_last_byte_is_refused_or_the_same_picture(folder: Path, name: str) -> None:
    data, path = whole_file(name), folder / name
    path.write_bytes(data)
    whole = read_image(path)
    path.write_bytes(data[:-1])
    try:
        frame = read_image(path)
    except DataError as refusal:
        assert str(path) in str(refusal)  # noqa: PT017 - a TIFF's last byte may hold no pixel
    else:
        assert np.array_equal(frame.pixels, whole.pixels)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_whose_beginning_is_overwritten_is_refused_by_name(folder: Path, name: str) -> None:
    assert_refused(folder / name, bytes(16) + whole_file(name)[16:])


@pytest.mark.parametrize("name", ["colour.png", "grey16.png"])
def test_a_png_with_one_changed_byte_is_refused_or_the_same_picture(folder: Path, name: str) -> None:
    data, path = whole_file(name), folder / name
    channels, dtype, _ = LOSSLESS[name]
    refused = 0
    for place in range(16, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            frame = read_image(path)
        except DataError:
            refused += 1
        else:
            assert np.array_equal(frame.as_format(FORMATS[channels, dtype]), scramble(24, 32, channels, dtype))
    assert refused > 20


@pytest.mark.parametrize("name", ["colour.jpg", "progressive.jpg"])
def test_a_jpeg_whose_second_half_was_never_written_is_refused(folder: Path, name: str) -> None:
    data = whole_file(name)
    assert_refused(folder / name, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".pgm"])
def test_an_empty_file_is_refused_by_name(folder: Path, suffix: str) -> None:
    assert "0 bytes" in assert_refused(folder / f"empty{suffix}", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".pgm"])
def test_a_file_that_is_no_image_is_refused_by_name(folder: Path, suffix: str) -> None:
    assert "not an image" in assert_refused(folder / f"notes{suffix}", b"Shift 2: camera cleaned, belt stopped.\n" * 40)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".webp"])
def test_an_image_with_an_alpha_channel_is_refused_by_name(folder: Path, suffix: str, dtype: type) -> None:
    if dtype is np.uint16 and suffix in {".bmp", ".webp"}:
        dtype = np.uint8  # these formats have no other depth
    message = assert_refused(folder / f"x{suffix}", encoded(suffix, scramble(24, 32, 4, dtype)))
    assert "(24, 32, 4)" in message
    assert "alpha" in message


def test_a_portable_map_of_four_channels_is_refused_by_name(folder: Path) -> None:
    header = b"P7\nWIDTH 4\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    assert "alpha" in assert_refused(folder / "four.pgm", header + bytes(range(32)))


def test_an_image_of_floats_is_refused_by_name(folder: Path) -> None:
    path = folder / "float.tiff"
    path.write_bytes(encoded(".tiff", scramble(24, 32, 1).astype(np.float32)))
    with pytest.raises(DataError, match=r"float\.tiff: pixels are float32"):
        read_image(path)


def test_a_header_that_promises_gigapixels_is_refused_by_name(folder: Path) -> None:
    assert "cannot be decoded" in assert_refused(folder / "huge.pgm", b"P5\n600000 600000\n255\n")


def test_a_missing_file_and_a_folder_are_refused_by_name(folder: Path) -> None:
    for path in (folder / "gone.png", folder):
        with pytest.raises(DataError, match=r"lies here.*cannot be read"):
            read_image(path)
        with pytest.raises(DataError, match=r"lies here.*cannot be read"):
            read_mask(path)


def test_twelve_bit_values_in_a_sixteen_bit_file_are_not_stretched(folder: Path) -> None:
    values = np.arange(4096, dtype=">u2")
    (folder / "twelve.pgm").write_bytes(b"P5\n64 64\n4095\n" + values.tobytes())
    frame = read_image(folder / "twelve.pgm")
    assert frame.format is PixelFormat.MONO16
    assert np.array_equal(frame.pixels, np.arange(4096, dtype=np.uint16).reshape(64, 64))


def test_an_orientation_tag_does_not_turn_the_sensors_pixels(folder: Path) -> None:
    plain = encoded(".jpg", scramble(24, 32, 3))
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<I", 0)
    exif = b"Exif\0\0" + tiff
    tagged = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (32, 24, 3)  # the tag is seen
    (folder / "plain.jpg").write_bytes(plain)
    (folder / "tagged.jpg").write_bytes(tagged)
    assert np.array_equal(read_image(folder / "tagged.jpg").pixels, read_image(folder / "plain.jpg").pixels)


@pytest.mark.parametrize(
    ("name", "channels", "dtype"), [("m.png", 1, np.uint8), ("m.png", 3, np.uint8), ("m.png", 4, np.uint8)]
)
def test_a_mask_of_any_channel_count_is_true_where_a_colour_is_above_zero(
    folder: Path, name: str, channels: int, dtype: type
) -> None:
    for channel in range(min(channels, 3)):
        pixels = np.zeros((24, 32, channels), dtype)
        pixels[2:5, 3:9, channel] = 1
        (folder / name).write_bytes(encoded(name, pixels))
        mask = read_mask(folder / name)
        expected = np.zeros((24, 32), np.bool_)
        expected[2:5, 3:9] = True
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, expected)


def test_a_sixteen_bit_mask_is_not_reduced_to_eight(folder: Path) -> None:
    pixels = np.zeros((24, 32, 1), np.uint16)
    pixels[7, 9] = 1
    (folder / "m.png").write_bytes(encoded(".png", pixels))
    assert read_mask(folder / "m.png").sum() == 1


def test_an_opaque_black_mask_marks_nothing(folder: Path) -> None:
    pixels = np.zeros((24, 32, 4), np.uint8)
    pixels[:, :, 3] = 255
    (folder / "m.png").write_bytes(encoded(".png", pixels))
    assert not read_mask(folder / "m.png").any()


@pytest.mark.parametrize("stated", list(PixelFormat))
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 5), np.uint8),
        ((4, 5), np.uint16),
        ((4, 5, 1), np.uint8),
        ((4, 5, 1), np.uint16),
        ((4, 5, 3), np.uint8),
        ((4, 5, 3), np.uint16),
        ((4, 5, 2), np.uint8),
        ((4, 5, 4), np.uint8),
        ((0, 5), np.uint8),
        ((4, 0, 3), np.uint8),
        ((5,), np.uint8),
        ((1, 4, 5, 3), np.uint8),
        ((4, 5), np.int16),
        ((4, 5), np.float32),
        ((4, 5), np.bool_),
        ((4, 5), np.dtype(">u2")),
    ],
)
def test_a_frame_takes_only_the_shape_and_type_of_its_format(
    stated: PixelFormat, shape: tuple[int, ...], dtype: type
) -> None:
    word = np.uint8 if stated.endswith("8") else np.uint16
    fits = [((4, 5, 3), word)] if stated.startswith(("rgb", "bgr")) else [((4, 5), word), ((4, 5, 1), word)]
    pixels = np.zeros(shape, dtype)
    if (shape, dtype) in fits:
        assert Frame(pixels, stated).size == (5, 4)
    else:
        with pytest.raises(DataError, match=f"for {stated}"):
            Frame(pixels, stated)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mono_becomes_rgb_without_loss(dtype: type) -> None:
    pixels = scramble(24, 32, 1, dtype)
    target = FORMATS[3, dtype]
    for given in (pixels, pixels[:, :, 0]):
        colour = Frame(given, FORMATS[1, dtype]).as_format(target)
        assert colour.shape == (24, 32, 3)
        assert colour.dtype == dtype
        assert all(np.array_equal(colour[:, :, channel], pixels[:, :, 0]) for channel in range(3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bgr_becomes_rgb_by_its_order_only(dtype: type) -> None:
    pixels = scramble(24, 32, 3, dtype)
    bgr = {np.uint8: PixelFormat.BGR8, np.uint16: PixelFormat.BGR16}[dtype]
    assert np.array_equal(Frame(pixels, bgr).as_format(FORMATS[3, dtype]), pixels[:, :, ::-1])


@pytest.mark.parametrize("target", [form for form in PixelFormat if form.canonical is form])
@pytest.mark.parametrize("given", list(PixelFormat))
def test_a_frame_never_loses_colour_or_changes_depth(given: PixelFormat, target: PixelFormat) -> None:
    frame = Frame(scramble(4, 5, given.channels, given.dtype.type) >> (8 * given.dtype.itemsize - given.depth), given)
    deep_enough = given.depth == target.depth or (given.depth == 16 and target.depth > 8)
    if deep_enough and (target.startswith("rgb") or given.startswith("mono")):
        made = frame.converted(target)
        assert made.pixels.shape == (4, 5, target.channels)
        assert made.format.layout == target.layout
        assert made.format.depth == given.depth  # what promised no depth does not promise one afterwards
    else:
        said = given.canonical if given.startswith("bgr") else given  # the order of decoded files is nobody's choice
        with pytest.raises(DataError, match=f"frame is {said}, the bundle takes {target}: set the camera to "):
            frame.as_format(target)


@pytest.mark.parametrize(
    ("given", "target", "advice"),
    [
        (PixelFormat.MONO10, PixelFormat.MONO12, "set the camera to mono12, or build the bundle from mono10 images"),
        (
            PixelFormat.BAYER_GB10,
            PixelFormat.RGB12,
            "set the camera to bayergb12, or build the bundle from rgb10 images",
        ),
        (PixelFormat.BAYER_RG8, PixelFormat.MONO8, "set the camera to mono8, or build the bundle from rgb8 images"),
        (PixelFormat.BGR16, PixelFormat.RGB8, "set the camera to rgb8, or build the bundle from rgb16 images"),
    ],
)
def test_a_frame_of_another_depth_is_refused_with_what_to_set(
    given: PixelFormat, target: PixelFormat, advice: str
) -> None:
    with pytest.raises(DataError, match=advice):
        Frame(np.zeros((4, 6, given.channels), given.dtype), given).as_format(target)


@pytest.mark.parametrize("given", [form for form in PixelFormat if form.depth not in {8, 16}])
def test_a_frame_that_holds_more_than_it_promises_is_refused(given: PixelFormat) -> None:
    pixels = np.zeros((4, 6, given.channels), np.uint16)
    pixels[3, 5] = top = 2**given.depth - 1
    assert Frame(pixels, given).as_format(given.canonical).max() == top
    pixels[3, 5] = top + 1
    with pytest.raises(DataError, match=f"frame holds {top + 1}, {given} ends at {top}"):
        Frame(pixels, given).as_format(given.canonical)


def test_a_file_is_what_is_stated_of_it(folder: Path) -> None:
    mosaic = scramble(6, 8, 1, np.uint16)[:, :, 0] >> 4
    (folder / "raw.png").write_bytes(encode_png(mosaic))
    frame = read_image(folder / "raw.png", PixelFormat.BAYER_GR12)
    assert frame.format is PixelFormat.BAYER_GR12
    assert np.array_equal(frame.pixels, mosaic)

    colours = scramble(6, 8, 3, np.uint16) >> 4
    (folder / "colour.png").write_bytes(encode_png(colours))
    for stated in (PixelFormat.RGB12, PixelFormat.BGR12):  # files are decoded to one order whatever they say
        assert np.array_equal(read_image(folder / "colour.png", stated).as_format(PixelFormat.RGB12), colours)


@pytest.mark.parametrize(
    ("pixels", "stated", "said"),
    [
        (scramble(6, 8, 3), PixelFormat.BAYER_RG8, r"x\.png: decodes to rgb8; bayerrg8, .* one channel of 8 bits"),
        (scramble(6, 8, 1), PixelFormat.BAYER_RG12, r"x\.png: decodes to mono8; bayerrg12, .* one channel of 16 bits"),
        (scramble(6, 8, 1), PixelFormat.RGB8, r"x\.png: decodes to mono8; rgb8, .* three channels of 8 bits"),
        (np.full((6, 8), 4096, np.uint16), PixelFormat.MONO12, r"x\.png holds 4096, mono12 ends at 4095"),
    ],
)
def test_a_file_that_cannot_hold_what_is_stated_is_refused_by_name(
    folder: Path, pixels: NDArray[Any], stated: PixelFormat, said: str
) -> None:
    (folder / "x.png").write_bytes(encode_png(pixels))
    with pytest.raises(DataError, match=said):
        read_image(folder / "x.png", stated)


@pytest.mark.parametrize(("channels", "dtype"), list(FORMATS))
def test_png_bytes_give_the_same_frame_back(channels: int, dtype: type) -> None:
    pixels = scramble(24, 32, channels, dtype)
    frame = decode_png(encode_png(pixels), "golden/0.png")
    assert np.array_equal(frame.as_format(FORMATS[channels, dtype]), pixels)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((0, 5), np.uint8), ((4, 5, 7), np.uint8), ((4, 5), np.float32), ((4, 5), np.int16)]
)
def test_pixels_that_png_cannot_hold_are_refused_and_not_rounded(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(DataError, match=f"type {np.dtype(dtype)} cannot be encoded as PNG"):
        encode_png(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "data", [b"", b"no picture", encode_png(scramble(24, 32, 1))[:-40], encoded(".png", scramble(24, 32, 4))]
)
def test_bytes_of_a_bundle_that_are_no_frame_are_refused_by_their_name(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^golden/0.png: "):
        decode_png(data, "golden/0.png")


def test_a_jpeg_with_something_behind_its_end_is_read(folder: Path) -> None:
    (folder / "x.jpg").write_bytes(whole_file("grey.jpg") + b"maker's note" + bytes(8))
    assert read_image(folder / "x.jpg").size == (32, 24)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_colour_frame_without_colour_is_mono_and_one_differing_pixel_makes_it_colour(
    dtype: type[np.uint8 | np.uint16],
) -> None:
    grey = scramble(4, 5, 1, dtype)
    pixels = np.repeat(grey, 3, axis=2)
    mono = FORMATS[1, dtype]

    assert np.array_equal(Frame(pixels, FORMATS[3, dtype]).as_format(mono), grey)
    for channel in range(3):
        tinted = pixels.copy()
        tinted[2, 3, channel] ^= 1
        with pytest.raises(DataError, match="the bundle takes"):
            Frame(tinted, FORMATS[3, dtype]).as_format(mono)
