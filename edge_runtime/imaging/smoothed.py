"""Owns the plane's map, upsampled and smoothed block by block, so that what nobody asks for is never computed.

A block's pixels come from the same arithmetic on the same neighbourhood whether or not other blocks are computed: the
largest value of some blocks is the largest value of the whole map wherever bounds tell that no other block exceeds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.maps import HUGE, Map, positions, radius, rounding, smooth
from edge_runtime.imaging.resize import interpolate
from edge_runtime.stages import StageClock

BLOCK = 128  # plane pixels, even: OpenCV numbers labels by squares of 2; a wide filter takes a multiple of it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """A block's place along one axis."""

    start: int
    stop: int
    first: int  # the cells that its pixels depend on, `last` included
    last: int
    places: NDArray[np.float64]  # its pixels and those of the plane that smoothing sees, in cells from `first`
    inner: slice  # the block's own among these


@dataclass(frozen=True, kw_only=True)
class PlaneMap:
    """How a grid becomes the map of a plane, and where on it large values can lie. Blocks go row by row."""

    plane: Size
    stride: int
    offset: float
    sigma: float

    @cached_property
    def _rows(self) -> tuple[_Span, ...]:
        return tuple(_spans(self.plane.height, self.stride, self.offset, self.sigma))

    @cached_property
    def _columns(self) -> tuple[_Span, ...]:
        return tuple(_spans(self.plane.width, self.stride, self.offset, self.sigma))

    @property
    def count(self) -> int:
        """Blocks of the plane."""
        return len(self._rows) * len(self._columns)

    def place(self, block: int) -> tuple[slice, slice]:
        """Rows and columns of the plane that a block covers."""
        row, column = self._spans_of(block)
        return slice(row.start, row.stop), slice(column.start, column.stop)

    def block(self, grid: Map, block: int, clock: StageClock) -> Map:
        """The pixels of one block, as the whole map has them.

        Args:
            grid: (h, w), the stitched map.
            block: which.
            clock: gets the time as `upsample` and `smooth`.
        """
        around = self._around(grid, block)
        clock.lap("upsample")
        row, column = self._spans_of(block)
        found = smooth(around, self.sigma)[row.inner, column.inner]
        clock.lap("smooth")
        return found

    def whole(self, grid: Map, clock: StageClock) -> Map:
        """(plane.height, plane.width): all blocks."""
        return self.some(grid, range(self.count), (0, 0, self.plane.height, self.plane.width), clock)

    def some(self, grid: Map, blocks: range | list[int], box: tuple[int, int, int, int], clock: StageClock) -> Map:
        """(bottom - top, right - left): some blocks inside a box; minus infinity elsewhere.

        Args:
            grid: (h, w), the stitched map.
            blocks: which.
            box: top, left, bottom and right on the plane, around them.
            clock: see `block`.
        """
        top, left, bottom, right = box
        found = np.empty((bottom - top, right - left), dtype=np.float32)
        if len(blocks) < self.count:
            found.fill(-np.inf)
        for block in blocks:
            rows, columns = self.place(block)
            here = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
            found[here] = self.block(grid, block, clock)
        return found

    def box(self, blocks: list[int]) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of the smallest box on the plane around some blocks, one at least."""
        places = [self.place(block) for block in blocks]
        top, left = min(rows.start for rows, _ in places), min(columns.start for _, columns in places)
        return top, left, max(rows.stop for rows, _ in places), max(columns.stop for _, columns in places)

    def bounds(self, grid: Map, cells: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """(count,): a value that no pixel of the block exceeds; minus infinity where it depends on none of the cells.

        The weights of interpolation and filter are not negative and sum to 1; see `maps.peak_bound` for the rounding.

        Args:
            grid: (h, w), finite on the cells.
            cells: (h, w), those that the pixels in question depend on; None for all.
        """
        counted = grid if cells is None else np.where(cells, grid, np.float32(-np.inf))
        highest = self._over_blocks(np.maximum, counted, -np.inf).astype(np.float64)
        values = grid if cells is None else grid[cells]
        largest = max(abs(float(values.min())), abs(float(values.max()))) if values.size else 0.0
        if not largest < HUGE:
            return np.where(highest > -np.inf, np.inf, -np.inf)
        return highest + largest * rounding(self.sigma)

    def touched(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(count,): whether a pixel of the block may depend on one of the cells (h, w)."""
        return self._over_blocks(np.logical_or, cells, 0.0)

    def unknown(self, missing: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
        """(rows, columns) of a block: pixels that depend on one of the missing cells (h, w)."""
        share = self._around(missing.astype(np.float32), block)
        side = 2 * radius(self.sigma) + 1
        seen = cv2.dilate((share > 0).astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        row, column = self._spans_of(block)
        return np.asarray(seen[row.inner, column.inner])

    def _around(self, grid: Map, block: int) -> Map:
        """A block and what smoothing sees around it, before it is smoothed."""
        row, column = self._spans_of(block)
        seen = grid[row.first : row.last + 1, column.first : column.last + 1]
        return np.ascontiguousarray(interpolate(seen, row.places, column.places))

    def _spans_of(self, block: int) -> tuple[_Span, _Span]:
        return self._rows[block // len(self._columns)], self._columns[block % len(self._columns)]

    def _over_blocks(self, join: np.ufunc, values: NDArray[Any], padding: float) -> NDArray[Any]:
        padded = np.pad(values, ((0, 1), (0, 1)), constant_values=padding)  # a range may end with the grid
        for axis, spans in enumerate((self._rows, self._columns)):
            edges = [edge for span in spans for edge in (span.first, span.last + 1)]
            padded = join.reduceat(padded, edges, axis=axis)[(slice(None),) * axis + (slice(None, None, 2),)]
        return np.asarray(padded.reshape(-1))


def _spans(length: int, stride: int, offset: float, sigma: float) -> Iterator[_Span]:
    cells, reach = -(-length // stride), radius(sigma)
    clamped = np.clip(positions(length, stride, offset), 0, cells - 1)
    block = BLOCK * max(1, -(-4 * reach // BLOCK))  # what is smoothed only for its neighbours stays the lesser part
    for start, stop in pairwise([*range(0, length, block), length]):
        # the plane's own border is the window's, which smoothing reflects; at its other sides too much is cut off again
        low, high = max(0, start - reach), min(length, stop + reach)
        places = clamped[low:high]
        first = int(np.floor(places[0]))
        last = min(int(np.floor(places[-1])) + 1, cells - 1)
        inner = slice(start - low, stop - low)
        yield _Span(start=start, stop=stop, first=first, last=last, places=places - first, inner=inner)
