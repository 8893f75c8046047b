"""Owns what a frame is: pixels in a stated format, read from a file or handed over by a camera."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError

Pixels: TypeAlias = NDArray[np.uint8 | np.uint16]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".jp2"})


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        """`WxH`, as flags write it."""
        return f"{self.width}x{self.height}"


class PixelFormat(StrEnum):
    """Layout of a frame's pixels, in the names that cameras use."""

    MONO8 = "mono8"
    MONO16 = "mono16"
    RGB8 = "rgb8"
    BGR8 = "bgr8"
    RGB16 = "rgb16"
    BGR16 = "bgr16"

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self in {PixelFormat.MONO8, PixelFormat.MONO16} else 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned integers of 8 or 16 bits."""
        return np.dtype(np.uint8 if self.endswith("8") else np.uint16)

    @property
    def canonical(self) -> "PixelFormat":
        """The same depth in the channel order that graphs take: RGB."""
        return {PixelFormat.BGR8: PixelFormat.RGB8, PixelFormat.BGR16: PixelFormat.RGB16}.get(self, self)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one part.

    `pixels` is (H, W) or (H, W, 1) for mono and (H, W, 3) for colour, of the format's dtype.

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
            target: mono8, mono16, rgb8 or rgb16.

        Raises:
            DataError: the frame would have to lose colour or depth, or gain a depth that it never had.
        """
        if self.format.dtype == target.dtype and self.format.channels > target.channels and self._is_grey():
            return self.pixels[:, :, :1]  # a monochrome camera behind a driver that only knows colour
        if self.format.dtype != target.dtype or self.format.channels > target.channels:
            message = (
                f"frame is {self.format.canonical}, the bundle takes {target}: set the camera to {target}, "
                f"or build the bundle from {self.format.canonical} images"
            )
            raise DataError(message)
        pixels = self.pixels if self.pixels.ndim == 3 else self.pixels[:, :, np.newaxis]  # noqa: PLR2004
        if self.format.canonical != self.format:
            pixels = pixels[:, :, ::-1]
        if self.format.channels < target.channels:
            pixels = np.repeat(pixels, target.channels, axis=2)
        return pixels

    def _is_grey(self) -> bool:
        first = self.pixels[:, :, 0]
        return all(np.array_equal(first, self.pixels[:, :, channel]) for channel in (1, 2))


_FILE_FORMATS = {
    (2, "uint8"): PixelFormat.MONO8,
    (2, "uint16"): PixelFormat.MONO16,
    (3, "uint8"): PixelFormat.BGR8,
    (3, "uint16"): PixelFormat.BGR16,
}


def read_image(path: Path) -> Frame:
    """Decode an image file to the sensor's pixels: no orientation tag applied, no depth reduced.

    Raises:
        DataError: the file cannot be read, is not a whole image, or has an alpha channel or another pixel type.
    """
    return _framed(_decode(path), str(path))


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
