"""Hardware triggers: exposures and triggers are counted, and where the count is lost nobody guesses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.line import Line, until
from support.raw import Camera, Client, Wires, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Transport, Trigger, TriggerMode

WINDOW_MS = 1500  # so long that a slow machine loses no pair


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A camera that an electric line triggers; the test is the camera and the line."""
    side = {"name": "side", "bundle": str(stub), "source": "process", "trigger": "hardware", "pairing_ms": WINDOW_MS}
    line = Line(tmp_path_factory.mktemp("hardware"), {**side, "deadline_ms": 60_000, "slots": 8})
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


@pytest.fixture
def camera(bench: Wires, line: Line) -> Iterator[Camera]:
    """The camera, counting from 1."""
    until(lambda: not (line.status() or {})["peers"]["cameras"], "the camera of the test before to lapse")
    until(lambda: seen(line)["pairing"] == "in step", "the count to be in step")
    camera = bench.camera("side", TriggerMode.HARDWARE)
    bench.until(lambda: seen(line)["ready"], "the camera")
    yield camera
    camera.close()


@pytest.fixture
def client(bench: Wires) -> Client:
    """Who sends the triggers."""
    return bench.client()


def seen(line: Line) -> dict[str, Any]:
    """What status says of the camera."""
    return dict((line.status() or {})["cameras"][0])


def lost(client: Client, *triggers: Trigger) -> bool:
    """Whether all triggers are answered as a mismatch, for they are never answered with a guess."""
    answers = [client.answer(trigger) for trigger in triggers]
    return all((answer.verdict, answer.reason) == (Verdict.ERROR, Reason.FRAME_MISMATCH) for answer in answers)


def test_exposures_and_triggers_are_paired_in_order_whichever_comes_first(
    camera: Camera, client: Client, bench: Wires
) -> None:
    for value in (30, 140, 50):
        trigger = client.send("side")
        bench.pump(0.05)
        counter = camera.expose(value)
        answer = client.answer(trigger)
        assert (answer.score, answer.counter, answer.label) == (value, counter, f"-{value}")
    for value in (160, 70):
        camera.expose(value)
        bench.pump(0.05)
        assert client.inspect("side").score == value
    triggers = [client.send("side") for _ in range(4)]
    for value in (31, 141, 51, 161):
        camera.expose(value)
    assert [client.answer(trigger).score for trigger in triggers] == [31, 141, 51, 161]


def test_a_counter_that_jumps_makes_every_open_trigger_a_mismatch_until_the_line_is_quiet(
    camera: Camera, client: Client, bench: Wires, line: Line
) -> None:
    camera.expose(30)
    assert client.inspect("side").score == 30
    triggers = [client.send("side") for _ in range(3)]
    bench.pump(0.05)
    camera.expose(40, skip=1)
    assert lost(client, *triggers)
    assert "counter" in seen(line)["pairing"]
    later = client.send("side")
    camera.expose(50)
    assert lost(client, later)  # still not quiet
    bench.until(lambda: seen(line)["pairing"] == "in step", "the line to be quiet for long enough")
    trigger = client.send("side")
    camera.expose(60)
    assert client.answer(trigger).score == 60


def test_a_command_ends_the_wait_for_quiet(camera: Camera, client: Client, bench: Wires, line: Line) -> None:
    camera.expose(30)
    assert client.inspect("side").score == 30
    trigger = client.send("side")
    bench.pump(0.05)
    camera.expose(40, skip=4)
    assert lost(client, trigger)
    reply = line.ask("resync", camera="side")
    assert reply is not None
    assert reply.ok, reply.detail
    assert seen(line)["pairing"] == "in step"
    again = client.send("side")
    camera.expose(70)
    assert client.answer(again).score == 70


def test_a_trigger_without_exposure_is_an_error_and_so_is_what_came_after_it(
    camera: Camera, client: Client, line: Line, bench: Wires
) -> None:
    first, second = client.send("side"), client.send("side")
    bench.pump(0.05)
    camera.expose(40)  # of which of them? it is given to the first, as it is the only one that could be before
    assert client.answer(first).score == 40
    assert lost(client, second)
    assert "no exposure in time" in seen(line)["pairing"]


def test_an_exposure_without_trigger_is_counted_and_given_to_nobody(
    camera: Camera, client: Client, bench: Wires, line: Line
) -> None:
    before = seen(line)["frames"]["unmatched"]
    camera.expose(200)
    bench.until(lambda: seen(line)["frames"]["unmatched"] == before + 1, "it to be counted")
    assert "no trigger in time" in seen(line)["pairing"]
    assert lost(client, client.send("side"))
    bench.until(lambda: seen(line)["pairing"] == "in step", "the line to be quiet")
    trigger = client.send("side")
    camera.expose(35)
    assert client.answer(trigger).score == 35


def test_a_camera_that_is_lost_in_between_leaves_an_error(
    camera: Camera, client: Client, bench: Wires, line: Line
) -> None:
    trigger = client.send("side")
    bench.pump(0.05)
    camera.close()
    assert lost(client, trigger)
    bench.until(lambda: not (line.status() or {})["peers"]["cameras"], "the camera to lapse")
    assert client.inspect("side").verdict is Verdict.ERROR
    bench.until(lambda: seen(line)["pairing"] == "in step", "the line to be quiet")
    another = bench.camera("side", TriggerMode.HARDWARE, Transport.MESSAGE)
    bench.until(lambda: seen(line)["ready"], "another camera")
    again = client.send("side")
    another.expose(45)
    assert client.answer(again).score == 45
    another.close()


def test_a_fault_of_one_exposure_is_that_triggers_error_and_keeps_the_count(camera: Camera, client: Client) -> None:
    triggers = [client.send("side") for _ in range(3)]
    camera.expose(30)
    camera.expose(None)
    camera.expose(50)
    answers = [client.answer(trigger) for trigger in triggers]
    assert [(answer.score, answer.reason) for answer in answers] == [(30, None), (None, Reason.NO_FRAME), (50, None)]


def test_counting_anew_is_refused_where_nothing_is_counted(line: Line) -> None:
    reply = line.ask("resync", camera="nobody")
    assert reply is not None
    assert not reply.ok
    assert "nobody" in reply.detail
