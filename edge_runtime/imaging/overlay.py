"""Owns the picture that a person looks at: the frame under its heatmap, on one display range for all images."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Frame
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.maps import ListedRegion, Map

_OPACITY = 0.5
_INSPECTED = (255, 255, 255)
_LISTED = (255, 64, 255)  # magenta: no colour map and hardly a part has it


def heatmap(frame_map: Map, low: float, high: float) -> NDArray[np.uint8]:
    """Colour a map (H, W) to RGB (H, W, 3); `low` and below is dark blue, `high` and above dark red."""
    span = max(high - low, float(np.finfo(np.float32).tiny))
    with np.errstate(over="ignore"):  # far above a narrow range is red, not a warning
        level = np.clip((np.nan_to_num(frame_map, nan=low) - low) / span, 0.0, 1.0)
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(coloured[:, :, ::-1])


def overlay(
    frame: Frame,
    frame_map: Map,
    *,
    low: float,
    high: float,
    regions: tuple[ListedRegion, ...],
    inspected: Sequence[Region] = (),
) -> NDArray[np.uint8]:
    """Blend heatmap and frame, and outline what is inspected and what is listed.

    Args:
        frame: the inspected frame.
        frame_map: (H, W) anomaly map at the frame's resolution; NaN where nothing was inspected, which stays grey.
        low: raw value at the lower end of the colours.
        high: raw value at the upper end.
        regions: listed ones, outlined in magenta.
        inspected: outlined in white where they are not the whole frame; with their names where there are several.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = displayable(frame)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis].repeat(3, axis=2)
    blend = cv2.addWeighted(picture, 1 - _OPACITY, heatmap(frame_map, low, high), _OPACITY, 0)
    finite = np.isfinite(frame_map)[:, :, np.newaxis]
    shown: NDArray[np.uint8] = np.where(finite, blend, grey // 2).astype(np.uint8)
    thickness = max(1, round(max(frame.size) / 400))
    for place in inspected:
        _outline(shown, place, thickness, named=len(inspected) > 1)
    for region in regions:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        cv2.rectangle(shown, (region.x, region.y), corner, _LISTED, thickness)
    return shown


def _outline(picture: NDArray[np.uint8], region: Region, thickness: int, *, named: bool) -> None:
    """Draw the border of a region's valid area, in place; nothing where that is the picture's own border."""
    crop, size = region.crop, picture.shape
    inside = np.ones((crop.size.height, crop.size.width), np.uint8) if region.valid is None else region.valid
    if crop.size == (size[1], size[0]) and inside.all():
        return
    found, _ = cv2.findContours(
        np.asarray(inside, np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(crop.x1, crop.y1)
    )
    cv2.drawContours(picture, found, -1, _INSPECTED, thickness)
    if named:
        height = 5 * (thickness + 1) / 22  # of letters; 22 pixels at a scale of 1
        place = (crop.x1 + 2 * thickness, min(crop.y1 + 8 * (thickness + 1), crop.y2))
        for colour, width in (((0, 0, 0), 2 * thickness + 1), (_INSPECTED, thickness)):
            cv2.putText(picture, region.name, place, cv2.FONT_HERSHEY_SIMPLEX, height, colour, width, cv2.LINE_AA)


def displayable(frame: Frame) -> NDArray[np.uint8]:
    """The frame as RGB of 8 bits, 16-bit frames stretched to their own range: for eyes, never for scores."""
    colour = frame.as_format(frame.format.colour)
    if colour.dtype == np.uint8:
        return np.ascontiguousarray(colour, dtype=np.uint8)
    return (colour / max(int(colour.max()), 1) * 255).astype(np.uint8)
