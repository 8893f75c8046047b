"""Where a part lies in the image, and windows on it with axes of their own.

Everything here is in pixels, y down.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.demo.drawing import Feature

Plane: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A rectangle of the image with axes of its own."""

    rows: slice
    cols: slice
    along: Plane  # (h, w) px along the window's axis
    across: Plane  # (h, w) px, a quarter turn clockwise from the axis on screen
    cos: float  # the axis in the image
    sin: float

    def moved(self, right: float, down: float) -> "Window":
        """Shift the origin over the image, in px; the pixels stay the same."""
        return replace(
            self,
            along=self.along - np.float32(right * self.cos + down * self.sin),
            across=self.across - np.float32(down * self.cos - right * self.sin),
        )

    @property
    def box(self) -> tuple[slice, slice]:
        """Index of the window in an image."""
        return self.rows, self.cols


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Where a part lies in the image."""

    width: int
    height: int
    x: float
    y: float
    radius: float
    angle: float  # radians, clockwise on screen

    def window(self, centre: tuple[float, float], turn: float, extent: float) -> Window:
        """Open a window on the part.

        Args:
            centre: Right of and below the part's centre, in outer radii.
            turn: The window's axis on the part, radians.
            extent: Half the side of the square it covers at least, in outer radii.

        """
        c, s = math.cos(self.angle), math.sin(self.angle)
        px = self.x + self.radius * (c * centre[0] - s * centre[1])
        py = self.y + self.radius * (s * centre[0] + c * centre[1])
        half = extent * self.radius + 3
        left, right = max(0, int(px - half)), min(self.width, int(px + half) + 2)
        top, bottom = max(0, int(py - half)), min(self.height, int(py + half) + 2)
        dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(px)
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(py)
        cos, sin = math.cos(turn + self.angle), math.sin(turn + self.angle)
        return Window(
            rows=slice(top, bottom),
            cols=slice(left, right),
            along=dx * np.float32(cos) + dy * np.float32(sin),
            across=dy * np.float32(cos) - dx * np.float32(sin),
            cos=cos,
            sin=sin,
        )


def step(distance: Plane, softness: float = 1.0) -> Plane:
    """Antialiased share, 0 to 1, of a pixel that lies `distance` px inside an edge."""
    share = distance / np.float32(softness) + np.float32(0.5)
    return np.asarray(np.clip(share, 0, 1), np.float32)


def feature_window(pose: Pose, feature: Feature) -> Window:
    """Window around a feature, its axis along the slot."""
    turn = math.radians(feature.at + feature.turn)
    return pose.window(feature.centre, turn, feature.extent)


def capsule(win: Window, pose: Pose, feature: Feature) -> tuple[Plane, Plane, Plane]:
    """Direction inward (along, across) and distance inside the wall, px."""
    half = np.float32(feature.half_length * pose.radius)
    along = win.along - np.clip(win.along, -half, half)
    distance = np.sqrt(along * along + win.across * win.across)
    inverse = np.reciprocal(np.maximum(distance, np.float32(0.5)))
    inside = np.float32(feature.radius * pose.radius) - distance
    return -along * inverse, -win.across * inverse, inside
