import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.camera.clock import ArrivalClock


def test_frames_that_waited_are_dated_back_by_the_time_they_waited() -> None:
    clock = ArrivalClock()
    on_time = [clock.arrived(100 + n * 0.04, 7000 + n * 40) for n in range(5)]
    assert on_time == pytest.approx([100 + n * 0.04 for n in range(5)])
    burst = [clock.arrived(101.0, 7000 + n * 40) for n in range(5, 10)]  # all at once, long after
    assert burst == pytest.approx([100 + n * 0.04 for n in range(5, 10)])


def test_a_device_without_stamps_gets_its_arrival_times() -> None:
    clock = ArrivalClock()
    assert [clock.arrived(now, 0.0) for now in (1.0, 2.0, 2.5)] == [1.0, 2.0, 2.5]
    assert clock.arrived(3.0, math.nan) == 3.0


def test_a_stream_that_begins_anew_is_measured_anew() -> None:
    clock = ArrivalClock()
    clock.arrived(10.0, 90_000)
    assert clock.arrived(11.0, 40) == 11.0
    assert clock.arrived(11.5, 80) == pytest.approx(11.04)


def test_a_clock_that_runs_slow_for_a_day_is_followed() -> None:
    """Otherwise no frame would ever be late enough again."""
    clock = ArrivalClock()
    drift = 1 - 100e-6
    for second in range(86_400):
        arrived = clock.arrived(float(second), second * 1000 * drift)
    assert second - arrived < 0.1


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5e4)), min_size=1))
def test_no_frame_arrived_later_than_it_did(steps: list[tuple[float, float]]) -> None:
    clock, now = ArrivalClock(), 0.0
    for pause, stamp in steps:
        now += pause
        assert clock.arrived(now, stamp) <= now
