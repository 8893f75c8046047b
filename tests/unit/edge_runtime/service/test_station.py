"""The state is the first thing that is wrong, and its reason says what."""

import pytest

from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import State, TriggerMode
from edge_runtime.service.station import CameraCondition, Station


def camera(
    name: str = "top",
    *,
    trigger: TriggerMode = TriggerMode.SOFTWARE,
    worker: bool = True,
    connected: bool = True,
    source: bool = True,
) -> CameraCondition:
    return CameraCondition(
        name=name,
        trigger=trigger,
        worker=worker,
        loading="is being loaded",
        connected=connected,
        source=source,
        detail="no signal",
    )


def test_a_start_goes_from_preoperational_over_initialized_to_ready() -> None:
    station = Station()
    assert station.state([camera(worker=False, connected=False, source=False)], 0)[0] is State.PREOPERATIONAL
    assert station.state([camera(connected=False, source=False)], 0)[0] is State.INITIALIZED
    assert station.state([camera(source=False)], 0) == (State.INITIALIZED, "top: no signal")
    assert station.state([camera()], 0)[0] is State.READY


def test_what_breaks_after_ready_is_an_error_that_is_named() -> None:
    station = Station()
    station.state([camera()], 0)
    assert station.state([camera(worker=False)], 0) == (State.ERROR, "top: is being loaded")
    assert station.state([camera("top"), camera("side", source=False)], 0) == (State.ERROR, "side: no signal")
    assert station.state([camera(), camera("side")], 0)[0] is State.READY


def test_halted_is_said_before_the_journal_and_the_journal_before_cameras() -> None:
    station = Station(journal="disk full")
    broken = [camera(worker=False)]
    assert station.state(broken, 0) == (State.ERROR, "journal: disk full")
    station.halted = True
    assert station.state(broken, 0)[0] is State.HALTED
    station.stopping = True
    assert station.state(broken, 0) == (State.HALTED, "going down")


def test_ready_says_what_is_in_work() -> None:
    station = Station()
    assert station.state([camera()], 2) == (State.SINGLE_EXECUTION, "2 trigger(s) in work")
    stream = camera(trigger=TriggerMode.STREAM)
    assert station.state([camera(), stream], 0)[0] is State.CONTINUOUS_EXECUTION
    assert all(state.ready for state in (State.READY, State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION))
    assert not any(state.ready for state in (State.PREOPERATIONAL, State.HALTED, State.ERROR, State.INITIALIZED))


@pytest.mark.parametrize(
    ("station", "condition", "reason", "word"),
    [
        (Station(stopping=True), camera(), Reason.NOT_READY, "going down"),
        (Station(halted=True), camera(), Reason.NOT_READY, "halted"),
        (Station(journal="disk full"), camera(), Reason.NOT_READY, "disk full"),
        (Station(), camera(worker=False), Reason.NOT_READY, "is being loaded"),
        (Station(), camera(connected=False), Reason.NOT_READY, "no signal"),
        (Station(), camera(source=False), Reason.NO_FRAME, "no signal"),
    ],
    ids=["stopping", "halted", "journal", "worker", "connected", "source"],
)
def test_a_trigger_that_cannot_be_inspected_is_refused_with_why(
    station: Station, condition: CameraCondition, reason: Reason, word: str
) -> None:
    refusal = station.refusal(condition)
    assert refusal is not None
    assert refusal[0] is reason
    assert word in refusal[1]


def test_one_broken_camera_does_not_stop_another() -> None:
    assert Station().refusal(camera("side")) is None
