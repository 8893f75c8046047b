"""Owns where on a frame an image score comes from, for a reject whose map shows nothing at the pixel threshold.

The image score may see what the shown map does not: a quiet place that is far from what is usual there (see
`edge_runtime.imaging.background`), or several cells that are each a little high. Whoever stands at the line is to look there.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.recipe import ImageScoreRule, MapPolicySpec
from edge_runtime.imaging.maps import ListedRegion, Map, pooled, radius
from edge_runtime.layout import Layout


def deciding_place(
    layout: Layout, policy: MapPolicySpec, grid: Map, missing: NDArray[np.bool_] | None
) -> ListedRegion | None:
    """The cells that a region's image score comes from, as an area in frame pixels.

    Args:
        layout: of the region.
        policy: how its image score comes from the map.
        grid: (h, w), the stitched map, all finite.
        missing: (h, w), cells that were not scored, whose values mean nothing; None where all were.

    Returns:
        The area, its peak the largest raw value of these cells; None where the graph alone gives the score, or where the area
        is smaller than what the region lists.
    """
    if policy.image_score is ImageScoreRule.GRAPH:
        return None
    cells = policy.pooled_cells or 1
    counts = np.ones_like(grid, dtype=np.bool_) if layout.valid_grid is None else layout.valid_grid
    if missing is not None:
        counts = counts & ~missing
    if not counts.any():
        return None  # what is valid of the scored tiles lies in cells of others
    scored = np.where(counts, _as_scored(layout, policy, layout.judged(grid), counts), -np.inf)
    row, column = np.unravel_index(int(np.argmax(scored)), scored.shape)
    crop, stride = layout.region.crop, layout.plan.stride
    left, right = _extent(int(column), cells, stride, layout.plan.plane.width, crop.size.width)
    top, bottom = _extent(int(row), cells, stride, layout.plan.plane.height, crop.size.height)
    area = (right - left) * (bottom - top)
    if area < layout.smallest_px:
        return None
    half = cells // 2
    window = (slice(max(0, row - half), row + half + 1), slice(max(0, column - half), column + half + 1))
    return ListedRegion(
        name=layout.region.name,
        x=crop.x1 + left,
        y=crop.y1 + top,
        width=right - left,
        height=bottom - top,
        area_px=area,
        peak=float(grid[window][counts[window]].max()),
    )


def _as_scored(layout: Layout, policy: MapPolicySpec, judged: Map, counts: NDArray[np.bool_]) -> Map:
    """(h, w): the cells, averaged as the score averages them; smoothed at the grid, which puts the largest at the same cell or beside it."""
    if policy.image_score is ImageScoreRule.POOLED_MAX:
        return pooled(judged, policy.pooled_cells or 1, counts)
    sigma = policy.sigma / layout.plan.stride
    if policy.image_score is ImageScoreRule.MAX_RAW or radius(sigma) == 0:
        return judged
    side = 2 * radius(sigma) + 1
    known = np.where(counts, judged, judged[counts].min())
    return np.asarray(cv2.GaussianBlur(known, (side, side), sigma, borderType=cv2.BORDER_REFLECT))


def _extent(cell: int, cells: int, stride: int, plane: int, crop: int) -> tuple[int, int]:
    """First pixel of the crop that a window of cells around one covers along an axis, and the first one beyond."""
    half = cells // 2
    first, beyond = max(0, (cell - half) * stride), min(plane, (cell + half + 1) * stride)
    return math.floor(first * crop / plane), math.ceil(beyond * crop / plane)
