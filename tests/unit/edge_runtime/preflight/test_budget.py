"""What a budget says of a cost."""

import pytest

from edge_runtime.preflight import budget
from edge_runtime.preflight.budget import Budget, Cost, free_mb, milliseconds, peak_mb

COST = Cost(latency_ms=120.0, memory_mb=300.0)


def test_what_fits_has_no_excess() -> None:
    assert Budget(deadline_ms=120, memory_mb=300).excesses(COST) == ()
    assert Budget().excesses(COST) == ()


def test_each_number_that_does_not_fit_is_said_with_what_it_should_fit() -> None:
    assert Budget(deadline_ms=119).excesses(COST) == ("takes 120 ms, --deadline-ms is 119",)
    assert Budget(deadline_ms=119, memory_mb=299).excesses(COST) == (
        "takes 120 ms, --deadline-ms is 119",
        "takes 300 MB, --memory-mb is 299",
    )


def test_the_memory_that_is_free_is_always_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "free_mb", lambda: 200.0)
    assert Budget().excesses(COST) == ("takes 300 MB, of this machine's memory 200 MB are free",)


def test_this_machine_says_what_is_free_and_what_this_process_took() -> None:
    free, peak = free_mb(), peak_mb()
    assert free is not None
    assert peak is not None
    before = peak
    bytearray(60_000_000)
    after = peak_mb()
    assert after is not None
    assert after >= before
    assert 10 < peak < 100_000


@pytest.mark.parametrize(("value", "said"), [(4.213, "4.21 ms"), (87.26, "87.3 ms"), (1240.4, "1240 ms")])
def test_milliseconds_have_three_digits_and_no_powers_of_ten(value: float, said: str) -> None:
    assert milliseconds(value) == said
