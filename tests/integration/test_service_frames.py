"""Frames: what a camera cannot give, or gives wrongly, is an error with a reason; never an ACCEPT, and never the end."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.line import TAKT, Line, frozen, serving, until
from support.raw import MONO, Camera, Wires, paint, painted, picture, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import (
    Answer,
    CameraHello,
    CameraState,
    Code,
    Frame,
    FrameSpec,
    Grab,
    Refused,
    State,
    Transport,
    TriggerMode,
)


def camera_of(line: Line, name: str) -> dict[str, Any]:
    """What status says of a camera."""
    status = line.status()
    assert status is not None
    return next(dict(camera) for camera in status["cameras"] if camera["name"] == name)


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A service whose cameras are the tests' own."""
    folder = tmp_path_factory.mktemp("frames")
    names = ("memory", "message", "own-memory", "own-message")
    cameras = [{"name": name, "bundle": str(stub), "source": "process", "deadline_ms": 30_000} for name in names]
    line = Line(folder, *cameras)
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


@pytest.fixture(params=[Transport.MEMORY, Transport.MESSAGE])
def camera(request: pytest.FixtureRequest, bench: Wires, line: Line) -> Camera:
    """A camera of a test, by either transport."""
    name = str(request.param)
    bench.until(lambda: line.status() and camera_of(line, name)["pid"] is None, "the name to be free")
    until(lambda: name not in (line.status() or {})["peers"]["cameras"], "the camera of the test before to lapse")
    return bench.camera(name, TriggerMode.SOFTWARE, request.param)


def test_a_folder_with_bad_files_gives_an_error_for_each_and_goes_on(stub: Path, tmp_path: Path) -> None:
    images = paint(tmp_path / "images", 50, 255, 60)
    images.joinpath("1-255.png").rename(images / "4-255.png")
    images.joinpath("2-060.png").rename(images / "5-060.png")
    cv2.imwrite(str(images / "1-wrong-size.png"), picture(40, width=64, height=96))
    whole = images.joinpath("0-050.png").read_bytes()
    images.joinpath("2-truncated.png").write_bytes(whole[: len(whole) // 2])
    colour = np.full((64, 96, 3), (10, 60, 30), np.uint8)
    cv2.imwrite(str(images / "3-colour.png"), colour)
    with (
        serving(tmp_path, {"name": "top", "bundle": str(stub), "source": f"folder:{images}"}) as line,
        wires(line.port) as bench,
    ):
        client = bench.client()
        answers = [client.inspect(deadline_ms=30_000) for _ in range(12)]
        bad = Reason.BAD_IMAGE
        assert [answer.reason for answer in answers] == [None, bad, bad, bad, Reason.NOT_FINITE, None] * 2
        good = [answer for answer in answers if answer.reason is None]
        assert [(answer.score, answer.verdict) for answer in good] == [(50, "ACCEPT"), (60, "ACCEPT")] * 2
        assert {answer.verdict for answer in answers if answer.reason is not None} == {Verdict.ERROR}
        assert "64x96" in answers[1].detail
        assert "96x64" in answers[1].detail
        assert "2-truncated.png" in answers[2].detail
        assert answers[3].label == "3-colour.png"
        assert "rgb8" in answers[3].detail
        assert (line.status() or {})["ready"]  # a bad file is no broken camera


def test_a_folder_that_vanishes_is_reported_and_found_again(stub: Path, tmp_path: Path) -> None:
    images, away = paint(tmp_path / "images", 50, 200), tmp_path / "away"
    with (
        serving(tmp_path, {"name": "top", "bundle": str(stub), "source": f"folder:{images}"}) as line,
        wires(line.port) as bench,
    ):
        client = bench.client()
        assert client.inspect().reason is None
        images.rename(away)
        status = bench.until(lambda: (now := line.status()) and not now["ready"] and now, "the fault to be seen")
        assert status["state"] == State.ERROR
        assert "top" in status["reason"]
        assert str(images) in status["reason"]
        assert "put it back" in status["reason"]
        for _ in range(3):
            answer = client.inspect()
            assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.NO_FRAME)
            assert str(images) in answer.detail
        away.rename(images)
        bench.until(lambda: (now := line.status()) and now["ready"], "Ready again")
        answers = [client.inspect(deadline_ms=30_000) for _ in range(2)]
        assert sorted(painted(answer.label) for answer in answers) == [50, 200]
        shutil.rmtree(images)
        images.mkdir()
        bench.until(
            lambda: "holds no image" in client.inspect().detail, "an empty folder to be told from a missing one"
        )


def test_a_killed_camera_process_is_started_again(stub: Path, tmp_path: Path) -> None:
    images = paint(tmp_path / "images", 50, 200)
    with (
        serving(tmp_path, {"name": "top", "bundle": str(stub), "source": f"folder:{images}"}) as line,
        wires(line.port) as bench,
    ):
        client = bench.client()
        pid = line.kill("camera")
        bench.until(lambda: (now := line.status()) and now["ready"] and now["cameras"][0]["pid"] != pid, "another one")
        answers = [client.inspect(deadline_ms=30_000) for _ in range(2)]
        assert sorted(painted(answer.label) for answer in answers) == [50, 200]
        assert all(answer.score == painted(answer.label) for answer in answers)


def test_a_camera_process_that_hangs_is_reported_and_taken_back_when_it_goes_on(stub: Path, tmp_path: Path) -> None:
    images = paint(tmp_path / "images", 50)
    with (
        serving(tmp_path, {"name": "top", "bundle": str(stub), "source": f"folder:{images}"}) as line,
        wires(line.port) as bench,
    ):
        client = bench.client()
        with frozen(line.pid("camera")):
            stuck = client.send(deadline_ms=60_000)
            status = bench.until(lambda: (now := line.status()) and now["state"] == State.ERROR and now, "Error")
            assert "top" in status["reason"]
            lost = client.answer(stuck)
            assert (lost.verdict, lost.reason) == (Verdict.ERROR, Reason.NO_FRAME)
            refused = client.inspect()
            assert (refused.verdict, refused.reason) == (Verdict.ERROR, Reason.NOT_READY)
        bench.until(lambda: (now := line.status()) and now["ready"], "Ready again")
        assert client.inspect(deadline_ms=30_000).score == 50


# --- cameras of the tests' own ----------------------------------------------------------------------------------------


def test_a_frame_of_either_transport_is_inspected(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    for value in (10, 200, 90, 130, 60, 254):  # more than there are slots
        camera.value = value
        answer = client.inspect(camera.name)
        assert (answer.score, answer.label) == (value, f"-{value}")
        assert answer.verdict is (Verdict.REJECT if value >= 128 else Verdict.ACCEPT)
        assert answer.counter == camera.counter


def test_frames_that_come_in_another_order_find_their_own_triggers(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    camera.value = None
    triggers = [client.send(camera.name, part_id=str(value)) for value in (30, 140, 50, 160)]
    grabs = [camera.hear(Grab) for _ in triggers]
    assert [grab.part_id for grab in grabs] == ["30", "140", "50", "160"]
    for grab in reversed(grabs):
        camera.expose(int(grab.part_id or 0), trigger_id=grab.trigger_id)
    assert [client.answer(trigger).score for trigger in triggers] == [30, 140, 50, 160]


def test_a_camera_that_reports_a_fault_gives_an_error(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    camera.value = None
    trigger = client.send(camera.name)
    camera.expose(None, trigger_id=camera.hear(Grab).trigger_id)
    answer = client.answer(trigger)
    assert (answer.verdict, answer.reason, answer.detail) == (Verdict.ERROR, Reason.NO_FRAME, "lens cap")


def test_a_camera_that_dies_with_a_grab_leaves_an_error_and_not_silence(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    camera.value = None
    trigger = client.send(camera.name)
    camera.hear(Grab)
    camera.close()
    answer = client.answer(trigger)
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.NO_FRAME)
    assert "lost" in answer.detail


def test_a_camera_that_never_answers_a_grab_leaves_an_error_at_the_deadline(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    camera.value = None
    trigger = client.send(camera.name, deadline_ms=500)
    answer = client.answer(trigger)
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.NO_FRAME)
    camera.expose(60, trigger_id=camera.hear(Grab).trigger_id)  # too late for that part, and for no other one
    camera.value = 70
    assert client.inspect(camera.name).score == 70


def test_a_frame_that_nobody_ordered_is_counted_and_given_to_nobody(camera: Camera, bench: Wires, line: Line) -> None:
    before = camera_of(line, camera.name)["frames"]["late"]
    camera.expose(200, trigger_id="plc/nobody")
    camera.expose(200)
    bench.until(lambda: camera_of(line, camera.name)["frames"]["late"] == before + 2, "both to be counted")
    camera.value = 40
    answers = [bench.client().inspect(camera.name) for _ in range(6)]
    assert [answer.score for answer in answers] == [40] * 6  # their slots are free again


def test_a_frame_of_an_earlier_epoch_is_counted_and_given_to_nobody(camera: Camera, bench: Wires, line: Line) -> None:
    client = bench.client()
    before = camera_of(line, camera.name)["frames"]["unmatched"]
    camera.value = None
    trigger = client.send(camera.name)
    grab = camera.hear(Grab)
    camera.say(Frame(epoch=grab.epoch + 1, trigger_id=grab.trigger_id, counter=1, frame=None, fault=Reason.NO_FRAME))
    bench.until(lambda: camera_of(line, camera.name)["frames"]["unmatched"] == before + 1, "it to be counted")
    camera.expose(61, trigger_id=grab.trigger_id)
    assert client.answer(trigger).score == 61


LIES = {
    "a slot that is not there": {"slot": 99, "generation": 1},
    "a slot that was not written": {"slot": 1},
    "an old generation": {"generation": 0},
    "no slot at all": {"slot": None},
    "no layout": {"frame": None},
    "another layout than was written": {"frame": FrameSpec(width=64, height=96, pixel_format=PixelFormat.MONO8)},
    "a layout that does not fit the slot": {
        "frame": FrameSpec(width=5000, height=5000, pixel_format=PixelFormat.RGB16)
    },
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("camera", [Transport.MEMORY], indirect=True)
def test_a_frame_in_memory_that_is_not_there_is_never_taken_for_one(
    camera: Camera, bench: Wires, line: Line, lie: str
) -> None:
    client = bench.client()
    before = camera_of(line, camera.name)["frames"]["refused"]
    camera.value = None
    trigger = client.send(camera.name)
    grab = camera.hear(Grab)
    grant = camera.grants[0]
    said = {"slot": grant.slot, "generation": grant.generation, "frame": MONO, **LIES[lie]}
    camera.say(Frame(epoch=grab.epoch, trigger_id=grab.trigger_id, counter=1, **said))
    answer = client.answer(trigger)
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.FRAME_MISMATCH)
    assert camera_of(line, camera.name)["frames"]["refused"] == before + 1


@pytest.mark.parametrize("camera", [Transport.MESSAGE], indirect=True)
@pytest.mark.parametrize("pixels", [None, b"", bytes(96 * 64 - 1), bytes(96 * 64 + 1)])
def test_a_frame_in_a_message_that_has_not_its_pixels_is_an_error(
    camera: Camera, bench: Wires, pixels: bytes | None
) -> None:
    client = bench.client()
    camera.value = None
    trigger = client.send(camera.name)
    grab = camera.hear(Grab)
    camera.say(Frame(epoch=grab.epoch, trigger_id=grab.trigger_id, counter=1, frame=MONO), pixels)
    answer = client.answer(trigger)
    assert answer.verdict is Verdict.ERROR
    assert answer.reason is (Reason.NO_FRAME if pixels is None else Reason.BAD_IMAGE)
    camera.value = 45
    assert [client.inspect(camera.name).score for _ in range(6)] == [45] * 6


def test_a_source_that_is_down_answers_at_once(camera: Camera, bench: Wires) -> None:
    client = bench.client()
    camera.say(CameraState(ok=False, detail="cable pulled: plug it in"))
    answer: Answer = bench.until(
        lambda: (answer := client.inspect(camera.name)).reason is Reason.NO_FRAME and answer, "the refusal"
    )
    assert answer.detail == f"camera {camera.name}: cable pulled: plug it in"
    camera.say(CameraState(ok=True))
    bench.until(lambda: client.inspect(camera.name).score == 50, "it to work again")


@pytest.mark.parametrize(
    ("name", "trigger"), [("memory", TriggerMode.HARDWARE), ("memory", TriggerMode.STREAM), ("x", TriggerMode.SOFTWARE)]
)
def test_a_camera_that_line_toml_does_not_name_so_is_refused(bench: Wires, name: str, trigger: TriggerMode) -> None:
    stranger = Camera(bench, name, trigger, Transport.MEMORY)
    stranger.say(CameraHello(name=name, instance=stranger.instance, trigger=trigger, transport=Transport.MEMORY))
    assert stranger.hear(Refused).code is Code.UNKNOWN_CAMERA


def test_a_second_camera_of_a_name_is_refused_while_the_first_one_lives(camera: Camera, bench: Wires) -> None:
    second = Camera(bench, camera.name, TriggerMode.SOFTWARE, camera.transport)
    hello = CameraHello(
        name=camera.name, instance=second.instance, trigger=TriggerMode.SOFTWARE, transport=camera.transport
    )
    second.say(hello)
    assert second.hear(Refused).code is Code.NAME_IN_USE
    assert bench.client().inspect(camera.name).score == 50


@contextmanager
def takt_camera(line: Line, name: str, images: Path, transport: Transport) -> Iterator[subprocess.Popen[bytes]]:
    """`takt camera` as a user starts it."""
    config = images.parent / f"{name}.toml"
    config.write_text(
        f'endpoint = "{line.endpoint}"\nname = "{name}"\nsource = "folder:{images}"\ntransport = "{transport}"\n',
        encoding="utf-8",
    )
    with (images.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*TAKT, "camera", "--config", str(config)], stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("transport", [Transport.MEMORY, Transport.MESSAGE])
def test_a_camera_process_of_its_own_feeds_the_service(
    bench: Wires, line: Line, tmp_path: Path, transport: Transport
) -> None:
    name = f"own-{transport}"
    images = paint(tmp_path / "images", 50, 200, 255)
    with takt_camera(line, name, images, transport) as process:
        bench.until(lambda: camera_of(line, name)["ready"], "the camera")
        assert camera_of(line, name)["pid"] == process.pid
        client = bench.client()
        answers = [client.inspect(name) for _ in range(9)]
        assert [(answer.score, answer.reason) for answer in answers] == [
            (50, None),
            (200, None),
            (None, Reason.NOT_FINITE),
        ] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    bench.until(lambda: not camera_of(line, name)["ready"], "its end to be seen")
    assert client.inspect(name).verdict is Verdict.ERROR
