"""Owns rates: how many of how many, and the interval that so few observations allow."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_STEPS = 200  # bisection far below the resolution of a float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """k of n, with the exact two-sided Clopper-Pearson interval.

    Clopper and Pearson, Biometrika 26 (1934), 404-413.
    """

    k: int
    n: int
    confidence: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share k / n."""
        return self.k / self.n

    def as_json(self) -> dict[str, float | int]:
        """The keys that scripts read."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def rate(k: int, n: int, *, confidence: float = 0.95) -> Rate | None:
    """The rate k of n with its interval; None where nothing was observed.

    Raises:
        ValueError: k is not in 0..n.
    """
    if n == 0:
        return None
    if not 0 <= k <= n:
        message = f"{k} of {n} is no rate"
        raise ValueError(message)
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else _solve(lambda p: _at_most(n - k, n, 1 - p) - tail)
    high = 1.0 if k == n else _solve(lambda p: tail - _at_most(k, n, p))
    return Rate(k=k, n=n, confidence=confidence, low=low, high=high)


def _solve(rising: Callable[[float], float]) -> float:
    """The root in (0, 1) of a function that rises through 0."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _at_most(k: int, n: int, p: float) -> float:
    """Chance of at most k successes in n trials of chance p."""
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or k >= n else 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    whole = math.lgamma(n + 1)
    terms = (whole - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q for i in range(k + 1))
    return min(1.0, math.fsum(math.exp(term) for term in terms))
