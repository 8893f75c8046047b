"""What status says of answers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journals import acceptance, answer

from edge_runtime.decision import Reason, Verdict
from edge_runtime.service.monitor import CameraFigures, percentiles


@pytest.mark.parametrize(("percent", "expected"), [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0)])
def test_percentiles_of_a_hundred_values_are_those_values(percent: str, expected: float) -> None:
    assert percentiles([float(value) for value in range(100, 0, -1)])[percent] == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_so_many_percent_of_the_values_do_not_exceed_a_percentile_and_it_is_the_smallest_such(
    values: list[float],
) -> None:
    found = percentiles(values)
    for percent in (50, 90, 99):
        at = found[f"p{percent}"]
        assert at in values
        assert sum(value <= at for value in values) >= math.ceil(len(values) * percent / 100)
        assert sum(value < at for value in values) < math.ceil(len(values) * percent / 100)
    assert found["max"] == max(values)


def test_no_value_has_no_percentile() -> None:
    assert percentiles([]) == {"p50": None, "p90": None, "p99": None, "max": None, "n": 0}


def test_answers_are_counted_by_verdict_and_reason_and_the_shares_are_of_the_last_thousand() -> None:
    figures = CameraFigures()
    for _ in range(600):
        figures.note(answer(acceptance("t"), Verdict.REJECT))
    for _ in range(600):
        figures.note(answer(acceptance("t"), Verdict.ERROR, Reason.TIMEOUT))
    said = figures.as_json()
    assert said["verdicts"] == {"ACCEPT": 0, "REVIEW": 0, "REJECT": 600, "ERROR": 600}
    assert said["reasons"] == {"TIMEOUT": 600}
    assert said["recent"] == {"n": 1000, "accept": 0.0, "review": 0.0, "reject": 0.4, "error": 0.6}
    assert said["latency_ms"]["frame"]["n"] == 1000
    assert said["latency_ms"]["queue"]["n"] == 0


def test_before_the_first_answer_there_are_no_shares() -> None:
    assert CameraFigures().as_json()["recent"] == {
        "n": 0,
        "accept": None,
        "review": None,
        "reject": None,
        "error": None,
    }
