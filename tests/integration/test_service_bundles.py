"""Bundles: several at once, and changing them while the line runs; every answer belongs to exactly one of them."""

import itertools
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.line import Line, serving
from support.raw import Client, Wires, paint, painted, picture, wires

from edge_runtime.bundle.load import load
from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, FrameSpec, Reply, Trigger, TriggerMode


def command(line: Line, name: str, **arguments: Any) -> Reply:  # noqa: ANN401
    """A command that gets a reply."""
    reply = line.ask(name, within_s=30.0, **arguments)
    assert reply is not None
    return reply


def camera_of(line: Line, name: str) -> dict[str, Any]:
    """What status says of a camera."""
    return next(dict(camera) for camera in (line.status() or {})["cameras"] if camera["name"] == name)


def stage(bench: Wires, line: Line, bundle: Path, camera: str = "given") -> str:
    """Stage a bundle and wait until it is loaded; its digest."""
    reply = command(line, "stage", camera=camera, bundle=str(bundle))
    assert reply.ok, reply.detail
    bench.until(lambda: (staged := camera_of(line, camera)["staged"]) and staged["ready"], "the bundle to be loaded")
    return str(reply.result)


def is_right(answer: Answer, value: int, threshold: float) -> bool:
    """Whether an answer is what a bundle of this threshold says of a brightness."""
    verdict = Verdict.REJECT if value >= threshold else Verdict.ACCEPT
    return (answer.score, answer.threshold, answer.verdict) == (value, threshold, verdict)


@pytest.fixture
def line(stub: Path, tmp_path: Path) -> Iterator[Line]:
    """One camera whose frames come with the trigger."""
    with serving(tmp_path, {"name": "given", "bundle": str(stub), "source": "client", "slots": 16}) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def test_cameras_have_their_own_bundles_sizes_and_thresholds(
    stub: Path, strict_stub: Path, large_stub: Path, tmp_path: Path
) -> None:
    small, large = paint(tmp_path / "small", 50, 100, 200), paint(tmp_path / "large", 60, 210, width=128, height=96)
    cameras = [
        {"name": "loose", "bundle": str(stub), "source": f"folder:{small}"},
        {"name": "strict", "bundle": str(strict_stub), "source": f"folder:{small}"},
        {"name": "large", "bundle": str(large_stub), "source": f"folder:{large}"},
        {"name": "given", "bundle": str(large_stub), "source": "client"},
    ]
    thresholds = {"loose": 128, "strict": 64, "large": 128, "given": 128}
    with serving(tmp_path, *cameras, workers=2) as line, wires(line.port) as bench:
        client = bench.client()
        welcome = bench.stranger("sizes").enter()
        assert {camera.name: camera.frame.width for camera in welcome.cameras} == {
            "loose": 96,
            "strict": 96,
            "large": 128,
            "given": 128,
        }
        pixels = picture(77, width=128, height=96)
        spec = FrameSpec(width=128, height=96, pixel_format=welcome.cameras[3].frame.pixel_format)
        triggers = [(name, client.send(name, deadline_ms=60_000)) for _ in range(4) for name in ("loose", "strict")]
        triggers += [("large", client.send("large", deadline_ms=60_000)) for _ in range(4)]
        triggers += [("given", client.send("given", deadline_ms=60_000, frame=spec, pixels=pixels)) for _ in range(3)]
        for name, trigger in triggers:
            answer = client.answer(trigger)
            value = 77 if name == "given" else painted(answer.label)
            assert is_right(answer, value, thresholds[name]), (name, answer)
        workers = bench.until(lambda: len(found := (line.status() or {})["workers"]) == 6 and found, "two for a bundle")
        assert {worker["state"] for worker in workers} == {"ready"}
        assert len({worker["pid"] for worker in workers}) == 6


def test_a_change_under_load_loses_no_trigger_and_mixes_no_bundles(
    bench: Wires, line: Line, stub: Path, strict_stub: Path
) -> None:
    digests = {load(stub).digest: 128.0, load(strict_stub).digest: 64.0}
    client = bench.client()
    sent: list[tuple[int, Trigger]] = []
    values = itertools.cycle((30, 100, 200))

    def load_on() -> None:
        for _ in range(3):
            value = next(values)
            sent.append((value, client.send("given", value=value, deadline_ms=60_000)))
        bench.pump(0.03)

    for _ in range(5):
        load_on()
    command(line, "stage", camera="given", bundle=str(strict_stub))
    while not ((staged := camera_of(line, "given")["staged"]) and staged["ready"]):
        load_on()
    before = len(sent)
    assert command(line, "activate", camera="given").ok
    for _ in range(10):
        load_on()
    back = len(sent)
    assert command(line, "rollback", camera="given").ok
    for _ in range(10):
        load_on()
    answers = [client.answer(trigger) for _, trigger in sent]
    for (value, _), answer in zip(sent, answers, strict=True):
        assert answer.reason is None, answer
        assert is_right(answer, value, digests[answer.bundle or ""]), answer
    by_threshold = [answer.threshold for answer in answers]
    assert by_threshold == [128.0] * before + [64.0] * (back - before) + [128.0] * (len(sent) - back)
    assert len({answer.seq for answer in answers}) == len(answers)


def test_a_change_is_refused_where_nothing_is_ready_for_it(bench: Wires, line: Line, tmp_path: Path) -> None:
    client = bench.client()
    nothing = command(line, "activate", camera="given")
    assert (nothing.ok, "no staged bundle" in nothing.detail) == (False, True)
    none_before = command(line, "rollback", camera="given")
    assert (none_before.ok, "no bundle to go back to" in none_before.detail) == (False, True)
    missing = command(line, "stage", camera="given", bundle=str(tmp_path / "missing.takt"))
    assert not missing.ok
    assert "missing.takt" in missing.detail
    relative = command(line, "stage", camera="given", bundle="stub.takt")
    assert (relative.ok, "absolute path" in relative.detail) == (False, True)
    folder = command(line, "stage", camera="given", bundle=str(tmp_path))
    assert not folder.ok
    nobody = command(line, "stage", camera="nobody", bundle=str(tmp_path))
    assert not nobody.ok
    unknown = command(line, "explode")
    assert (unknown.ok, "activate" in unknown.detail) == (False, True)
    assert client.inspect("given", value=60).score == 60


def test_a_bundle_that_is_damaged_or_unsealed_never_takes_over(
    bench: Wires, line: Line, strict_stub: Path, small: Any, tmp_path: Path  # noqa: ANN401
) -> None:  # fmt: skip
    client = bench.client()
    whole = strict_stub.read_bytes()
    garbage = tmp_path / "garbage.takt"
    garbage.write_bytes(b"no bundle at all")
    truncated = tmp_path / "truncated.takt"
    truncated.write_bytes(whole[: len(whole) // 2])
    damaged = tmp_path / "damaged.takt"
    middle = inside_a_graph(strict_stub)
    damaged.write_bytes(whole[:middle] + bytes((whole[middle] ^ 1,)) + whole[middle + 1 :])
    for path in (garbage, truncated, damaged, small.draft):
        refused = command(line, "stage", camera="given", bundle=str(path))
        assert not refused.ok
        assert path.name in refused.detail or "sealed was" in refused.detail
        assert not command(line, "activate", camera="given").ok
    answer = client.inspect("given", value=100)
    assert is_right(answer, 100, 128.0)
    assert (line.status() or {})["ready"]
    stage(bench, line, strict_stub)  # a whole one of the same manifest is not held up by the damaged one
    assert command(line, "activate", camera="given").ok
    assert is_right(client.inspect("given", value=100), 100, 64.0)


def inside_a_graph(bundle: Path) -> int:
    """Where in the file the middle of its largest graph is."""
    with zipfile.ZipFile(bundle) as archive:
        member = max(
            (found for found in archive.infolist() if found.filename.startswith("artefacts/")),
            key=lambda m: m.file_size,
        )
    return member.header_offset + 30 + len(member.filename) + member.file_size // 2


def test_a_bundle_of_another_frame_size_takes_over(bench: Wires, line: Line, large_stub: Path) -> None:
    client = bench.client()
    assert client.inspect("given", value=60).score == 60
    stage(bench, line, large_stub)
    assert command(line, "activate", camera="given").ok
    pixels = picture(70, width=128, height=96)
    spec = FrameSpec(width=128, height=96, pixel_format=bench.stranger("size").enter().cameras[0].frame.pixel_format)
    assert client.inspect("given", frame=spec, pixels=pixels).score == 70
    assert client.inspect("given", value=60).reason is Reason.BAD_IMAGE
    assert command(line, "rollback", camera="given").ok
    assert client.inspect("given", value=61).score == 61


def test_a_camera_is_told_of_another_frame_size(stub: Path, large_stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, {"name": "top", "bundle": str(stub), "source": "process"})
    try:
        line.start(ready=False)
        with wires(line.port) as bench:
            camera = bench.camera("top", TriggerMode.SOFTWARE)
            bench.until(lambda: (status := line.status()) and status["ready"], "Ready")
            client = bench.client()
            assert client.inspect("top").score == 50
            stage(bench, line, large_stub, "top")
            assert command(line, "activate", camera="top").ok
            bench.until(lambda: camera.welcome and camera.welcome.frame.width == 128, "another welcome")
            camera.value = 90
            assert client.inspect("top").score == 90
    finally:
        line.end()


def test_the_active_bundle_survives_a_restart_and_line_toml_wins_where_it_names_another(
    stub: Path, strict_stub: Path, large_stub: Path, tmp_path: Path
) -> None:
    camera = {"name": "given", "bundle": str(stub), "source": "client"}
    with serving(tmp_path, camera) as line:
        with wires(line.port) as bench:
            digest = stage(bench, line, strict_stub)
            assert command(line, "activate", camera="given").ok
            assert_threshold(bench.client(), 64.0)
        line.stop()
        line.start()
        with wires(line.port) as bench:
            assert_threshold(bench.client(), 64.0)
            assert camera_of(line, "given")["bundle"]["digest"] == digest
            assert command(line, "rollback", camera="given").ok
            assert_threshold(bench.client(), 128.0)
            assert command(line, "rollback", camera="given").ok
            assert_threshold(bench.client(), 64.0)
            audit = command(line, "audit", limit=20).result
        line.stop()
        assert isinstance(audit, list)
        assert [row["command"] for row in audit if isinstance(row, dict)] == [
            "rollback",
            "rollback",
            "activate",
            "stage",
        ]
        assert all(isinstance(row, dict) and row["ok"] and row["actor"] == "test" for row in audit)
        Line(tmp_path, {**camera, "bundle": str(large_stub)}, port=line.port)
        line.start()
        assert camera_of(line, "given")["bundle"]["product"] == "large"


def test_a_rollback_to_a_bundle_that_is_not_loaded_loses_no_trigger(
    stub: Path, strict_stub: Path, tmp_path: Path
) -> None:
    camera = {"name": "given", "bundle": str(stub), "source": "client"}
    with serving(tmp_path, camera, warm_previous=False) as line, wires(line.port) as bench:
        client = bench.client()
        stage(bench, line, strict_stub)
        assert command(line, "activate", camera="given").ok
        bench.until(lambda: len((line.status() or {})["workers"]) == 1, "the bundle before to be let go")
        rolling = threading.Thread(target=command, args=(line, "rollback"), kwargs={"camera": "given"})
        rolling.start()
        answers = [client.inspect("given", value=100)]
        while rolling.is_alive():
            answers.append(client.inspect("given", value=100))
        answers.append(client.inspect("given", value=100))
        for answer in answers:
            assert is_right(answer, 100, answer.threshold or 0.0), answer
        thresholds = [answer.threshold for answer in answers]
        assert thresholds == sorted(thresholds, key=(64.0, 128.0).index)
        assert thresholds[-1] == 128.0


def assert_threshold(client: Client, threshold: float) -> None:
    """The bundle of a threshold is at work."""
    assert is_right(client.inspect("given", value=100), 100, threshold)


def test_a_file_that_is_overwritten_after_it_was_staged_changes_nothing(
    bench: Wires, line: Line, strict_stub: Path, tmp_path: Path
) -> None:
    """As `cp new.takt part.takt` does it: in place."""
    part = tmp_path / "part.takt"
    part.write_bytes(strict_stub.read_bytes())
    stage(bench, line, part)
    assert command(line, "activate", camera="given").ok
    part.write_bytes(b"something else")
    before = {line.kill("worker"), line.kill("broker")}
    status = bench.until(lambda: (now := line.status()) and now["ready"] and now, "Ready again")
    assert before.isdisjoint({status["pid"]["broker"], *(worker["pid"] for worker in status["workers"])})
    assert_threshold(bench.client(), 64.0)


def test_refused_commands_are_in_the_audit_log_as_well(bench: Wires, line: Line) -> None:
    assert not command(line, "activate", camera="given").ok
    for name in ("halt", "resume"):
        assert command(line, name).ok
    rows = bench.until(lambda: len(found := command(line, "audit").result or []) == 3 and found, "three lines")
    assert [(row["command"], row["ok"]) for row in rows] == [("resume", True), ("halt", True), ("activate", False)]
    assert not command(line, "audit", limit=0).ok
    assert not command(line, "audit", limit="all").ok


def test_a_halted_service_inspects_nothing_until_it_is_resumed(bench: Wires, line: Line) -> None:
    client = bench.client()
    assert command(line, "halt").ok
    assert (line.status() or {})["state"] == "Halted"
    answer = client.inspect("given", value=60)
    assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.NOT_READY)
    assert command(line, "resume").ok
    assert client.inspect("given", value=60).score == 60
    assert (line.status() or {})["ready"]
