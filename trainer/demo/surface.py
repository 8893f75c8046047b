"""The machined surface: the drawing, placed in the image and cut into metal.

Everything here is in pixels, y down. A slope is the surface normal's x or y over its z.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import cv2
import numpy as np

from trainer.demo import drawing
from trainer.demo.drawing import Feature
from trainer.demo.placement import Plane, Pose, capsule, feature_window, step

_TURNS = 1024  # samples of the turned grain around the part


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """What the light meets; every plane is (H, W) float32."""

    slope_x: Plane
    slope_y: Plane
    grain_x: Plane  # direction of the tool marks, unit length
    grain_y: Plane
    tilt: Plane  # slope of the tool marks across their direction
    reflect: Plane  # light given back, about 1 on bare metal
    gloss: Plane  # weight of the highlight, about 1 on bare metal
    direct: Plane  # share of the lamp that no shadow takes, 0 to 1
    solid: Plane  # 1 on the part, 0 beside it and in its holes
    floor: Plane  # radiance seen where the part is not

    def crop(self, rows: slice, cols: slice) -> "Surface":
        """Copy a rectangle of every plane."""
        return Surface(**{f.name: getattr(self, f.name)[rows, cols].copy() for f in fields(self)})


def turned_body(rng: np.random.Generator, pose: Pose, fixture: Plane, shadow: tuple[float, float]) -> Surface:
    """Turn the part's face and rim, without holes, and lay it on the fixture.

    Args:
        rng: Source of the tool marks.
        pose: Where the part lies.
        fixture: (H, W) radiance of the bare fixture.
        shadow: How far a shadow falls, in px right and down, per px of height.

    """
    dx = np.arange(pose.width, dtype=np.float32)[None, :] - np.float32(pose.x)
    dy = np.arange(pose.height, dtype=np.float32)[:, None] - np.float32(pose.y)
    xs = np.broadcast_to(dx, fixture.shape).copy()
    ys = np.broadcast_to(dy, fixture.shape).copy()
    radius, theta = (np.asarray(p, np.float32) for p in cv2.cartToPolar(xs, ys))
    inverse = np.reciprocal(np.maximum(radius, np.float32(0.5)))
    out_x, out_y = xs * inverse, ys * inverse
    slope = _profile_slope(radius, pose.radius)
    grain = _turned_grain(rng, radius, theta - np.float32(pose.angle), pose.radius)
    hub, height = drawing.HUB * pose.radius, drawing.HUB_HEIGHT * pose.radius
    shade = _disc_shadow(dx, dy, hub, height, shadow) * step(radius - hub)
    thickness = drawing.THICKNESS * pose.radius
    dark = _disc_shadow(dx, dy, pose.radius, thickness, shadow)
    return Surface(
        slope_x=slope * out_x,
        slope_y=slope * out_y,
        grain_x=-out_y,
        grain_y=out_x,
        tilt=grain * np.float32(0.085),
        reflect=1 + grain * np.float32(0.036),
        gloss=np.ones_like(radius),
        direct=1 - shade,
        solid=step(np.float32(pose.radius) - radius),
        floor=fixture * (1 - np.float32(0.62) * dark),
    )


def _disc_shadow(dx: Plane, dy: Plane, radius: float, height: float, shadow: tuple[float, float]) -> Plane:
    """Shadow of a disc `height` px above the ground: (H, W), 1 in its core."""
    x = dx - np.float32(shadow[0] * height)
    y = dy - np.float32(shadow[1] * height)
    # the lamp has a size, so an edge's penumbra widens with its height
    return step(np.float32(radius) - np.sqrt(x * x + y * y), 1 + 0.7 * height)


def _profile_slope(radius: Plane, scale: float) -> Plane:
    """Outward fall of the turned profile at each radius, antialiased by a table."""
    per_px = 8
    table = np.zeros(int(1.05 * scale * per_px) + 2, np.float32)
    for start, slope in drawing.PROFILE:
        table[int(start * scale * per_px) :] = slope
    table = cv2.GaussianBlur(table[None, :], (0, 0), 0.45 * per_px)[0]
    index = np.minimum(radius * np.float32(per_px), len(table) - 1).astype(np.int32)
    return np.asarray(table[index], np.float32)


def _turned_grain(rng: np.random.Generator, radius: Plane, theta: Plane, scale: float) -> Plane:
    """Tool marks of turning, long around the part: mean 0, standard deviation 1."""
    rings = int(1.05 * scale) + 2
    grain = np.zeros((rings, _TURNS), np.float32)
    pitch, cells = 1, 64
    while pitch < rings // 6:
        rows = rings // pitch + 2
        noise = rng.standard_normal((rows, cells), np.float32)
        # a mark runs round the whole part and fades in and out as it goes
        noise = noise * np.float32(0.6) + noise[:, :1] * np.float32(0.8)
        noise = np.concatenate([noise[:, -2:], noise, noise[:, :2]], axis=1)
        repeat = _TURNS // cells
        size = ((cells + 4) * repeat, rows * pitch)
        wide = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
        grain += wide[:rings, 2 * repeat : -2 * repeat] * np.float32(pitch**-0.25)
        pitch, cells = pitch * 2, max(8, cells // 2)
    grain /= grain.std()
    turns = theta * np.float32(_TURNS / math.tau)
    return np.asarray(
        cv2.remap(grain, turns, radius, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP),
        np.float32,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How one feature of the drawing came out on one part."""

    feature: Feature
    dust: float  # radiance at the bottom, if it goes through
    left_in: Plane | float = 0.0  # share not cut; (h, w) is on the feature's window


def machine(surface: Surface, pose: Pose, shadow: tuple[float, float], cuts: Iterable[Cut]) -> None:
    """Cut features and the engraved mark into a turned body, in place.

    Args:
        surface: The whole image's surface.
        pose: Where the part lies.
        shadow: How far a shadow falls, in px right and down, per px of height.
        cuts: The features, those cut first coming first.

    """
    for cut in cuts:
        _cut(surface, pose, shadow, cut)
    _engrave(surface, pose)


def _cut(surface: Surface, pose: Pose, shadow: tuple[float, float], cut: Cut) -> None:
    """Drill or mill one feature, in place; arguments as for `machine`."""
    feature = cut.feature
    win = feature_window(pose, feature)
    in_along, in_across, inside = capsule(win, pose, feature)
    open_ = step(inside)
    bevel = step(inside + np.float32(feature.chamfer * pose.radius))
    left_in = np.asarray(cut.left_in, np.float32)
    # the chamfer is cut first, so a shallow hole still has nearly all of it
    rim = bevel * (1 - left_in**3)
    fall = np.float32(0.5) * (1 - open_)
    _mix(surface.slope_x[win.box], (in_along * win.cos - in_across * win.sin) * fall, rim)
    _mix(surface.slope_y[win.box], (in_along * win.sin + in_across * win.cos) * fall, rim)
    _mix(surface.tilt[win.box], np.float32(0), rim * np.float32(0.7))
    depth = feature.depth * pose.radius
    # the lamp reaches the floor through the opening, seen from where it shines
    opening = win.moved(shadow[0] * depth, shadow[1] * depth)
    lit = step(capsule(opening, pose, feature)[2], 1 + 0.5 * depth)
    hole = open_ * (1 - left_in)
    if feature.through:
        # what is open already, as the bore under its keyway, keeps its floor
        fresh = surface.solid[win.box] * (open_ > 0)
        _mix(surface.floor[win.box], np.float32(cut.dust) * (1 + 2 * lit), fresh)
        surface.solid[win.box] *= 1 - hole
        return
    corner = 1 - np.float32(0.45) * np.exp(-np.maximum(inside, 0) / np.float32(1.5))
    surface.direct[win.box] *= 1 - hole * (1 - lit)
    surface.reflect[win.box] *= 1 - hole * (1 - np.float32(0.74) * corner)
    _mix(surface.grain_x[win.box], np.float32(win.cos), hole)
    _mix(surface.grain_y[win.box], np.float32(win.sin), hole)


def _engrave(surface: Surface, pose: Pose) -> None:
    """Cut the mark into the flange, in place."""
    at = math.radians(drawing.MARK_AT)
    centre = (drawing.BOLT_CIRCLE * math.cos(at), drawing.BOLT_CIRCLE * math.sin(at))
    size = drawing.MARK_HEIGHT * pose.radius
    win = pose.window(centre, 0.0, 1.9 * drawing.MARK_HEIGHT)
    distance = np.full_like(win.along, np.inf)
    for x0, y0, x1, y1 in drawing.MARK:
        ax, ay = win.along - np.float32(x0 * size), win.across - np.float32(y0 * size)
        bx, by = (x1 - x0) * size, (y1 - y0) * size
        t = (ax * np.float32(bx) + ay * np.float32(by)) / (bx * bx + by * by)
        t = np.clip(t, 0, 1)
        np.minimum(distance, np.hypot(ax - t * bx, ay - t * by), out=distance)
    half = np.float32(drawing.MARK_STROKE * pose.radius)
    groove = step(half - distance)
    depth = np.clip(1 - distance / (half + np.float32(0.7)), 0, 1)
    down_y, down_x = np.gradient(depth * half)
    surface.slope_x[win.box] += down_x.astype(np.float32)
    surface.slope_y[win.box] += down_y.astype(np.float32)
    surface.reflect[win.box] *= 1 - np.float32(0.38) * groove
    surface.gloss[win.box] *= 1 - np.float32(0.60) * groove


def _mix(target: Plane, value: Plane | np.float32, weight: Plane) -> None:
    """Blend `value` into `target` in place."""
    target += (value - target) * weight
