"""Owns demosaicing: colour from the pixels of a sensor of which each sees one colour only.

Bilinear, the mean of the two or four nearest pixels of a colour, halves rounded up: whole numbers throughout, so that
every machine gets the same bytes. Better interpolations guess at edges, and a guess is what an inspection must not see.
"""

from typing import Final

import cv2
import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.imaging.formats import Pattern
from edge_runtime.imaging.pixels import Pixels

DEMOSAIC_VERSION = 1
"""Recorded in every bundle; changes when the same mosaic would come out otherwise."""

_CODES: Final[dict[Pattern, int]] = {
    "rg": cv2.COLOR_BayerRGGB2RGB,
    "gr": cv2.COLOR_BayerGRBG2RGB,
    "gb": cv2.COLOR_BayerGBRG2RGB,
    "bg": cv2.COLOR_BayerBGGR2RGB,
}
_MARGIN = 2  # even, so that the pattern goes on beyond the border as it is inside


def demosaic(mosaic: Pixels, pattern: Pattern) -> Pixels:
    """Colour of every pixel; beyond the border the mosaic is reflected (BORDER_REFLECT_101), which keeps its pattern.

    Args:
        mosaic: (H, W) or (H, W, 1), uint8 or uint16.
        pattern: colours of the first two pixels of the first row.

    Returns:
        (H, W, 3) RGB of the same dtype.

    Raises:
        DataError: a side of one pixel, where a colour is missing altogether.
    """
    height, width = mosaic.shape[:2]
    if min(height, width) < 2:  # noqa: PLR2004 - the pattern repeats every two pixels
        message = f"frame is {width}x{height}, a mosaic has 2x2 pixels at least: check the camera's mode and its crop"
        raise DataError(message)
    flat = np.ascontiguousarray(mosaic.reshape(height, width))
    around = cv2.copyMakeBorder(flat, _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_REFLECT_101)
    colour = cv2.cvtColor(around, _CODES[pattern])
    return colour[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]  # type: ignore[return-value]
