"""Owns what happens to an anomaly map between the graph and the verdict: upsample, smooth, measure, list."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.resize import interpolate

Map: TypeAlias = NDArray[np.float32]


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
    rows = (np.arange(plane.height) - offset) / stride
    columns = (np.arange(plane.width) - offset) / stride
    return interpolate(grid, rows, columns)


def rescale(plane_map: Map, size: Size) -> Map:
    """Bring a map from one pixel grid over an area to another over the same area, pixel centres aligned."""
    height, width = plane_map.shape
    if (width, height) == size:
        return plane_map
    rows = (np.arange(size.height) + 0.5) * (height / size.height) - 0.5
    columns = (np.arange(size.width) + 0.5) * (width / size.width) - 0.5
    return interpolate(plane_map, rows, columns)


def smooth(plane_map: Map, sigma: float) -> Map:
    """Gaussian filter of `sigma` plane pixels, cut off at 4 sigma, border reflected; 0 leaves the map alone."""
    if sigma == 0:
        return plane_map
    side = 2 * int(4 * sigma + 0.5) + 1
    return np.asarray(
        cv2.GaussianBlur(plane_map, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.float32
    )


def pooled(grid: Map, cells: int, valid: NDArray[np.bool_] | None) -> Map:
    """Average each cell with its neighbours, `cells` in each direction; only valid cells of the grid count.

    Args:
        grid: (h, w).
        cells: side of the square window, odd.
        valid: (h, w), or None where every cell counts; values of windows without any valid cell are 0.
    """
    counted = np.ones_like(grid) if valid is None else valid.astype(np.float32)
    sums, counts = (
        cv2.boxFilter(values, -1, (cells, cells), normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (grid * counted, counted)
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
    above = np.greater_equal(region_map, threshold, where=np.isfinite(region_map), out=np.zeros(region_map.shape, bool))
    if not above.any():
        return ()
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
