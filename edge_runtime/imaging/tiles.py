"""Owns the tile plan: which pixels each tile sees, which it owns, and how maps come together again.

A tile owns its *core*; it sees the core and a *halo* around it. Cores cover the plane without overlap; pixels beyond
the plane (halos at the border, the last cores) are reflected (BORDER_REFLECT_101, repeated as often as needed).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Pixels, Size


@dataclass(frozen=True, kw_only=True, slots=True)
class TilePlan:
    """How one plane (a region's pixels after cropping and scaling) is cut into graph inputs.

    Raises:
        ConfigError: core, halo or plane cannot be laid on the network's grid.
    """

    plane: Size
    core: Size
    halo: int  # pixels around the core, all four sides
    stride: int  # plane pixels a cell of the graph's map

    def __post_init__(self) -> None:
        """Refuse a plan whose tiles would not share one feature grid."""
        if min(self.plane) < 1 or min(self.core) < 1 or self.halo < 0 or self.stride < 1:
            message = f"tile plan needs positive sizes, got plane {self.plane}, core {self.core}, halo {self.halo}"
            raise ConfigError(message)
        if self.core.width % self.stride or self.core.height % self.stride or self.halo % self.stride:
            message = (
                f"tile core {self.core} and halo {self.halo} must be multiples of the stride {self.stride}: "
                f"nearest core {_nearest(self.core.width, self.stride)}x{_nearest(self.core.height, self.stride)}, "
                f"nearest halo {_nearest(self.halo, self.stride) if self.halo else 0}"
            )
            raise ConfigError(message)

    @property
    def input(self) -> Size:
        """Size of the graph's input."""
        return Size(self.core.width + 2 * self.halo, self.core.height + 2 * self.halo)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.plane.width // self.core.width)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.plane.height // self.core.height)

    @property
    def count(self) -> int:
        """Tiles that cover the plane; tile `i` stands in row `i // columns`, column `i % columns`."""
        return self.rows * self.columns

    @property
    def grid(self) -> Size:
        """Cells of the stitched map: those that lie, at least in part, on the plane."""
        return Size(-(-self.plane.width // self.stride), -(-self.plane.height // self.stride))

    def cut(self, pixels: Pixels, tile: int, out: Pixels) -> None:
        """Write the input of one tile.

        Args:
            pixels: (H, W, C), the plane.
            tile: index of the tile.
            out: (input.height, input.width, C), overwritten.
        """
        top = tile // self.columns * self.core.height - self.halo
        left = tile % self.columns * self.core.width - self.halo
        bottom, right = top + self.input.height, left + self.input.width
        above, below = max(0, -top), max(0, bottom - self.plane.height)
        before, after = max(0, -left), max(0, right - self.plane.width)
        seen = pixels[top + above : bottom - below, left + before : right - after]
        if not (above or below or before or after):
            out[...] = seen
        elif _folds(seen.shape[0], above, below, self.plane.height) and _folds(
            seen.shape[1], before, after, self.plane.width
        ):
            written = cv2.copyMakeBorder(seen, above, below, before, after, cv2.BORDER_REFLECT_101, dst=out)
            if written is not out:  # OpenCV writes in place what is laid out as it likes
                out[...] = written.reshape(out.shape)
        else:
            rows = reflect(np.arange(top, bottom), self.plane.height)
            columns = reflect(np.arange(left, right), self.plane.width)
            first = int(columns.min())
            out[...] = pixels[rows, first : int(columns.max()) + 1][:, columns - first]

    def paste(self, tile_map: NDArray[np.float32], tile: int, stitched: NDArray[np.float32]) -> None:
        """Copy the core's cells of one tile's map to their place.

        Args:
            tile_map: (input.height / stride, input.width / stride), what the graph gave.
            tile: index of the tile.
            stitched: (grid.height, grid.width), written where the tile owns it.
        """
        top, left, height, width = self._cells(tile)
        halo = self.halo // self.stride
        stitched[top : top + height, left : left + width] = tile_map[halo : halo + height, halo : halo + width]

    def kept(self, tile: int) -> NDArray[np.bool_]:
        """(h, w) of the graph's map: the cells that `paste` keeps, the ones to train on."""
        _, _, height, width = self._cells(tile)
        halo = self.halo // self.stride
        kept = np.zeros((self.input.height // self.stride, self.input.width // self.stride), dtype=np.bool_)
        kept[halo : halo + height, halo : halo + width] = True
        return kept

    def take(self, stitched: NDArray[np.bool_], tile: int, out: NDArray[np.bool_]) -> None:
        """The inverse of `paste`: copy a tile's own cells of a stitched grid to their place on the tile's map."""
        top, left, height, width = self._cells(tile)
        halo = self.halo // self.stride
        out[halo : halo + height, halo : halo + width] = stitched[top : top + height, left : left + width]

    def needed(self, cells: NDArray[np.bool_]) -> tuple[int, ...]:
        """The tiles whose core owns at least one of the given cells (grid.height, grid.width), in the plan's order."""
        return tuple(tile for tile in range(self.count) if cells[self.cells(tile)].any())

    def cells(self, tile: int) -> tuple[slice, slice]:
        """Rows and columns of the stitched map that a tile owns."""
        top, left, height, width = self._cells(tile)
        return slice(top, top + height), slice(left, left + width)

    def coverage(self) -> NDArray[np.uint8]:
        """(grid.height, grid.width): into how many tiles' keeping `paste` gives each cell; 1 everywhere."""
        covered = np.zeros((self.grid.height, self.grid.width), dtype=np.uint8)
        for tile in range(self.count):
            covered[self.cells(tile)] += 1
        return covered

    def _cells(self, tile: int) -> tuple[int, int, int, int]:
        """Top, left, height and width, in cells, of a tile's core on the stitched map."""
        height, width = self.core.height // self.stride, self.core.width // self.stride
        top, left = tile // self.columns * height, tile % self.columns * width
        return top, left, min(height, self.grid.height - top), min(width, self.grid.width - left)


def _folds(seen: int, before: int, after: int, length: int) -> bool:
    """Whether what lies beyond the plane on one axis is a reflection of the pixels that the tile sees on it."""
    return max(before, after) < seen or seen == length


def reflect(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Fold indices into [0, length) as BORDER_REFLECT_101 does, repeatedly; a length of 1 replicates."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    return np.asarray(np.minimum(folded, period - folded))


def _nearest(value: int, step: int) -> int:
    return max(step, round(value / step) * step)
