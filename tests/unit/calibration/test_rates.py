"""Rates: the few cases that a property cannot name."""

import pytest
from scipy.stats import binomtest

from calibration.rates import rate


def test_nothing_observed_gives_no_rate() -> None:
    assert rate(0, 0) is None


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5)])
def test_an_impossible_count_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}"):
        rate(k, n)


def test_the_interval_is_95_percent_unless_told_otherwise() -> None:
    found = rate(3, 40)
    expected = binomtest(3, 40).proportion_ci(0.95, method="exact")
    assert found is not None
    assert found.confidence == 0.95
    assert found.as_json() == {
        "value": 0.075,
        "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high),
        "n": 40,
    }


def test_no_rejects_in_a_line_s_day_still_leave_room_above_and_none_below() -> None:
    found = rate(0, 20_000)
    assert found is not None
    assert found.low == 0.0
    assert found.high == pytest.approx(binomtest(0, 20_000).proportion_ci(0.95, method="exact").high)
