"""The lamp and the camera: from a surface to the bytes a sensor gives.

Radiance is linear, 1.0 just clips the sensor. The highlight is Ward's anisotropic lobe
(SIGGRAPH 1992): narrow along the tool marks and wide across them, which is what draws
the bright double fan on a turned face.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.demo.placement import Plane, step
from trainer.demo.surface import Surface

_ALONG = 0.17  # roughness along the tool marks
_ACROSS = 0.50  # and across them
_FULL_WELL = 9000.0  # electrons at radiance 1
_BODY = (0.972, 0.988, 1.0)  # RGB of aluminium seen by scattered light
_READ_NOISE = 0.0035  # standard deviation, radiance


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """One lamp beside the camera, the room around it, and how evenly both fall."""

    azimuth: float  # radians, where the lamp stands, clockwise from right on screen
    elevation: float  # radians above the part
    gain: float
    gradient: tuple[float, float]  # relative change over the image, right and down
    vignette: float  # loss at the image's corner, 0 to 1
    tint: tuple[float, float, float]  # RGB

    @property
    def shadow(self) -> tuple[float, float]:
        """Where a shadow falls, px right and down per px of height."""
        reach = -1 / math.tan(self.elevation)
        return reach * math.cos(self.azimuth), reach * math.sin(self.azimuth)


def draw_light(rng: np.random.Generator) -> Light:
    """Vary the lamp as a station does over a shift."""
    lean = rng.uniform(0.05, 0.16)
    toward = math.radians(rng.normal(-128, 18))
    warm = rng.normal(0, 0.004)
    return Light(
        azimuth=math.radians(rng.normal(-128, 2.5)),
        elevation=math.radians(rng.normal(52, 1.0)),
        gain=float(rng.normal(1, 0.03)),
        gradient=(lean * math.cos(toward), lean * math.sin(toward)),
        vignette=float(rng.uniform(0.12, 0.22)),
        tint=(float(1 + warm), 1.0, float(1 - warm)),
    )


def shade(surface: Surface, light: Light) -> NDArray[np.float32]:
    """Light a surface: (H, W, 3) radiance before the lens."""
    lx = math.cos(light.azimuth) * math.cos(light.elevation)
    ly = math.sin(light.azimuth) * math.cos(light.elevation)
    lz = math.sin(light.elevation)
    sx, sy = surface.slope_x, surface.slope_y
    upright = 1 / (1 + sx * sx + sy * sy)  # squared cosine of the surface's lean
    facing = np.maximum(sx * np.float32(lx) + sy * np.float32(ly) + np.float32(lz), 0)
    lamp = _highlight(surface, lx / (1 + lz), ly / (1 + lz))
    # a second, weak reflection of the room opposite keeps far flanks from going black
    room = _highlight(surface, -0.8 * lx / (1 + lz), -0.8 * ly / (1 + lz))
    diffuse = facing * np.sqrt(upright) * np.float32(0.30) * surface.direct
    diffuse += np.float32(0.24) * upright
    lit = lamp * surface.direct * np.float32(0.62) + room * np.float32(0.16)
    metal = np.float32(light.gain) * surface.reflect * surface.solid
    shine = metal * surface.gloss * lit
    diffuse *= metal
    beside = surface.floor * (1 - surface.solid)
    planes = [
        (diffuse * np.float32(body) + shine + beside) * np.float32(tint)
        for body, tint in zip(_BODY, light.tint, strict=True)
    ]
    return np.asarray(cv2.merge(planes), np.float32)


def _highlight(surface: Surface, half_x: float, half_y: float) -> Plane:
    """Ward lobe for a half vector leaning by (half_x, half_y): (H, W), 0 to 1."""
    ex, ey = np.float32(half_x) - surface.slope_x, np.float32(half_y) - surface.slope_y
    along = (ex * surface.grain_x + ey * surface.grain_y) * np.float32(1 / _ALONG)
    across = ey * surface.grain_x - ex * surface.grain_y - surface.tilt
    across *= np.float32(1 / _ACROSS)
    return np.exp(-(along * along) - across * across)


def falloff(light: Light, width: int, height: int) -> Plane:
    """Vignetting and gradient: (H, W) factor, about 1."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    rim = 1 - np.float32(light.vignette / 2) * (x * x + y * y)
    gx, gy = light.gradient
    return rim * (1 + np.float32(gx) * x + np.float32(gy) * y)


def focus(radiance: NDArray[np.float32], blur: float) -> NDArray[np.float32]:
    """Blur by the lens: Gaussian of `blur` px standard deviation."""
    return np.asarray(cv2.GaussianBlur(radiance, (0, 0), blur), np.float32)


def expose(radiance: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Expose the sensor.

    Args:
        radiance: (H, W, 3) at the sensor.
        noise: (H, W, 3) standard normal draws, one per photosite.

    Returns:
        (H, W, 3) uint8.

    """
    variance = np.maximum(radiance, 0) * np.float32(1 / _FULL_WELL)
    signal = radiance + noise * np.sqrt(variance + np.float32(_READ_NOISE**2))
    # the camera's knee: highlights roll off instead of clipping hard
    over = np.maximum(signal - np.float32(0.78), 0)
    knee = signal - over + np.float32(0.2) * (1 - np.exp(over * np.float32(-5)))
    return np.asarray(np.clip(knee * 255 + np.float32(0.5), 0, 255), np.uint8)


def fixture(width: int, height: int) -> Plane:
    """Radiance of the dark fixture, the same for every part: (H, W)."""
    rng = np.random.default_rng(20)
    size = min(width, height)
    fine = rng.standard_normal((height, width), np.float32)
    brushed = cv2.blur(fine, (max(3, size // 16), 1)) * np.float32(math.sqrt(size / 16))
    plate = np.float32(0.115) + np.float32(0.007) * brushed + np.float32(0.004) * fine
    unit = 0.42 * size
    x = np.arange(width, dtype=np.float32)[None, :] / unit - (width - 1) / 2 / unit
    y = np.arange(height, dtype=np.float32)[:, None] / unit - (height - 1) / 2 / unit
    for angle in (45, 165, 285):  # pins that locate the part
        a = math.radians(angle)
        px, py = 1.115 * math.cos(a), 1.115 * math.sin(a)
        gap = (0.06 - np.hypot(x - px, y - py)) * unit
        shine = 0.30 + 1.6 * (px - x + py - y)
        plate += step(gap.astype(np.float32)) * (shine.astype(np.float32) - plate)
    return np.asarray(plate, np.float32)
