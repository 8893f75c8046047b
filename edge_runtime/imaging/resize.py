"""Owns resampling: pixels to another size, and maps from one grid to another.

Libraries disagree about antialiasing, and SIMD builds of one library about rounding; a score must not. Pixels are
therefore resampled with integer weights whose sums stay exact in floating point, so that every machine gets the same
bytes whatever its matrix product does.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Pixels, Size

RESIZE_VERSION = 1
"""Recorded in every bundle; changes when the same pixels would come out otherwise."""

_BLOCK_ROWS = 32  # of a map, sampled in one go
_WEIGHT_BITS = 12
_BETWEEN_BITS = 4  # fractional bits kept between the passes: 8 + 4 + 12 = 24 bits, exact in float32


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Resample (H, W, C) pixels to `size` with a triangle filter, antialiased, bit for bit the same everywhere.

    The filter is bilinear interpolation when enlarging and is widened by the scale when shrinking.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        size: width and height of the result.

    Returns:
        (size.height, size.width, C) of the same dtype.
    """
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    work = np.float32 if pixels.dtype == np.uint8 else np.float64  # wide enough for exact integer sums
    rows = _pass(pixels.astype(work), size.height)
    rows = np.floor(rows / (1 << (_WEIGHT_BITS - _BETWEEN_BITS)) + 0.5)
    columns = _pass(np.ascontiguousarray(rows.transpose(1, 0, 2)), size.width).transpose(1, 0, 2)
    result = np.floor(columns / (1 << (_WEIGHT_BITS + _BETWEEN_BITS)) + 0.5)
    return np.ascontiguousarray(result.astype(pixels.dtype))


def _pass(pixels: NDArray[np.floating], length: int) -> NDArray[np.floating]:
    """Weighted sums along the first axis, scaled by 2**_WEIGHT_BITS."""
    flat = pixels.reshape(pixels.shape[0], -1)
    result = np.empty((length, flat.shape[1]), dtype=flat.dtype)
    for row, (start, weights) in enumerate(_filter(pixels.shape[0], length)):
        np.matmul(weights.astype(flat.dtype), flat[start : start + len(weights)], out=result[row])
    return result.reshape(length, *pixels.shape[1:])


@lru_cache(maxsize=32)
def _filter(source: int, target: int) -> tuple[tuple[int, NDArray[np.int64]], ...]:
    """First source index and integer weights, summing to 2**_WEIGHT_BITS, of every target index."""
    scale = source / target
    support = max(scale, 1.0)
    taps = []
    for index in range(target):
        centre = (index + 0.5) * scale
        start = max(int(np.floor(centre - support)), 0)
        stop = min(int(np.ceil(centre + support)), source)
        distance = np.abs(np.arange(start, stop) + 0.5 - centre) / support
        weights = np.clip(1.0 - distance, 0.0, None)
        whole = np.floor(weights / weights.sum() * (1 << _WEIGHT_BITS) + 0.5).astype(np.int64)
        whole[np.argmax(whole)] += (1 << _WEIGHT_BITS) - whole.sum()  # a constant image stays constant
        taps.append((start, whole))
    return tuple(taps)


def interpolate(
    values: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sample a map bilinearly at fractional positions; positions outside take the border's value.

    Args:
        values: (h, w) float32.
        rows: (H,) positions along the first axis, in cells of `values`, cell centres at whole numbers.
        columns: (W,) positions along the second axis.

    Returns:
        (H, W) float32.
    """
    return _along(np.ascontiguousarray(_along(values, rows).T), columns).T


def sources(
    seen: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which values `interpolate` reads for some of its samples.

    Args:
        seen: (H, W), the samples in question.
        rows: (H,) positions, growing, as `interpolate` takes them.
        columns: (W,) positions, growing.
        shape: height and width of the values.

    Returns:
        (h, w), true for every value that a sample in question depends on, perhaps for some more.
    """
    read = _sources_along(seen, rows, shape[0])
    return _sources_along(np.ascontiguousarray(read.T), columns, shape[1]).T


def _sources_along(seen: NDArray[np.bool_], positions: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    """Along the first axis: the values between which the samples that are seen are interpolated."""
    lower = np.floor(np.clip(positions, 0, length - 1)).astype(np.intp)
    read = np.zeros((length, seen.shape[1]), dtype=np.bool_)
    first = np.flatnonzero(np.diff(lower, prepend=-1))  # of each run of samples that lie after the same value
    read[lower[first]] = np.logical_or.reduceat(seen, first, axis=0)
    read[1:] |= read[:-1].copy()  # and the value after it
    return read


def _along(values: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    clamped = np.clip(positions, 0, values.shape[0] - 1)
    lower = np.floor(clamped).astype(np.intp)
    upper = np.minimum(lower + 1, values.shape[0] - 1)
    weight = (clamped - lower).astype(np.float32)[:, np.newaxis]
    # this form, and not a * (1 - w) + b * w, returns a constant map unchanged to the last bit
    sampled = np.empty((len(positions), values.shape[1]), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # a sick map comes out as NaN or infinity, not as a warning
        for start in range(0, len(positions), _BLOCK_ROWS):  # what lies between stays in the processor's cache
            part = slice(start, start + _BLOCK_ROWS)
            low = values[lower[part]]
            sampled[part] = low + (values[upper[part]] - low) * weight[part]
    return sampled
