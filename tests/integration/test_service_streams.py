"""Streams: every frame of a camera that runs freely is a trigger of its own, and a record."""

from pathlib import Path

import pytest
from support.line import Line, frozen, serving, until
from support.raw import Consumer, Wires, paint, painted, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, State, Transport, TriggerMode

VALUES = (50, 200, 60)


def test_every_frame_of_a_stream_is_a_record_and_an_answer_to_who_follows(stub: Path, tmp_path: Path) -> None:
    source = f"folder:{paint(tmp_path / 'images', *VALUES)}"
    belt = {"name": "belt", "bundle": str(stub), "source": source, "trigger": "stream", "period_ms": 40}
    with serving(tmp_path, {**belt, "deadline_ms": 20_000}) as line, wires(line.port) as bench:
        assert (line.status() or {})["state"] == State.CONTINUOUS_EXECUTION
        consumer = bench.consumer("mes", last_acked=0)
        follower = bench.client(follow=("belt",))
        other = bench.client(follow=("elsewhere",))
        bench.until(lambda: len(follower.heard) >= 10, "ten answers")
        bench.until(lambda: len(consumer.records) >= 30, "thirty records")
        records = list(consumer.records)
        assert {record.client for record in records} == {"@belt"}
        first = records[0].counter or 0  # exposures before the service was there are none of its own
        assert [record.counter for record in records] == list(range(first, first + len(records)))
        assert [record.trigger_id for record in records] == [str(record.counter) for record in records]
        assert consumer.seqs == list(range(1, len(consumer.seqs) + 1))
        for record in records:
            if record.reason is None:
                assert record.score == painted(record.label)
                assert record.verdict is (Verdict.REJECT if painted(record.label) >= 128 else Verdict.ACCEPT)
        answers = follower.all_heard(Answer)
        ids = [int(answer.trigger_id) for answer in answers]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        by_id = {record.trigger_id: record for record in records}
        assert all(by_id[a.trigger_id].seq == a.seq for a in answers if a.trigger_id in by_id)
        assert other.all_heard(Answer) == []
        client = bench.client()
        refused = client.inspect("belt")
        assert (refused.verdict, refused.reason) == (Verdict.ERROR, Reason.FRAME_MISMATCH)
        assert "stream" in refused.detail


def test_a_stream_that_outruns_its_worker_says_so_for_every_frame_it_loses(stub: Path, tmp_path: Path) -> None:
    source = f"folder:{paint(tmp_path / 'images', *VALUES)}"
    belt = {"name": "belt", "bundle": str(stub), "source": source, "trigger": "stream", "period_ms": 20, "slots": 2}
    with serving(tmp_path, {**belt, "deadline_ms": 60_000}) as line, wires(line.port) as bench:
        consumer = bench.consumer("mes", last_acked=0)
        with frozen(line.pid("worker")):
            bench.until(
                lambda: sum(record.reason is Reason.OVERLOAD for record in consumer.records) >= 5, "overload to be said"
            )
        bench.until(lambda: consumer.records[-1].reason is None, "it to be over")
        lost = [record for record in consumer.records if record.reason is Reason.OVERLOAD]
        assert {record.verdict for record in lost} == {Verdict.ERROR}
        bench.until(lambda: gapless(consumer), "a record for every exposure")
        assert (line.status() or {})["cameras"][0]["reasons"]["OVERLOAD"] >= 5
        # the camera's own count comes with its heartbeat
        bench.until(lambda: (line.status() or {})["cameras"][0]["dropped"] >= 5, "the camera to say what it dropped")


def gapless(consumer: Consumer) -> bool:
    """Whether there is a record for each exposure, in whatever order they were decided."""
    counters = sorted(record.counter or 0 for record in consumer.records)
    return counters == list(range(counters[0], counters[0] + len(counters)))


@pytest.fixture
def line(stub: Path, tmp_path: Path) -> Line:
    """A stream whose camera is the test's own."""
    return Line(tmp_path, {"name": "belt", "bundle": str(stub), "source": "process", "trigger": "stream"})


def test_a_stream_goes_on_counting_over_a_new_camera_process(line: Line) -> None:
    """Its own counter starts anew, so ids of the stream must not."""
    try:
        line.start(ready=False)
        until(lambda: (status := line.status()) and status["workers"], "the worker")
        with wires(line.port) as bench:
            _two_cameras(bench, line)
    finally:
        line.end()


def _two_cameras(bench: Wires, line: Line) -> None:
    consumer = bench.consumer("mes")
    for values in ((40, 41, 42), (50, 51)):
        camera = bench.camera("belt", TriggerMode.STREAM, Transport.MESSAGE)
        bench.until(lambda: (line.status() or {})["ready"], "Ready")
        count = len(consumer.records)
        for value in values:
            camera.expose(value)
        bench.until(lambda: len(consumer.records) == count + len(values), "a record for each")  # noqa: B023 - used at once
        camera.close()
        bench.until(lambda: not (line.status() or {})["ready"], "the camera to lapse")
    assert [record.score for record in consumer.records] == [40, 41, 42, 50, 51]
    assert [record.trigger_id for record in consumer.records] == ["1", "2", "3", "4", "5"]
