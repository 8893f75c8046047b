"""Owns what happens to an anomaly map between the graph and the verdict: upsample, smooth, measure, list."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.resize import interpolate, sources

Map: TypeAlias = NDArray[np.float32]


HUGE = 1e30  # beyond, differences of float32 may overflow: no bound is given there


def upsample(grid: Map, *, stride: int, offset: float, plane: Size) -> Map:
    """Bring a map from the feature grid to the plane's pixels, bilinearly.

    Args:
        grid: (h, w), cell (i, j) centred on the plane's pixel (offset + i * stride, offset + j * stride).
        stride: plane pixels a cell.
        offset: plane pixel under the centre of cell 0.
        plane: size of the result.

    Returns:
        (plane.height, plane.width) float32.
    """
    return interpolate(grid, positions(plane.height, stride, offset), positions(plane.width, stride, offset))


def rescale(plane_map: Map, size: Size) -> Map:
    """Bring a map from one pixel grid over an area to another over the same area, pixel centres aligned."""
    height, width = plane_map.shape
    if (width, height) == size:
        return plane_map
    return interpolate(plane_map, centres(height, size.height), centres(width, size.width))


def centres(source: int, target: int) -> NDArray[np.float64]:
    """Where the pixel centres of one grid lie along one side of another over the same length, in pixels of `source`."""
    return np.asarray((np.arange(target) + 0.5) * (source / target) - 0.5)


def smooth(plane_map: Map, sigma: float) -> Map:
    """Gaussian filter of `sigma` plane pixels, cut off at 4 sigma, border reflected; 0 leaves the map alone."""
    if sigma == 0:
        return plane_map
    side = 2 * radius(sigma) + 1
    return np.asarray(
        cv2.GaussianBlur(plane_map, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32
    )


def contributing(valid: NDArray[np.bool_], *, stride: int, offset: float, sigma: float) -> NDArray[np.bool_]:
    """The cells of the grid that a valid pixel of the upsampled and smoothed map depends on, perhaps some more.

    Args:
        valid: (plane height, plane width).
        stride: as `upsample` takes it.
        offset: the same.
        sigma: as `smooth` takes it.

    Returns:
        (h, w), where h and w are the plane's sides over the stride, rounded up.
    """
    # a smoothed pixel sees the square of the filter's radius around it. Reflection at the border only folds that
    # square back onto the plane, and folding brings no two places further apart: what it sees stays in the square
    side = 2 * radius(sigma) + 1
    seen = cv2.dilate(valid.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    rows, columns = (positions(length, stride, offset) for length in valid.shape)
    return sources(seen, rows, columns, (-(-valid.shape[0] // stride), -(-valid.shape[1] // stride)))


def peak_bound(grid: Map, cells: NDArray[np.bool_] | None, *, sigma: float) -> float:
    """A value that no pixel of the upsampled and smoothed map exceeds, worked out without computing that map.

    Bilinear interpolation, positions beyond the grid clamped, and a Gaussian filter, its border reflected, both take
    averages with weights that are not negative and sum to 1: the largest value of the cells bounds every average
    of them. In float32 the sums are off by a few roundings, which the bound allows for.

    Args:
        grid: (h, w), all finite.
        cells: (h, w), those that the pixels in question depend on (see `contributing`); None for all.
        sigma: as `smooth` takes it.
    """
    counted = grid if cells is None else grid[cells]
    low, high = float(counted.min()), float(counted.max())
    largest = max(abs(low), abs(high))
    if not largest < HUGE:
        return float("inf")
    # one rounding is 2**-24 of the value. Interpolating costs up to 5 of `largest` along each axis, filtering one for
    # each tap, two for its weights: (2 * taps + 14) * 2**-24 in all, and here stands more than twice as much
    return high + largest * rounding(sigma)


def rounding(sigma: float) -> float:
    """How far a pixel of the upsampled and smoothed map may lie above all its cells, as a share of the largest of them."""
    return (2 * radius(sigma) + 17) * 2.0**-22


def positions(length: int, stride: int, offset: float) -> NDArray[np.float64]:
    """Where the plane's pixels lie along one side, in cells."""
    return np.asarray((np.arange(length) - offset) / stride)


def radius(sigma: float) -> int:
    """Pixels that a Gaussian filter reaches to each side."""
    return int(4 * sigma + 0.5)


def pooled(grid: Map, cells: int, valid: NDArray[np.bool_] | None) -> Map:
    """Average each cell with its neighbours, `cells` in each direction; only valid cells of the grid count.

    Args:
        grid: (h, w).
        cells: side of the square window, odd.
        valid: (h, w), or None where every cell counts; values of windows without any valid cell are 0.
    """
    counted = np.ones_like(grid) if valid is None else valid.astype(np.float32)
    # a filter that slides its sums along would carry rounding from one window to the next: a window's mean must depend
    # on its own cells alone, so that it is known when they are
    ones = np.ones(cells, dtype=np.float32)
    sums, counts = (
        cv2.sepFilter2D(values, -1, ones, ones, borderType=cv2.BORDER_CONSTANT) for values in (grid * counted, counted)
    )
    return np.asarray(sums / np.maximum(counts, 1), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedRegion:
    """One connected area of a map at or above the pixel threshold, in frame pixels."""

    name: str
    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float


def list_regions(
    region_map: Map, threshold: float, *, smallest_px: int, name: str, origin: tuple[int, int]
) -> tuple[ListedRegion, ...]:
    """List the 8-connected areas at or above a threshold, highest peak first.

    Args:
        region_map: (H, W) in frame pixels; NaN where the region is not valid.
        threshold: raw pixel threshold.
        smallest_px: areas below are left out of the list (of the list only: the verdict does not see it).
        name: the region's name.
        origin: x and y of the map's first pixel in the frame.
    """
    with np.errstate(invalid="ignore"):
        above = region_map >= threshold  # in the map's own layout, which may be column by column
    if not above.any():
        return ()
    top, bottom = _extent(np.asarray(above.any(axis=1)))
    left, right = _extent(np.asarray(above[top:bottom].any(axis=0)))  # labelling takes long, and defects are small
    above, region_map = above[top:bottom, left:right], region_map[top:bottom, left:right]
    above = above & np.isfinite(region_map)
    origin = (origin[0] + left, origin[1] + top)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area < smallest_px:
            continue
        box = (slice(y, y + height), slice(x, x + width))
        peak = float(region_map[box][labels[box] == label].max())
        place = {"x": x + origin[0], "y": y + origin[1], "width": width, "height": height}
        found.append(ListedRegion(name=name, area_px=area, peak=peak, **place))
    return tuple(sorted(found, key=lambda region: -region.peak))


def _extent(found: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and stop of what was found; the start is even, since OpenCV numbers labels by squares of 2 pixels."""
    places = np.flatnonzero(found)
    return int(places[0]) // 2 * 2, int(places[-1]) + 1
