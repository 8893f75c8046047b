"""Owns the picture that a person looks at: the frame under its heatmap, on one display range for all images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.imaging.maps import ListedRegion, Map

_OPACITY = 0.5
_LISTED = (255, 64, 255)  # magenta: no colour map and hardly a part has it


def heatmap(frame_map: Map, low: float, high: float) -> NDArray[np.uint8]:
    """Colour a map (H, W) to RGB (H, W, 3); `low` and below is dark blue, `high` and above dark red."""
    span = max(high - low, float(np.finfo(np.float32).tiny))
    with np.errstate(over="ignore"):  # far above a narrow range is red, not a warning
        level = np.clip((np.nan_to_num(frame_map, nan=low) - low) / span, 0.0, 1.0)
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(coloured[:, :, ::-1])


def overlay(
    frame: Frame, frame_map: Map, *, low: float, high: float, regions: tuple[ListedRegion, ...]
) -> NDArray[np.uint8]:
    """Blend heatmap and frame, and outline the listed regions.

    Args:
        frame: the inspected frame.
        frame_map: (H, W) anomaly map at the frame's resolution; NaN where nothing was inspected, which stays grey.
        low: raw value at the lower end of the colours.
        high: raw value at the upper end.
        regions: what to outline.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = displayable(frame)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis].repeat(3, axis=2)
    blend = cv2.addWeighted(picture, 1 - _OPACITY, heatmap(frame_map, low, high), _OPACITY, 0)
    blend = np.where(np.isfinite(frame_map)[:, :, np.newaxis], blend, grey // 2)
    thickness = max(1, round(max(frame.size) / 400))
    for region in regions:
        corner = (region.x + region.width - 1, region.y + region.height - 1)
        cv2.rectangle(blend, (region.x, region.y), corner, _LISTED, thickness)
    return np.asarray(blend, dtype=np.uint8)


def displayable(frame: Frame) -> NDArray[np.uint8]:
    """The frame as RGB of 8 bits, 16-bit frames stretched to their own range: for eyes, never for scores."""
    colour = frame.as_format(PixelFormat.RGB8 if frame.format.dtype == np.uint8 else PixelFormat.RGB16)
    if colour.dtype == np.uint8:
        return np.ascontiguousarray(colour, dtype=np.uint8)
    return (colour / max(int(colour.max()), 1) * 255).astype(np.uint8)
