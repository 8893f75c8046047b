"""Owns what of a plane shows the part: told from its background by brightness, and counted core by core.

Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9 (1979): the threshold that parts a histogram in two.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Pixels
from edge_runtime.imaging.tiles import TilePlan

_OPENING = np.ones((3, 3), dtype=np.uint8)


def otsu_foreground(plane: Pixels) -> NDArray[np.bool_]:
    """Find the part by Otsu's threshold of the grey plane.

    The part is what differs from the plane's border: of the two sides of the threshold, the one that holds most of the
    outermost pixels is background, the darker one where both hold as many. Specks of less than 3x3 pixels are removed.

    Args:
        plane: (H, W, C), uint8 or uint16, C = 1 or 3 (RGB).

    Returns:
        (H, W), true on the part; nowhere where the plane is of one value.
    """
    whole = np.ascontiguousarray(plane)
    grey = cv2.cvtColor(whole, cv2.COLOR_RGB2GRAY) if plane.shape[2] > 1 else whole[:, :, 0]
    threshold, _ = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = grey > threshold
    rim = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    part = ~bright if 2 * np.count_nonzero(rim) > rim.size else bright
    return np.asarray(cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_OPEN, _OPENING) > 0)


def core_shares(plan: TilePlan, foreground: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(plan.count,): the share of each core's pixels on the plane that is foreground.

    Args:
        plan: how the plane is cut.
        foreground: (plane.height, plane.width).
    """
    tops = np.arange(0, plan.plane.height, plan.core.height)
    lefts = np.arange(0, plan.plane.width, plan.core.width)
    rows = np.add.reduceat(foreground, tops, axis=0, dtype=np.int64)
    found = np.add.reduceat(rows, lefts, axis=1)
    heights = np.diff(tops, append=plan.plane.height)
    widths = np.diff(lefts, append=plan.plane.width)
    return np.asarray((found / (heights[:, np.newaxis] * widths)).reshape(-1))
