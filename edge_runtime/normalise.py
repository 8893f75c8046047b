"""Owns the score that people see: 0 to 1000, the threshold at 100. It is for display; nothing decides on it."""

import math

CEILING = 1000.0
MARK = 100.0


def threshold_relative(score: float, threshold: float) -> float:
    """Put a raw score on a scale where the raw threshold is 100, always on the raw decision's side of 100.

    Positive thresholds map s to 100 s / t, zero to 100 (s + 1), negative ones to 200 - 100 s / t. The result is
    clipped to 0..1000; where rounding would put a score on the wrong side, it stays a hair below 100.

    Args:
        score: raw image score; not finite gives NaN.
        threshold: raw reject threshold, finite.
    """
    if not math.isfinite(score):
        return math.nan
    if threshold > 0:
        scaled = MARK * (score / threshold)
    elif threshold == 0:
        scaled = MARK * (score + 1.0)
    else:
        scaled = 2 * MARK - MARK * (score / threshold)
    clipped = min(max(scaled, 0.0), CEILING)
    if score >= threshold:
        return max(clipped, MARK)
    return min(clipped, math.nextafter(MARK, 0.0))
