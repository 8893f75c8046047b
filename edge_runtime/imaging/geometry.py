"""Owns where inspection happens: a region's crop, its valid area, and the plane that tiles are cut from."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Pixels, Size
from edge_runtime.imaging.maps import Map, centres, rescale
from edge_runtime.imaging.resize import resize, sources


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
        if self.valid is None or self.crop.size == self.plane:
            return self.valid
        rows = _nearest(self.crop.size.height, self.plane.height)
        columns = _nearest(self.crop.size.width, self.plane.width)
        return self.valid[rows[:, np.newaxis], columns]

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
    polygon: tuple[tuple[int, int], ...] | None = None,
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
    if not (0 <= crop.x1 < crop.x2 <= frame.width and 0 <= crop.y1 < crop.y2 <= frame.height):
        message = f"region {name}: crop {crop.x1},{crop.y1},{crop.x2},{crop.y2} is empty or leaves the frame {frame}"
        raise ConfigError(message)
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
        message = f"region {name}: the mask leaves no pixel of {crop.size} to inspect: valid pixels are those above 0"
        raise ConfigError(message)
    return made


def _inside(name: str, polygon: tuple[tuple[int, int], ...], frame: Size) -> NDArray[np.bool_]:
    outside = [point for point in polygon if not (0 <= point[0] < frame.width and 0 <= point[1] < frame.height)]
    if len(polygon) < 3 or outside:  # noqa: PLR2004 - a polygon has three corners
        fault = f"corner {outside[0]} lies outside the frame {frame}" if outside else f"has {len(polygon)} corners"
        message = f"region {name}: polygon {fault}; corners are x,y in frame pixels, three at least"
        raise ConfigError(message)
    drawn = np.zeros((frame.height, frame.width), dtype=np.uint8)
    cv2.fillPoly(drawn, [np.array(polygon, dtype=np.int32)], 1)
    return np.asarray(drawn > 0)


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.intp), source - 1)
