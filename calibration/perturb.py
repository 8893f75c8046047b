"""Owns the changes made to good frames where parity needs frames that no fit has seen: painted, shifted, relit.

Everything is integer arithmetic and seeded by the image's digest, so that the machine that fits and the machine that
seals make the same pixels.
"""

import random
from collections.abc import Sequence
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Pixels
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.tiles import reflect

_TRIES = 50


class Variant(StrEnum):
    """How a frame was changed before it was scored."""

    ORIGINAL = "original"
    PAINTED = "painted"
    SHIFTED = "shifted"
    RELIT = "relit"


HELD_OUT = (Variant.ORIGINAL, Variant.PAINTED)
FITTED = (Variant.SHIFTED, Variant.RELIT, Variant.PAINTED)  # a frame of the fit share as it is would prove nothing


def perturb(pixels: Pixels, variant: Variant, *, digest: str, regions: Sequence[Region], white: int) -> Pixels:
    """Change a frame.

    Args:
        pixels: (H, W, C).
        variant: what to do.
        digest: of the image file; seeds what is random.
        regions: each gets a painted defect of its own.
        white: the largest value of a pixel.

    Returns:
        (H, W, C), a new array unless the variant is the original.
    """
    draw = random.Random(f"{digest}/{variant}")  # noqa: S311 - a choice of pixels, not a secret
    match variant:
        case Variant.ORIGINAL:
            return pixels
        case Variant.SHIFTED:
            return _shifted(pixels, draw)
        case Variant.RELIT:
            return _relit(pixels, draw, white)
        case Variant.PAINTED:
            painted = pixels.copy()
            for region in regions:
                _paint(painted, region, draw, white)
            return painted


def paint_defect(pixels: Pixels, shape: NDArray[np.bool_], white: int) -> None:
    """Turn the pixels of a shape (H, W) to the far side of the grey scale, in place, texture kept faintly."""
    values = pixels[shape].astype(np.int64)
    bright = 2 * int(values.sum()) > white * values.size
    pixels[shape] = (values // 4 if bright else white - (white - values) // 4).astype(pixels.dtype)


def _shifted(pixels: Pixels, draw: random.Random) -> Pixels:
    height, width = pixels.shape[:2]
    down = draw.choice((-1, 1)) * draw.randint(2, max(2, height // 40))
    right = draw.choice((-1, 1)) * draw.randint(2, max(2, width // 40))
    rows = reflect(np.arange(height) + down, height)
    columns = reflect(np.arange(width) + right, width)
    return np.ascontiguousarray(pixels[rows[:, np.newaxis], columns])


def _relit(pixels: Pixels, draw: random.Random, white: int) -> Pixels:
    width = pixels.shape[1]
    left, right = draw.randint(225, 290), draw.randint(225, 290)  # gain at the borders, in 256ths
    gain = left + (right - left) * np.arange(width, dtype=np.int64) // max(width - 1, 1)
    lit = (pixels.astype(np.int64) * gain[np.newaxis, :, np.newaxis]) >> 8
    return np.asarray(np.minimum(lit, white), dtype=pixels.dtype)


def _paint(pixels: Pixels, region: Region, draw: random.Random, white: int) -> None:
    crop = region.crop
    side = max(3, min(crop.size) // 8)
    x, y = _place(region, draw)
    shape = np.zeros(pixels.shape[:2], dtype=np.uint8)
    if draw.random() < 0.5:  # noqa: PLR2004 - a scratch or a spot, either as often
        end = (x + draw.randint(-side, side), y + draw.randint(-side, side))
        cv2.line(shape, (x, y), end, 1, thickness=max(2, side // 6))
    else:
        axes = (draw.randint(max(1, side // 4), side // 2 + 1), draw.randint(max(1, side // 4), side // 2 + 1))
        cv2.ellipse(shape, (x, y), axes, draw.randint(0, 179), 0, 360, 1, thickness=-1)
    inside = np.zeros_like(shape)
    inside[crop.y1 : crop.y2, crop.x1 : crop.x2] = 1 if region.valid is None else region.valid
    paint_defect(pixels, (shape & inside) > 0, white)


def _place(region: Region, draw: random.Random) -> tuple[int, int]:
    """A valid pixel of the region, in frame pixels."""
    crop = region.crop
    for _ in range(_TRIES):
        x, y = draw.randrange(crop.size.width), draw.randrange(crop.size.height)
        if region.valid is None or region.valid[y, x]:
            return crop.x1 + x, crop.y1 + y
    valid = np.ones((crop.size.height, crop.size.width), dtype=np.bool_) if region.valid is None else region.valid
    rows, columns = np.nonzero(valid)  # a sparse mask: take one of its pixels
    index = draw.randrange(len(rows))
    return crop.x1 + int(columns[index]), crop.y1 + int(rows[index])
