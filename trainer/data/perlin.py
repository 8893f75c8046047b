"""Owns Perlin noise, and the masks of synthetic anomalies that are cut from it.

Perlin, SIGGRAPH 1985; masks as in Zavrtanik et al., ICCV 2021, arXiv:2108.07610.
"""

import math

import numpy as np
from numpy.typing import NDArray

MASK_THRESHOLD = 0.5
OCTAVES = 6  # a side of the mask holds 2**0 to 2**5 cells of noise
_LATTICE = 64  # gradients a side, repeated beyond


def perlin(
    rng: np.random.Generator, height: int, width: int, *, cells: tuple[int, int], angle: float
) -> NDArray[np.float32]:
    """Gradient noise, about -1 to 1.

    Args:
        rng: source of the gradients.
        height: of the result.
        width: of the result.
        cells: how many lie along height and width.
        angle: by which the noise is turned, in radians.

    Returns:
        (height, width) float32.
    """
    direction = rng.uniform(0, 2 * math.pi, (_LATTICE, _LATTICE))
    shift = rng.uniform(0, _LATTICE, 2)
    rows, columns = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    y, x = np.meshgrid(rows, columns, indexing="ij")
    # the noise is evaluated where the turned pixels lie: turning an image of it would leave its corners empty
    v = (y * math.cos(angle) + x * math.sin(angle)) * cells[0] + shift[0]
    u = (x * math.cos(angle) - y * math.sin(angle)) * cells[1] + shift[1]
    top, left = np.floor(v), np.floor(u)
    dv, du = v - top, u - left
    row, column = top.astype(np.intp), left.astype(np.intp)
    corners = [
        _ramp(direction, row + below, column + right, dv - below, du - right) for below in (0, 1) for right in (0, 1)
    ]
    fade_v, fade_u = _fade(dv), _fade(du)
    upper = corners[0] + (corners[1] - corners[0]) * fade_u
    lower = corners[2] + (corners[3] - corners[2]) * fade_u
    return np.asarray(math.sqrt(2) * (upper + (lower - upper) * fade_v), dtype=np.float32)


def perlin_mask(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width): blobs where turned noise of a drawn fineness is above 0.5; perhaps none."""
    fineness = rng.integers(0, OCTAVES, 2)
    cells = (2 ** int(fineness[0]), 2 ** int(fineness[1]))
    noise = perlin(rng, height, width, cells=cells, angle=rng.uniform(-math.pi / 2, math.pi / 2))
    return np.asarray(noise > MASK_THRESHOLD)


def _ramp(
    direction: NDArray[np.float64],
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    down: NDArray[np.float64],
    right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What the gradient at a corner of the lattice gives at an offset from there."""
    angle = direction[row % _LATTICE, column % _LATTICE]
    return np.asarray(np.sin(angle) * down + np.cos(angle) * right)


def _fade(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(t * t * t * (t * (6 * t - 15) + 10))
