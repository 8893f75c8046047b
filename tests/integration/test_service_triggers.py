"""Triggers: each gets exactly one answer, the same one however often it is asked for."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.line import Line, frozen, serving, until
from support.raw import Client, Wires, paint, painted, picture, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import (
    Answer,
    ClientWelcome,
    Code,
    FrameSpec,
    Header,
    Queued,
    Refused,
    TriggerMode,
)

VALUES = (50, 200, 127, 128, 254)


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A camera of a folder, and one whose frames come with the trigger."""
    folder = tmp_path_factory.mktemp("triggers")
    source = f"folder:{paint(folder / 'images', *VALUES)}"
    top = {"name": "top", "bundle": str(stub), "source": source}
    given = {"name": "given", "bundle": str(stub), "source": "client"}
    with serving(folder, top, given) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def mono(width: int, height: int, pixel_format: PixelFormat = PixelFormat.MONO8) -> FrameSpec:
    """The layout of a grey frame."""
    return FrameSpec(width=width, height=height, pixel_format=pixel_format)


def journalled(line: Line, client: str) -> list[Answer]:
    """What the journal's file holds for a client, in order."""
    with sqlite3.connect(f"file:{line.run_dir / 'journal.sqlite'}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT body FROM verdicts ORDER BY seq").fetchall()
    answers = [Answer.model_validate_json(row[0]) for row in rows]
    return [answer for answer in answers if answer.client == client]


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers say the same; the times may differ."""
    blank: dict[str, object] = {"timings_ms": other.timings_ms, "expired": False}
    return one.model_copy(update=blank) == other.model_copy(update=blank)


def order(client: Client, first: type[Header], last: type[Header]) -> bool:
    """Whether the first message of one kind came before that of the other."""
    kinds = [type(header) for header in client.heard]
    return kinds.index(first) < kinds.index(last)


def test_a_client_is_told_what_there_is(bench: Wires, line: Line) -> None:
    welcome = bench.stranger("curious").enter()
    assert (welcome.station, welcome.epoch) == ("test", 1)
    assert [(camera.name, camera.trigger, camera.takes_frames) for camera in welcome.cameras] == [
        ("top", TriggerMode.SOFTWARE, False),
        ("given", TriggerMode.SOFTWARE, True),
    ]
    assert [(camera.frame.width, camera.frame.height) for camera in welcome.cameras] == [(96, 64)] * 2
    assert "curious" in (line.status() or {})["peers"]["clients"]


def test_the_brightest_pixel_of_the_frame_that_was_taken_decides(bench: Wires) -> None:
    client = bench.client("bright")
    answers = [client.inspect(part_id=f"part {index}") for index in range(2 * len(VALUES))]
    assert sorted(painted(answer.label) for answer in answers) == sorted(VALUES * 2)
    for index, answer in enumerate(answers):
        value = painted(answer.label)
        assert answer.score == value
        assert answer.verdict is (Verdict.REJECT if value >= 128 else Verdict.ACCEPT)
        assert (answer.reason, answer.expired, answer.journaled, answer.replayed) == (None, False, True, False)
        assert (answer.part_id, answer.threshold, answer.client) == (f"part {index}", 128.0, "bright")
        assert answer.timings_ms.total is not None
    counters = [answer.counter for answer in answers]
    assert counters == list(range(counters[0] or 0, (counters[0] or 0) + len(counters)))


def test_the_acceptance_is_on_disk_before_the_answer_leaves(bench: Wires, line: Line) -> None:
    client = bench.client("queue")
    for number in range(1, 6):
        client.send("given", value=40)
        bench.until(lambda: any(isinstance(header, Answer) for header in client.heard), "answer")
        assert order(client, Queued, Answer)
        client.heard.clear()
        assert len(journalled(line, "queue")) == number


def test_a_retry_gets_the_same_answer(bench: Wires, line: Line) -> None:
    client = bench.client("again")
    first = client.inspect("given", "one", value=77, deadline_ms=60_000)
    retries = [client.inspect("given", "one", value=77, deadline_ms=60_000) for _ in range(3)]
    assert all(same(retry, first) for retry in retries)
    assert not any(retry.expired for retry in retries)
    assert [answer.seq for answer in journalled(line, "again")] == [first.seq]


def test_a_retry_while_the_trigger_is_in_work_gets_the_one_answer(bench: Wires, line: Line) -> None:
    client = bench.client("impatient")
    triggers = [client.send(trigger_id="one", deadline_ms=30_000) for _ in range(4)]
    first = client.answer(triggers[0])
    bench.pump(0.2)
    assert all(same(answer, first) for answer in client.all_heard(Answer))
    assert len(journalled(line, "impatient")) == 1


def test_after_the_deadline_the_answer_is_marked_expired(bench: Wires) -> None:
    client = bench.client("late")
    first = client.inspect("given", "one", value=20, deadline_ms=700)
    assert (first.verdict, first.expired) == (Verdict.ACCEPT, False)
    bench.pump(0.8)
    again = client.inspect("given", "one", value=20, deadline_ms=700)
    assert again.expired
    assert same(again, first)


@pytest.mark.parametrize("other", [{"part_id": "B"}, {"deadline_ms": 60_001}, {"camera": "top"}, {"value": 21}])
def test_the_same_id_with_other_content_is_a_conflict(bench: Wires, line: Line, other: dict[str, object]) -> None:
    name = f"twice-{next(iter(other))}"
    client = bench.client(name)
    content = {"camera": "given", "part_id": "A", "deadline_ms": 60_000, "value": 20}
    first = client.inspect(trigger_id="one", **content)
    wrong = client.inspect(trigger_id="one", **{**content, **other})
    assert first.verdict is Verdict.ACCEPT
    assert (wrong.verdict, wrong.reason) == (Verdict.ERROR, Reason.CONFLICT)
    assert same(client.inspect(trigger_id="one", **content), first)
    assert [(answer.seq, answer.reason) for answer in journalled(line, name)] == [
        (first.seq, None),
        (wrong.seq, Reason.CONFLICT),
    ]


def test_a_camera_that_is_not_there_is_an_error_that_names_those_that_are(bench: Wires, line: Line) -> None:
    answer = bench.client("lost").inspect("left")
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.UNKNOWN_CAMERA)
    assert "top" in answer.detail
    assert "given" in answer.detail
    assert [stored.reason for stored in journalled(line, "lost")] == [Reason.UNKNOWN_CAMERA]


@pytest.mark.parametrize("epoch", [0, 999])
def test_an_unknown_id_of_another_epoch_gets_restart_and_always_the_same(bench: Wires, line: Line, epoch: int) -> None:
    client = bench.client(f"old-{epoch}")
    first = client.inspect(trigger_id="one", epoch=epoch)
    again = client.inspect(trigger_id="one", epoch=epoch)
    assert (first.verdict, first.reason, first.epoch) == (Verdict.ERROR, Reason.RESTART, epoch)
    assert same(again, first)
    assert [answer.seq for answer in journalled(line, f"old-{epoch}")] == [first.seq]


def test_frames_of_the_client_are_what_is_inspected(bench: Wires) -> None:
    client = bench.client("frames")
    triggers = [(value, client.send("given", value=value)) for value in (10, 200, 90, 130)]
    for value, trigger in triggers:
        answer = client.answer(trigger)
        assert (answer.score, answer.verdict) == (value, Verdict.REJECT if value >= 128 else Verdict.ACCEPT)


@pytest.mark.parametrize(
    ("camera", "given", "reason"),
    [
        ("given", {}, Reason.NO_FRAME),
        ("given", {"frame": mono(96, 64)}, Reason.NO_FRAME),
        ("given", {"pixels": picture(50)}, Reason.NO_FRAME),
        ("given", {"frame": mono(64, 96), "pixels": picture(50)}, Reason.BAD_IMAGE),
        ("given", {"frame": mono(96, 64, PixelFormat.MONO16), "pixels": picture(50)}, Reason.BAD_IMAGE),
        ("given", {"frame": mono(96, 64), "pixels": picture(50)[:-1]}, Reason.BAD_IMAGE),
        ("given", {"frame": mono(96, 64), "pixels": b""}, Reason.BAD_IMAGE),
        ("top", {"frame": mono(96, 64), "pixels": picture(50)}, Reason.BAD_IMAGE),
    ],
)  # fmt: skip
def test_a_frame_that_is_not_what_the_bundle_inspects_is_refused_in_words(
    bench: Wires, camera: str, given: dict[str, object], reason: Reason
) -> None:
    client = bench.client()
    answer = client.inspect(camera, **given)
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, reason)
    assert answer.detail
    assert client.inspect("given", value=60).score == 60


def test_a_frame_that_is_far_too_large_ends_nothing_but_its_own_connection(bench: Wires) -> None:
    giant = bench.client("giant")
    giant.mute = True
    spec = mono(4000, 4000)
    giant.send("given", frame=spec, pixels=bytes(16_000_000))
    bench.pump(0.3)
    assert giant.all_heard(Answer) == []
    assert bench.client("other").inspect("given", value=60).score == 60


def test_who_did_not_say_hello_is_asked_to(bench: Wires) -> None:
    client = bench.stranger("mute")
    client.send(epoch=1, trigger_id="one")
    refused = client.hear(Refused)
    assert (refused.code, refused.trigger_id, refused.epoch) == (Code.HELLO_FIRST, "one", 1)
    client.enter()
    assert client.inspect(trigger_id="one").reason is None


def test_a_client_that_died_before_its_answer_finds_it_when_it_comes_back(bench: Wires, line: Line) -> None:
    first = bench.client("mortal")
    trigger = first.send("given", "last-words", value=33, deadline_ms=60_000)
    first.close()
    (stored,) = until(lambda: journalled(line, "mortal"), "the journalled answer")
    heir = bench.stranger("mortal")
    bench.until(lambda: isinstance(heir.hello(), ClientWelcome), "the name to be free")
    answer = heir.inspect("given", "last-words", value=33, deadline_ms=60_000)
    assert same(answer, stored)
    assert (answer.trigger_id, answer.score) == (trigger.trigger_id, 33)


def test_a_name_belongs_to_one_live_instance(bench: Wires) -> None:
    first = bench.client("unique")
    second = bench.stranger("unique")
    refused = second.hello()
    assert isinstance(refused, Refused)
    assert refused.code is Code.NAME_IN_USE
    second.send(epoch=first.epoch, trigger_id="stolen")
    assert second.hear(Refused).code is Code.HELLO_FIRST
    assert first.inspect("given", value=60).score == 60
    first.mute = True
    bench.until(lambda: isinstance(second.hello(), ClientWelcome), "the first one's heartbeat to lapse")
    assert second.inspect("given", value=61).score == 61


def test_an_instance_takes_its_name_back_at_once(bench: Wires) -> None:
    before = bench.client("phoenix")
    before.inspect("given", value=60)
    after = bench.stranger("phoenix", instance=before.instance)
    before.close()
    assert isinstance(after.hello(), ClientWelcome)
    after._ids = 10  # noqa: SLF001 - ids of its own
    assert after.inspect("given", value=62).score == 62


def test_answers_go_to_the_connection_that_has_the_name_now(bench: Wires) -> None:
    before = bench.client("moved")
    trigger = before.send("top", "one", deadline_ms=60_000)
    after = bench.stranger("moved", instance=before.instance)
    after.enter()
    retry = after.send("top", "one", deadline_ms=60_000)
    assert after.answer(retry).trigger_id == trigger.trigger_id


def test_a_restart_of_the_whole_service_forgets_no_answer(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"}) as line:
        with wires(line.port) as bench:
            client = bench.client("plc")
            first = client.inspect("given", "one", value=45, deadline_ms=60_000)
        assert line.stop() == 0
        line.start()
        with wires(line.port) as bench:
            client = bench.client("plc")
            assert (first.epoch, client.epoch) == (1, 2)
            stored = client.inspect("given", "one", value=45, deadline_ms=60_000, epoch=1)
            assert same(stored, first)
            assert not stored.expired  # the monotonic clock runs on, and the deadline is a minute away
            other = client.inspect("given", "one", value=46, deadline_ms=60_000, epoch=1)
            assert other.reason is Reason.CONFLICT
            unknown = client.inspect("given", "two", value=46, deadline_ms=60_000, epoch=1)
            assert unknown.reason is Reason.RESTART
            fresh = client.inspect("given", "one", value=47, deadline_ms=60_000)  # a new epoch: a new id
            assert (fresh.score, fresh.epoch) == (47, 2)
            assert first.seq == 1
            assert fresh.seq == 4


def test_a_trigger_that_a_crash_left_open_is_answered_restart(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"}) as line:
        with wires(line.port) as bench:
            client = bench.client("plc")
            with frozen(line.pid("worker")):
                trigger = client.send("given", "one", value=45, deadline_ms=60_000)
                client.hear(Queued)
                line.kill("broker")
            until(lambda: (status := line.status()) and status["epoch"] == 2, "the next broker")
            client.enter()
            answer = client.inspect("given", "one", value=45, deadline_ms=60_000, epoch=1)
        assert answer.trigger_id == trigger.trigger_id
        assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.RESTART)
        (stored,) = journalled(line, "plc")
        assert same(stored, answer)
