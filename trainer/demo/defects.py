"""What can be wrong with a demo part: four kinds of defect, three contrasts.

The seed alone decides a defect's place, size and shape; the contrast only its strength.
At low contrast it changes the image about as much as tool marks and noise do.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.demo import drawing
from trainer.demo.drawing import Feature
from trainer.demo.placement import Plane, Pose, Window, capsule, feature_window, step
from trainer.demo.surface import Surface


class DefectKind(StrEnum):
    """What is wrong."""

    SCRATCH = "scratch"
    DENT = "dent"
    STAIN = "stain"
    MISSING = "missing"


class Contrast(StrEnum):
    """How well it shows; for a missing feature, how much of it is missing."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """One way to spoil a part."""

    kind: DefectKind
    contrast: Contrast


# scratch: relative change of light; dent: slope of its wall; stain: opacity;
# missing: share of the depth left uncut
_STRENGTH = {
    DefectKind.SCRATCH: (0.07, 0.42, 0.95),
    DefectKind.DENT: (0.025, 0.2, 0.45),
    DefectKind.STAIN: (0.035, 0.3, 0.75),
    DefectKind.MISSING: (0.07, 0.55, 1.0),
}
# RGB a stain lets through: oil, grease, heat
_STAINS = ((0.55, 0.42, 0.25), (0.30, 0.30, 0.32), (0.52, 0.58, 0.72))


def strength(defect: Defect) -> float:
    """How strongly to draw the defect, in its kind's own unit."""
    return _STRENGTH[defect.kind][list(Contrast).index(defect.contrast)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blemish:
    """A defect's effect inside its window."""

    window: Window
    surface: Surface  # of the window
    tint: NDArray[np.float32]  # (h, w, 3) factor on the radiance
    footprint: Plane  # (h, w), 0 to 1, where the surface is altered


def scratch(
    rng: np.random.Generator,
    pose: Pose,
    surface: Surface,
    radiance: Plane,
    depth: float,
) -> Blemish:
    """Drag a sharp edge over the part: a groove of torn metal.

    Args:
        rng: Source of its place and shape.
        pose: Where the part lies.
        surface: The good part's surface, left as it is.
        radiance: (H, W) of the good part.
        depth: From `strength`.

    """
    length = rng.uniform(0.28, 0.80)
    turn = rng.uniform(0, math.tau)
    win = pose.window(_spot(rng, 0.02), turn, 0.62 * length)
    length *= pose.radius
    bend, wave = rng.uniform(-0.10, 0.10), rng.uniform(0, 0.006)
    phase = np.float32(rng.uniform(0, math.tau))
    s = win.along * np.float32(2 / length)  # -1 to 1 from end to end
    path = np.float32(bend) * (1 - s * s) + np.float32(wave) * np.sin(5 * s + phase)
    off = win.across - path * np.float32(length)
    knots = rng.uniform(0.55, 1.0, 9)
    press = np.interp(s, np.linspace(-1, 1, 9), knots).astype(np.float32)
    press *= np.clip((1 - np.abs(s)) * np.float32(4), 0, 1)
    width = max(rng.uniform(0.005, 0.009) * pose.radius, 0.6)
    groove = press * _ridge(off, width)
    if rng.random() < 0.4:  # the edge that scratched had a second burr
        off -= np.float32(rng.uniform(3, 7) * width)
        groove = np.maximum(groove, np.float32(0.7) * press * _ridge(off, width))
    part = surface.crop(win.rows, win.cols)
    wall_y, wall_x = np.gradient(groove * np.float32(0.5 * width * min(depth, 0.6)))
    part.slope_x[:] += wall_x
    part.slope_y[:] += wall_y
    # torn metal scatters: it breaks a highlight and glints beside one
    footprint = groove * part.solid
    here = float(np.average(radiance[win.box], weights=footprint + np.float32(1e-9)))
    change = rng.uniform(-0.70, -0.55) if here > 0.72 else rng.uniform(0.65, 0.90)
    tint = 1 + footprint[..., None] * np.float32(change * depth)
    return Blemish(window=win, surface=part, tint=tint, footprint=footprint)


def dent(rng: np.random.Generator, pose: Pose, surface: Surface, depth: float) -> Blemish:
    """Knock a dent into the part: dark towards the lamp, bright away from it."""
    size = rng.uniform(0.045, 0.115)
    win = pose.window(_spot(rng, 0.6 * size), rng.uniform(0, math.tau), 1.9 * size)
    size *= pose.radius
    rho = _lump(rng, win, size, rng.uniform(0.55, 1.0))
    bowl = np.maximum(1 - rho * rho, 0) ** 2
    lip = _ridge(rho - 1, 0.13)  # metal pushed aside
    height = (np.float32(0.10) * lip - bowl) * np.float32(depth * size / 1.54)
    part = surface.crop(win.rows, win.cols)
    rise_y, rise_x = np.gradient(height)
    part.slope_x[:] -= rise_x
    part.slope_y[:] -= rise_y
    part.gloss[:] *= 1 - np.float32(min(0.8 * depth, 0.3)) * bowl
    footprint = step(np.float32(1.22) - rho, 0.1) * part.solid
    tint = np.ones((*rho.shape, 3), np.float32)
    return Blemish(window=win, surface=part, tint=tint, footprint=footprint)


def stain(rng: np.random.Generator, pose: Pose, surface: Surface, opacity: float) -> Blemish:
    """Let something dry on the part: uneven inside, darker along its border."""
    size = rng.uniform(0.06, 0.17)
    win = pose.window(_spot(rng, 0.4 * size), rng.uniform(0, math.tau), 2.4 * size)
    colour = np.asarray(_STAINS[rng.integers(len(_STAINS))], np.float32)
    size *= pose.radius
    rho = _lump(rng, win, size, rng.uniform(0.5, 1.0))
    for _ in range(rng.integers(0, 3)):  # splashes beside it
        drop, away = np.float32(rng.uniform(0.12, 0.3)), rng.uniform(1.0, 1.8)
        way = rng.uniform(0, math.tau)
        x = win.along / np.float32(size) - np.float32(away * math.cos(way))
        y = win.across / np.float32(size) - np.float32(away * math.sin(way))
        rho = np.minimum(rho, 1 + np.hypot(x, y) - drop)
    mottle = np.zeros_like(rho)
    for cells, weight in ((6, 0.8), (18, 0.5)):
        cloud = rng.standard_normal((cells, cells), np.float32) * np.float32(weight)
        mottle += cv2.resize(cloud, rho.shape[::-1], interpolation=cv2.INTER_CUBIC)
    rho += np.float32(0.05) * mottle
    cover = step((1 - rho) * np.float32(size), max(0.16 * size, 1.0))
    edge = _ridge(rho - np.float32(0.90), 0.09) * cover
    part = surface.crop(win.rows, win.cols)
    footprint = cover * part.solid
    film = np.clip(0.70 + 0.20 * mottle + 0.25 * edge, 0.2, 1.2) * footprint
    film = film.astype(np.float32) * np.float32(opacity)
    part.gloss[:] *= 1 - np.float32(0.5) * film
    tint = 1 - film[..., None] * (1 - colour)
    return Blemish(window=win, surface=part, tint=tint, footprint=footprint)


def uncut(rng: np.random.Generator, pose: Pose, share: float) -> tuple[Feature, Plane, Plane]:
    """Choose a feature to leave uncut, wholly or on one side.

    Returns:
        The feature, and on its window the (h, w) share of its depth left in and the
        (h, w) footprint, both 0 to 1.

    """
    feature = drawing.REMOVABLE[rng.integers(len(drawing.REMOVABLE))]
    win = feature_window(pose, feature)
    inside = capsule(win, pose, feature)[2]
    plug = np.ones_like(inside)
    whole = rng.random() < 0.65
    way, offset = rng.uniform(0, math.tau), rng.uniform(-0.35, 0.25)
    wave, phase = rng.uniform(0.05, 0.15), np.float32(rng.uniform(0, math.tau))
    if not whole:  # swarf or a broken tool plugs one side of it
        size = feature.radius * pose.radius
        c, d = np.float32(math.cos(way)), np.float32(math.sin(way))
        x, y = win.along * c + win.across * d, win.across * c - win.along * d
        ragged = np.float32(wave * size) * np.sin(y * np.float32(5 / size) + phase)
        plug = step(x + ragged - np.float32(offset * size))
    footprint = plug * step(inside + np.float32(feature.chamfer * pose.radius), 1.5)
    return feature, plug * np.float32(share), footprint


def _ridge(offset: Plane, width: float) -> Plane:
    """Bell of height 1 over `offset`, falling to 1/e at `width`."""
    scaled = offset * np.float32(1 / width)
    return np.exp(-scaled * scaled)


def _lump(rng: np.random.Generator, win: Window, size: float, aspect: float) -> Plane:
    """Distance from the window's centre in sizes of an irregular oval, (h, w)."""
    x = win.along * np.float32(1 / size)
    y = win.across * np.float32(1 / (size * aspect))
    angle = np.arctan2(y, x)
    shape = np.ones_like(x)
    for order, most in ((2, 0.12), (3, 0.10), (5, 0.05), (7, 0.03)):
        swing, phase = rng.uniform(0, most), rng.uniform(0, math.tau)
        shape += np.float32(swing) * np.sin(order * angle + np.float32(phase))
    return np.asarray(np.sqrt(x * x + y * y) * shape, np.float32)


def _spot(rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """Draw a place on the part with `margin` of metal around it, in outer radii."""
    best, most = (0.0, 0.40), -math.inf
    for _ in range(60):
        # the square root spreads places evenly over the face
        reach = math.sqrt(rng.uniform(drawing.BORE**2, 1))
        angle = rng.uniform(0, math.tau)
        place = (reach * math.cos(angle), reach * math.sin(angle))
        room = drawing.clearance(*place)
        if room > margin:
            return place
        if room > most:
            best, most = place, room
    return best
