"""Owns the pictures inside the page: thumbnails, mask outlines and the colour bar, all as data addresses."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.manifest import ArtefactSpec
from edge_runtime.imaging.maps import ListedRegion
from edge_runtime.imaging.overlay import heatmap

LONG_SIDE_PX = 320
_QUALITY = 75  # of WebP, 0 to 100
_OUTLINE = (64, 255, 64)
_HALO = (0, 0, 0)  # the outline must show on bright parts too
_LISTED = (255, 64, 255)
_BAR_PX = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A pixel threshold on the colour bar."""

    place: float  # in percent of the bar
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourBar:
    """The one colour range of all heatmaps."""

    picture: str  # data address
    low: float
    high: float
    marks: tuple[Mark, ...]
    beyond: tuple[str, ...]  # pixel thresholds that the range does not hold


def data_address(kind: str, content: bytes) -> str:
    """Content as an address that needs no file and no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def thumbnail(
    picture: NDArray[np.uint8], *, mask: NDArray[np.bool_] | None = None, listed: Sequence[ListedRegion] = ()
) -> str:
    """Shrink a picture and encode it.

    Args:
        picture: (H, W, 3) RGB.
        mask: (H, W), outlined in green where given.
        listed: boxed in magenta, again: lines drawn at full size are too thin once shrunk.

    Returns:
        A data address, at most `LONG_SIDE_PX` on the long side.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    small = np.array(shrunk, dtype=np.uint8)  # a copy to draw on
    if mask is not None:
        _outline(small, mask, scale)
    for box in listed:
        corners = np.array([(box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)])
        first, last = np.round((corners + 0.5) * scale - 0.5).astype(int).tolist()
        cv2.rectangle(small, first, last, _LISTED, _line_px(small))
    _, data = cv2.imencode(".webp", np.ascontiguousarray(small[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return data_address("image/webp", data.tobytes())


def _outline(small: NDArray[np.uint8], mask: NDArray[np.bool_], scale: float) -> None:
    """Trace the mask at full size and shrink the lines: shrinking the mask would lose small defects."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [np.round((contour + 0.5) * scale - 0.5).astype(np.int32) for contour in contours]
    cv2.drawContours(small, lines, -1, _HALO, _line_px(small) + 2, cv2.LINE_AA)
    cv2.drawContours(small, lines, -1, _OUTLINE, _line_px(small), cv2.LINE_AA)


def _line_px(small: NDArray[np.uint8]) -> int:
    """Width of a line: two pixels survive the encoder's halved colour resolution, where there is room for them."""
    return 2 if max(small.shape) > LONG_SIDE_PX // 2 else 1


def colour_bar(artefact: ArtefactSpec) -> ColourBar:
    """The bar for the range that `Inspector.overlay` colours: the widest over all regions."""
    parts = artefact.thresholds
    low, high = min(part.display_low for part in parts.values()), max(part.display_high for part in parts.values())
    row = np.linspace(low, high, _BAR_PX, dtype=np.float32)[np.newaxis, :]
    _, data = cv2.imencode(".png", np.ascontiguousarray(heatmap(row, low, high)[:, :, ::-1]))
    marks, beyond = [], []
    for name, part in parts.items():
        whose = "" if len(parts) == 1 else f" {name}"
        if part.pixel is None:
            beyond.append(f"no pixel threshold{whose}")
        elif low <= part.pixel <= high and high > low:
            place = 100 * (part.pixel - low) / (high - low)
            marks.append(Mark(place=place, text=f"pixel threshold{whose} {part.pixel:.4g}"))
        else:
            beyond.append(f"pixel threshold{whose} {part.pixel:.4g} lies beyond the colours")
    return ColourBar(
        picture=data_address("image/png", data.tobytes()), low=low, high=high, marks=tuple(marks), beyond=tuple(beyond)
    )
