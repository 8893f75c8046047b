"""Owns where inspection happens: a region's crop, its valid area, and the plane that tiles are cut from."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Pixels, Size
from edge_runtime.imaging.maps import Map, centres, rescale
from edge_runtime.imaging.resize import resize, sources

Polygon: TypeAlias = tuple[tuple[int, int], ...]  # corners (x, y) in frame pixels


@dataclass(frozen=True, slots=True)
class Crop:
    """A box in frame pixels, x2 and y2 exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(self.x2 - self.x1, self.y2 - self.y1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """One named part of the frame.

    `valid` is (crop height, crop width), true where the score may come from; None where everything may.
    """

    name: str
    crop: Crop
    plane: Size
    valid: NDArray[np.bool_] | None

    def cut(self, pixels: Pixels) -> Pixels:
        """Crop and scale frame pixels (H, W, C) to the plane (plane.height, plane.width, C)."""
        crop = self.crop
        return resize(pixels[crop.y1 : crop.y2, crop.x1 : crop.x2], self.plane)

    def valid_on_plane(self) -> NDArray[np.bool_] | None:
        """(plane.height, plane.width): the valid area after scaling, by the nearest crop pixel."""
        return None if self.valid is None else self.mask_on_plane(self.valid)

    def mask_on_plane(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(plane.height, plane.width): a mask of the crop after scaling, by the nearest crop pixel."""
        if self.crop.size == self.plane:
            return mask
        rows = _nearest(self.crop.size.height, self.plane.height)
        columns = _nearest(self.crop.size.width, self.plane.width)
        return mask[rows[:, np.newaxis], columns]

    def shown_on_plane(self) -> NDArray[np.bool_] | None:
        """(plane.height, plane.width): pixels that the score or a valid pixel of the map depends on; None for all."""
        valid = self.valid_on_plane()
        if valid is None or self.valid is None or self.crop.size == self.plane:
            return valid
        height, width = self.valid.shape
        rows, columns = centres(self.plane.height, height), centres(self.plane.width, width)
        return valid | sources(self.valid, rows, columns, (self.plane.height, self.plane.width))

    def valid_on_grid(self, stride: int) -> NDArray[np.bool_] | None:
        """Cells (h, w) that hold at least one valid plane pixel."""
        plane = self.valid_on_plane()
        if plane is None:
            return None
        height, width = -(-plane.shape[0] // stride), -(-plane.shape[1] // stride)
        padded = np.zeros((height * stride, width * stride), dtype=np.bool_)
        padded[: plane.shape[0], : plane.shape[1]] = plane
        return np.asarray(padded.reshape(height, stride, width, stride).any(axis=(1, 3)))

    def to_frame(self, plane_map: Map) -> Map:
        """Bring a plane's map to the crop's pixels, (crop height, crop width), NaN where not valid."""
        region_map = rescale(plane_map, self.crop.size)
        if self.valid is None:
            return region_map
        return np.where(self.valid, region_map, np.float32(np.nan))


def region(
    *,
    name: str,
    crop: Crop,
    plane: Size,
    frame: Size,
    polygon: Polygon | None = None,
    valid_area: NDArray[np.bool_] | None = None,
) -> Region:
    """Make a region and check it against the frame.

    Args:
        name: what errors and results call it.
        crop: box in frame pixels.
        plane: size of the crop after scaling.
        frame: size of the frame.
        polygon: corners (x, y) in frame pixels; valid on and inside the outline.
        valid_area: (frame height, frame width), true where valid.

    Raises:
        ConfigError: crop, polygon or mask do not fit the frame, or leave nothing to inspect.
    """
    check_crop(name, (crop.x1, crop.y1, crop.x2, crop.y2), frame)
    valid = None if polygon is None else _inside(name, polygon, frame)
    if valid_area is not None:
        if valid_area.shape != (frame.height, frame.width):
            found = Size(valid_area.shape[1], valid_area.shape[0])
            message = (
                f"region {name}: valid-area mask is {found}, the frame {frame}: draw the mask on a frame of the camera"
            )
            raise ConfigError(message)
        valid = valid_area if valid is None else valid & valid_area
    if valid is not None:
        valid = np.ascontiguousarray(valid[crop.y1 : crop.y2, crop.x1 : crop.x2])
    made = Region(name=name, crop=crop, plane=plane, valid=valid)
    on_plane = made.valid_on_plane()
    if on_plane is not None and not on_plane.any():
        what = " and ".join(["polygon"] * (polygon is not None) + ["valid-area mask"] * (valid_area is not None))
        message = (
            f"region {name}: nothing is left to inspect of its box {crop.x1},{crop.y1},{crop.x2},{crop.y2} in the frame "
            f"{frame} by its {what}: valid pixels lie inside the polygon and are above 0 in the mask"
        )
        raise ConfigError(message)
    return made


def check_crop(name: str, crop: tuple[int, int, int, int], frame: Size) -> None:
    """Refuse a box that a frame does not have.

    Raises:
        ConfigError: it is empty or leaves the frame.
    """
    x1, y1, x2, y2 = crop
    if not (0 <= x1 < x2 <= frame.width and 0 <= y1 < y2 <= frame.height):
        message = (
            f"region {name}: crop {x1},{y1},{x2},{y2} is empty or leaves the frame {frame}: "
            "give X1,Y1,X2,Y2 in frame pixels, X2 and Y2 exclusive"
        )
        raise ConfigError(message)


def check_polygon(name: str, polygon: Polygon, frame: Size) -> None:
    """Refuse a polygon that encloses nothing, or not on the frame.

    Raises:
        ConfigError: it has too few corners, no area, or a corner outside the frame.
    """
    fault = polygon_fault(polygon)
    outside = [f"{x},{y}" for x, y in polygon if not (0 <= x < frame.width and 0 <= y < frame.height)]
    if fault is None and outside:
        fault = (
            f"corner {outside[0]} lies outside the frame {frame}: x runs from 0 to {frame.width - 1}, "
            f"y from 0 to {frame.height - 1}"
        )
    if fault is not None:
        message = f"region {name}: polygon {fault}"
        raise ConfigError(message)


def polygon_fault(polygon: Polygon) -> str | None:
    """What is wrong with a polygon on any frame; None where nothing is."""
    if len(polygon) < 3:  # noqa: PLR2004 - a polygon has three corners
        return f"has {len(polygon)} corner(s): give three at least, as x,y in frame pixels"
    (x0, y0), rest = polygon[0], polygon[1:]
    dx, dy = next(((x - x0, y - y0) for x, y in rest if (x, y) != (x0, y0)), (0, 0))
    if all((x - x0) * dy == (y - y0) * dx for x, y in rest):
        return f"has no area: its {len(polygon)} corners lie on one line, from {min(polygon)} to {max(polygon)}"
    return None


def _inside(name: str, polygon: Polygon, frame: Size) -> NDArray[np.bool_]:
    check_polygon(name, polygon, frame)
    drawn = np.zeros((frame.height, frame.width), dtype=np.uint8)
    cv2.fillPoly(drawn, [np.array(polygon, dtype=np.int32)], 1)
    return np.asarray(drawn > 0)


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.intp), source - 1)
