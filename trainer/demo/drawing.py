"""The demo part's drawing: a turned flange with its holes, slots, profile and mark.

Lengths are shares of the part's outer radius; angles are degrees, clockwise on screen.
"""

import math
from dataclasses import dataclass

HUB = 0.50  # foot of the raised hub
HUB_HEIGHT = 0.05
THICKNESS = 0.12
BORE = 0.23
BOLT_CIRCLE = 0.755

# (radius, slope outward from there on) of the turned face; > 0 falls away outward
PROFILE = (
    (0.00, 0.00),
    (0.472, 0.60),  # flank of the hub
    (HUB, -0.25),  # fillet at its foot
    (0.512, 0.00),
    (0.578, 0.60),  # sealing groove: in, floor, out
    (0.587, 0.00),
    (0.596, -0.60),
    (0.605, 0.00),
    (0.955, 0.50),  # chamfered rim
)

# Strokes of the engraved mark "TK 40": x0, y0, x1, y1 in glyph heights, y down
MARK = (
    (-1.66, -0.50, -1.04, -0.50),
    (-1.35, -0.50, -1.35, 0.50),
    (-0.75, -0.50, -0.75, 0.50),
    (-0.75, 0.05, -0.18, -0.50),
    (-0.56, -0.13, -0.16, 0.50),
    (0.80, 0.50, 0.80, -0.50),
    (0.80, -0.50, 0.34, 0.20),
    (0.34, 0.20, 0.96, 0.20),
    (1.22, -0.28, 1.22, 0.28),
    (1.66, -0.28, 1.66, 0.28),
    (1.22, -0.28, 1.44, -0.50),
    (1.44, -0.50, 1.66, -0.28),
    (1.22, 0.28, 1.44, 0.50),
    (1.44, 0.50, 1.66, 0.28),
)
MARK_HEIGHT = 0.105
MARK_STROKE = 0.011  # half width
MARK_AT = 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A hole or slot: every point within `radius` of a segment."""

    at: float  # polar angle of its centre
    reach: float  # distance of its centre from the part's centre
    radius: float
    chamfer: float
    half_length: float = 0.0  # of the segment; 0 is a round hole
    turn: float = 0.0  # of the segment against the part's radius
    depth: float = 0.12
    through: bool = True  # shows the dark fixture, not a metal floor

    @property
    def centre(self) -> tuple[float, float]:
        """Right of and below the part's centre."""
        angle = math.radians(self.at)
        return self.reach * math.cos(angle), self.reach * math.sin(angle)

    @property
    def extent(self) -> float:
        """Radius of the circle that holds the feature and its chamfer."""
        return self.half_length + self.radius + self.chamfer


FEATURES = (
    Feature(at=0, reach=0, radius=BORE, chamfer=0.032),
    Feature(at=-90, reach=0.245, radius=0.046, chamfer=0.012, half_length=0.06),
    *(Feature(at=60 * i, reach=BOLT_CIRCLE, radius=0.068, chamfer=0.026) for i in range(6)),
    Feature(at=330, reach=BOLT_CIRCLE, radius=0.034, chamfer=0.012),
    Feature(
        at=210,
        reach=BOLT_CIRCLE,
        radius=0.062,
        chamfer=0.010,
        half_length=0.10,
        turn=90,
        depth=0.035,
        through=False,
    ),
)
REMOVABLE = FEATURES[1:]  # a part without its bore would be no part


def clearance(x: float, y: float) -> float:
    """Distance from a point of the part to the nearest edge of a feature or the rim."""
    to_rim = PROFILE[-1][0] - math.hypot(x, y)
    gaps = [to_rim]
    for feature in FEATURES:
        cx, cy = feature.centre
        axis = math.radians(feature.at + feature.turn)
        c, s = math.cos(axis), math.sin(axis)
        along = max(abs((x - cx) * c + (y - cy) * s) - feature.half_length, 0.0)
        across = (y - cy) * c - (x - cx) * s
        gaps.append(math.hypot(along, across) - feature.radius - feature.chamfer)
    return min(gaps)
