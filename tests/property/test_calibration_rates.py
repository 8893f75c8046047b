"""Clopper and Pearson's interval is exact: the reference is scipy's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from calibration.rates import rate


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    """K of n, the borders drawn often."""
    n = draw(st.integers(1, 400))
    return draw(st.sampled_from([0, n]) | st.integers(0, n)), n


@settings(deadline=None)
@given(counts(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_scipys_exact_binomial_interval(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    found = rate(k, n, confidence=confidence)
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert found is not None
    assert found.value == k / n
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


@settings(deadline=None)
@given(counts())
def test_the_interval_holds_the_rate_and_mirrors_that_of_the_complement(count: tuple[int, int]) -> None:
    k, n = count
    found, other = rate(k, n), rate(n - k, n)
    assert found is not None
    assert other is not None
    assert found.low <= found.value <= found.high
    assert (found.low, found.high) == (pytest.approx(1 - other.high, abs=1e-9), pytest.approx(1 - other.low, abs=1e-9))
