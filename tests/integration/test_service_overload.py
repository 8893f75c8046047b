"""Too much at once, or too little time: said in words, in time, and over when it is over."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.line import Line, frozen, until
from support.raw import Wires, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, Grab, Transport, TriggerMode

SLOTS = 4


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One worker, and few slots."""
    folder = tmp_path_factory.mktemp("overload")
    given = {"name": "given", "bundle": str(stub), "source": "client", "slots": SLOTS}
    asked = {"name": "asked", "bundle": str(stub), "source": "process", "slots": SLOTS}
    line = Line(folder, given, asked)
    try:
        line.start(ready=False)
        until(lambda: (status := line.status()) and status["workers"], "its worker")
        yield line
    finally:
        line.end()


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def right(answer: Answer, value: int) -> bool:
    """Whether an answer is the true one for a brightness."""
    return answer.score == value and answer.verdict is (Verdict.REJECT if value >= 128 else Verdict.ACCEPT)


def ran_out(answer: Answer, detail: str) -> bool:
    """Whether an answer is a timeout; where the disk was too slow for that as well, it says so instead."""
    if answer.reason is Reason.JOURNAL:
        return answer.verdict is Verdict.ERROR and "ERROR/TIMEOUT" in answer.detail
    return (answer.verdict, answer.reason, answer.detail) == (Verdict.ERROR, Reason.TIMEOUT, detail)


def test_more_frames_than_slots_are_refused_and_the_rest_is_right(bench: Wires, line: Line) -> None:
    client = bench.client()
    values = [10, 200, 30, 140, 50, 160, 70]
    with frozen(line.pid("worker")):
        triggers = [client.send("given", value=value, deadline_ms=60_000) for value in values]
        refused = [client.answer(trigger) for trigger in triggers[SLOTS:]]
    assert [(answer.verdict, answer.reason) for answer in refused] == [(Verdict.ERROR, Reason.OVERLOAD)] * 3
    assert all("slots" in answer.detail for answer in refused)
    for trigger, value in zip(triggers[:SLOTS], values, strict=False):
        assert right(client.answer(trigger), value)
    assert right(client.inspect("given", value=77, deadline_ms=60_000), 77)


def test_more_triggers_than_a_camera_can_hold_are_refused_and_the_rest_is_right(bench: Wires) -> None:
    camera = bench.camera("asked", TriggerMode.SOFTWARE, Transport.MEMORY)
    camera.value = None
    client = bench.client()
    bench.pump(0.1)
    for _ in range(3):
        triggers = [client.send("asked", deadline_ms=60_000) for _ in range(SLOTS + 3)]
        over = [client.answer(trigger) for trigger in triggers[SLOTS:]]
        assert [answer.reason for answer in over] == [Reason.OVERLOAD] * 3
        for value, _ in enumerate(triggers[:SLOTS], 120):
            camera.expose(value, trigger_id=camera.hear(Grab).trigger_id)
        answers = [client.answer(trigger) for trigger in triggers[:SLOTS]]
        assert [answer.score for answer in answers] == [120, 121, 122, 123]
        bench.until(lambda: len(camera.grants) == SLOTS, "the slots to be granted again")
    assert camera.all_heard(Grab) == []


def test_an_inspection_over_the_deadline_is_a_timeout_and_its_late_result_is_nobodys(bench: Wires, line: Line) -> None:
    client = bench.client()
    for value in (50, 200, 60):
        with frozen(line.pid("worker")):
            late = client.inspect("given", value=250 - value, deadline_ms=500)
        assert ran_out(late, "the frame was being inspected when the deadline of 500 ms ran out")
        bench.until(lambda: (line.status() or {})["cameras"][0]["ready"], "the disk to work again")
        assert right(client.inspect("given", value=value, deadline_ms=60_000), value)


def test_what_waits_behind_others_times_out_and_is_never_inspected(bench: Wires, line: Line) -> None:
    client = bench.client()
    before = inspected(line)
    with frozen(line.pid("worker")):
        long = client.send("given", value=30, deadline_ms=60_000)
        short = [client.send("given", value=value, deadline_ms=500) for value in (41, 42)]
        answers = [client.answer(trigger) for trigger in short]
    assert all(
        ran_out(answer, "the frame waited for a worker when the deadline of 500 ms ran out") for answer in answers
    )
    assert right(client.answer(long), 30)
    bench.until(lambda: (line.status() or {})["cameras"][0]["ready"], "the disk to work again")
    assert right(client.inspect("given", value=43, deadline_ms=60_000), 43)
    assert inspected(line) == before + 2


def inspected(line: Line) -> int:
    """How many frames the worker has inspected."""
    (worker,) = (line.status() or {})["workers"]
    return int(worker["inspected"])


def test_the_timeout_reaches_the_client_before_its_own_deadline(bench: Wires, line: Line) -> None:
    """The line's clock starts when the trigger is sent; a slow moment of this machine is not the service's, so three tries."""
    client = bench.client()
    spent = []
    for _ in range(3):
        with frozen(line.pid("worker")):
            sent = time.monotonic()
            answer = client.inspect("given", value=50, deadline_ms=400)
            spent.append((time.monotonic() - sent) * 1000)
        assert ran_out(answer, "the frame was being inspected when the deadline of 400 ms ran out")
        bench.until(lambda: (line.status() or {})["cameras"][0]["ready"], "the disk to work again")
        assert client.inspect("given", value=50, deadline_ms=60_000).score == 50
    assert min(spent) < 400


def test_a_thousand_triggers_at_once_get_an_answer_each(bench: Wires) -> None:
    client = bench.client()
    triggers = [client.send("given", deadline_ms=60_000) for _ in range(2000)]  # without a frame, so without work
    bench.until(lambda: sum(isinstance(header, Answer) for header in client.heard) >= 2000, "all answers")
    answers = client.all_heard(Answer)
    assert [answer.trigger_id for answer in answers] == [trigger.trigger_id for trigger in triggers]
    assert {answer.verdict for answer in answers} == {Verdict.ERROR}
