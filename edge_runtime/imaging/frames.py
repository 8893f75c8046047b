"""Owns what a frame is: pixels in a stated format, read from a file or handed over by a camera."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.imaging.bayer import demosaic
from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.imaging.pixels import Pixels

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".jp2"})


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        """`WxH`, as flags write it."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one part.

    `pixels` is (H, W) or (H, W, 1) for mono and mosaics and (H, W, 3) for colour, of the format's dtype.

    Raises:
        DataError: shape or dtype do not fit the format.
    """

    pixels: Pixels
    format: PixelFormat

    def __post_init__(self) -> None:
        """Refuse pixels that are not what the format says, before any of them is interpreted."""
        pixels = self.pixels
        channels = 1 if pixels.ndim == 2 else pixels.shape[2] if pixels.ndim == 3 else 0  # noqa: PLR2004 - dimensions
        if channels != self.format.channels or pixels.dtype != self.format.dtype or 0 in pixels.shape:
            message = (
                f"frame is {pixels.dtype} of shape {pixels.shape}, expected {self.format.dtype} of shape "
                f"(H, W{', 3' if self.format.channels > 1 else ''}) with H, W >= 1 for {self.format}"
            )
            raise DataError(message)

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(self.pixels.shape[1], self.pixels.shape[0])

    def as_format(self, target: PixelFormat) -> Pixels:
        """Pixels (H, W, C) in a canonical format; only conversions that lose nothing are done.

        Args:
            target: mono or RGB of any depth.

        Raises:
            DataError: the frame would have to lose colour or depth, or gain a depth that it never had; or it holds more
                than its format can.
        """
        self.check_depth()
        if self.format.goes_into(target):
            return self._converted(target)
        if self.format.channels > target.channels and self._grey_format.goes_into(target) and self._is_grey():
            return self.pixels[:, :, :1]  # a monochrome camera behind a driver that only knows colour
        found = self.format.canonical if self.format.layout == "bgr" else self.format  # decoders choose that order
        wanted = found.of_depth(target.depth)
        message = (
            f"frame is {found}, the bundle takes {target}: "
            f"set the camera to {wanted if wanted.goes_into(target) else target}, "
            f"or build the bundle from {self.format.canonical} images"
        )
        raise DataError(message)

    def converted(self, target: PixelFormat) -> "Frame":
        """The frame in a canonical format; of the target's depth only where the frame promised one.

        Raises:
            DataError: as `as_format`.
        """
        return Frame(self.as_format(target), target.promised_by(self.format))

    def check_depth(self, name: str = "frame") -> None:
        """Look whether all pixels are as small as the format promises.

        Raises:
            DataError: one is larger.
        """
        top = 2**self.format.depth - 1
        if self.format.states_depth and top < np.iinfo(self.pixels.dtype).max and int(self.pixels.max()) > top:
            message = (
                f"{name} holds {int(self.pixels.max())}, {self.format} ends at {top}: name the format that the camera has, "
                "and have it fill the low bits of its words"
            )
            raise DataError(message)

    def _converted(self, target: PixelFormat) -> Pixels:
        pattern = self.format.pattern
        if pattern is not None:
            return demosaic(self.pixels, pattern)
        pixels = self.pixels if self.pixels.ndim == 3 else self.pixels[:, :, np.newaxis]  # noqa: PLR2004
        if self.format.layout == "bgr":
            pixels = pixels[:, :, ::-1]
        if self.format.channels < target.channels:
            pixels = np.repeat(pixels, target.channels, axis=2)
        return pixels

    @property
    def _grey_format(self) -> PixelFormat:
        return PixelFormat(f"mono{self.format.depth}")

    def _is_grey(self) -> bool:
        first = self.pixels[:, :, 0]
        return all(np.array_equal(first, self.pixels[:, :, channel]) for channel in (1, 2))


_FILE_FORMATS = {
    (2, "uint8"): PixelFormat.MONO8,
    (2, "uint16"): PixelFormat.MONO16,
    (3, "uint8"): PixelFormat.BGR8,
    (3, "uint16"): PixelFormat.BGR16,
}


def read_image(path: Path, stated: PixelFormat | None = None) -> Frame:
    """Decode an image file to the sensor's pixels: no orientation tag applied, no depth reduced.

    Args:
        path: the file.
        stated: what its pixels are, where the file cannot tell: a mosaic, or 12 bits in words of 16.

    Raises:
        DataError: the file cannot be read, is not a whole image, has an alpha channel or another pixel type, or cannot
            hold what is stated.
    """
    frame = _framed(_decode(path), str(path))
    return frame if stated is None else _restated(frame, stated, path)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Decode a mask: (H, W), true where any channel is above 0.

    Raises:
        DataError: the file cannot be read or is not a whole image.
    """
    pixels = _decode(path)
    return np.asarray(pixels > 0 if pixels.ndim == 2 else (pixels[:, :, :3] > 0).any(axis=2))  # noqa: PLR2004


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Lossless PNG bytes of (H, W), (H, W, 1) or RGB (H, W, 3) pixels of 8 or 16 bits.

    Raises:
        DataError: the pixels cannot be encoded.
    """
    bgr = pixels[:, :, ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels  # noqa: PLR2004
    try:
        # other types OpenCV would round to 8 bits without a word
        known = pixels.dtype.name in {"uint8", "uint16"}
        done, data = cv2.imencode(".png", np.ascontiguousarray(bgr)) if known else (False, np.empty(0, np.uint8))
    except cv2.error:
        done = False
    if not done:
        message = f"pixels of shape {pixels.shape} and type {pixels.dtype} cannot be encoded as PNG"
        raise DataError(message)
    return data.tobytes()


def decode_png(data: bytes, name: str) -> Frame:
    """Decode PNG bytes to a frame; `name` is what an error calls them.

    Raises:
        DataError: the bytes are not a whole image of a known format.
    """
    return _framed(_decode_bytes(np.frombuffer(data, dtype=np.uint8), name), name)


def _restated(frame: Frame, stated: PixelFormat, path: Path) -> Frame:
    if (frame.format.channels, frame.format.dtype) != (stated.channels, stated.dtype):
        kind = "one channel" if stated.channels == 1 else "three channels"
        message = (
            f"{path}: decodes to {frame.format.canonical}; {stated}, as its pixel format was stated, "
            f"has {kind} of {8 * stated.dtype.itemsize} bits in a file: state the format that the files have"
        )
        raise DataError(message)
    # decoded colour is blue first, whatever the file's order
    read = Frame(frame.pixels, PixelFormat.BGR8.of_depth(stated.depth) if stated.channels > 1 else stated)
    read.check_depth(str(path))
    return read


def _framed(pixels: NDArray[Any], name: str) -> Frame:
    file_format = _FILE_FORMATS.get((pixels.ndim, pixels.dtype.name))
    if file_format is None or (pixels.ndim == 3 and pixels.shape[2] != 3):  # noqa: PLR2004
        message = (
            f"{name}: pixels are {pixels.dtype} of shape {pixels.shape}; takes grey or RGB of 8 or 16 bits: "
            "save the image without its alpha channel"
        )
        raise DataError(message)
    return Frame(pixels, file_format)


def _decode(path: Path) -> NDArray[Any]:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error})"
        raise DataError(message) from error
    return _decode_bytes(data, str(path))


def _decode_bytes(data: NDArray[np.uint8], name: str) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error as error:
        message = f"{name}: cannot be decoded ({error.err}): restore the file or remove it"
        raise DataError(message) from error
    if pixels is None or _lacks_end(data):
        message = f"{name}: not an image, or truncated ({data.size} bytes): restore the file or remove it"
        raise DataError(message)
    return pixels


def _lacks_end(data: NDArray[np.uint8]) -> bool:
    """Whether a JPEG's last scan is not closed: a copy that was cut short is decoded, its zeros as grey pixels."""
    content = data.tobytes() if data[:2].tobytes() == b"\xff\xd8" else b""
    return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


__all__ = [
    "IMAGE_SUFFIXES",
    "Frame",
    "PixelFormat",
    "Pixels",
    "Size",
    "decode_png",
    "encode_png",
    "read_image",
    "read_mask",
]
