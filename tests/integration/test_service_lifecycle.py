"""Start and stop: what was asked is answered first, nothing that hangs holds it up, and nothing is left behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.line import TAKT, Line, children, frozen, serving, until
from support.raw import Wires, paint, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, TriggerMode


def gone(pids: list[int]) -> bool:
    """Whether no process of these runs any more."""
    return not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(line: Line) -> list[int]:
    """All processes of a service."""
    assert line.process is not None
    return [line.process.pid, *(pid for pid, _ in children(line.process.pid))]


@pytest.fixture
def line(stub: Path, tmp_path: Path) -> Iterator[Line]:
    """A folder, and a camera whose frames come with the trigger."""
    source = f"folder:{paint(tmp_path / 'images', 50, 200)}"
    top = {"name": "top", "bundle": str(stub), "source": source}
    given = {"name": "given", "bundle": str(stub), "source": "client", "slots": 8}
    with serving(tmp_path, top, given, hang_ms=1500) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def test_sigterm_ends_it_with_zero_and_every_open_trigger_answered(bench: Wires, line: Line) -> None:
    client, pids = bench.client(), family(line)
    with frozen(line.pid("worker")):
        triggers = [client.send("given", value=50, deadline_ms=60_000) for _ in range(6)]
        bench.pump(0.1)
        assert line.process is not None
        line.process.send_signal(signal.SIGTERM)
        bench.until(lambda: (status := line.status()) and status["state"] == "Halted", "it to go down")
        late = client.send("given", value=50, deadline_ms=60_000)
        answers = [client.answer(trigger) for trigger in (*triggers, late)]
    assert line.process.wait(30) == 0
    assert {(answer.verdict, answer.reason) for answer in answers[:-1]} == {(Verdict.ERROR, Reason.RESTART)}
    assert answers[-1].reason is Reason.NOT_READY
    assert all(answer.journaled and answer.seq for answer in answers)
    until(lambda: gone(pids), "all its processes to leave")
    assert list((line.run_dir / "frames").iterdir()) == []


def test_sigterm_lets_what_is_in_work_end(bench: Wires, line: Line) -> None:
    client = bench.client()
    with frozen(line.pid("worker")):
        triggers = [client.send("given", value=value, deadline_ms=60_000) for value in (50, 200, 60)]
        bench.pump(0.1)
        assert line.process is not None
        line.process.send_signal(signal.SIGTERM)
        bench.until(lambda: (status := line.status()) and status["state"] == "Halted", "it to go down")
    assert [client.answer(trigger).score for trigger in triggers] == [50, 200, 60]
    assert line.process.wait(30) == 0


@pytest.mark.parametrize("kind", ["worker", "camera", "broker"])
def test_a_process_that_hangs_does_not_hold_up_the_end(line: Line, kind: str) -> None:
    pids = family(line)
    with frozen(line.pid(kind)):
        assert line.stop() == 0
    until(lambda: gone(pids), "all its processes to leave")


def test_ctrl_c_reaches_all_and_ends_it_in_order(stub: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group."""
    line = Line(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"})
    with line.log.open("wb") as log:
        line.process = subprocess.Popen([*TAKT, "serve", "--config", str(line.config)], stderr=log, process_group=0)
    try:
        line.wait_ready()
        pids = family(line)
        os.killpg(line.process.pid, signal.SIGINT)
        assert line.process.wait(30) == 0
        until(lambda: gone(pids), "all its processes to leave")
        assert line.events("broker_stopped")[0]["flushed"] is True
        assert "Traceback" not in line.log.read_text()
    finally:
        line.end()


def test_sigterm_before_it_is_ready_ends_it_as_well(stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"})
    try:
        line.start(ready=False)
        until(lambda: line.process and children(line.process.pid), "its first child")
        pids = family(line)
        assert line.stop() == 0
        until(lambda: gone(pids), "all its processes to leave")
    finally:
        line.end()


def test_children_of_a_killed_supervisor_leave_by_themselves(line: Line, bench: Wires) -> None:
    client, pids = bench.client(), family(line)
    assert len(pids) == 4
    with frozen(line.pid("worker")):
        trigger = client.send("given", value=50, deadline_ms=60_000)
        bench.pump(0.1)
        assert line.process is not None
        line.process.kill()
        line.process.wait(10)
        answer = client.answer(trigger)
        assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.RESTART)
    until(lambda: gone(pids), "its children to leave")
    line.start()
    assert client.enter().epoch == 2


def test_a_worker_that_hangs_is_replaced(bench: Wires, line: Line) -> None:
    client, pid = bench.client(), line.pid("worker")
    with frozen(pid):
        trigger = client.send("given", value=50, deadline_ms=60_000)
        answer = client.answer(trigger)
        assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.WORKER_LOST)
    bench.until(lambda: (status := line.status()) and status["ready"] and line.pid("worker") != pid, "another worker")
    assert client.inspect("given", value=60).score == 60


def test_a_worker_that_is_killed_loses_its_trigger_in_words_and_is_replaced(bench: Wires, line: Line) -> None:
    client, pid = bench.client(), line.pid("worker")
    with frozen(pid):
        triggers = [client.send("given", value=50, deadline_ms=60_000) for _ in range(3)]
        bench.pump(0.1)
        os.kill(pid, signal.SIGKILL)
    answers = [client.answer(trigger) for trigger in triggers]
    assert {(answer.verdict, answer.reason) for answer in answers} == {(Verdict.ERROR, Reason.WORKER_LOST)}
    bench.until(lambda: (status := line.status()) and status["ready"], "Ready again")
    assert client.inspect("given", value=60).score == 60


def test_a_broker_that_hangs_is_replaced(bench: Wires, line: Line) -> None:
    client, pid = bench.client(), line.pid("broker")
    with frozen(pid):
        until(lambda: not running(pid), "it to be killed")
    bench.until(lambda: (status := line.status()) and status["ready"], "Ready again")
    client.enter()
    assert client.epoch == 2
    assert client.inspect("given", value=60).score == 60
    assert client.inspect("top", deadline_ms=60_000).reason is None


def test_frames_of_an_earlier_service_are_removed(stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"})
    stale = line.run_dir / "frames" / "given-7-1.ring"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(bytes(4096))
    try:
        line.start()
        assert not stale.exists()
        (mine,) = stale.parent.iterdir()
        assert line.kill("broker")
        until(lambda: (status := line.status()) and status["epoch"] == 2 and status["ready"], "the next broker")
        assert not mine.exists()
    finally:
        line.end()


def test_nothing_is_written_outside_run_dir_and_no_connection_leaves(stub: Path, tmp_path: Path) -> None:
    home, line_dir, temporary = tmp_path / "home", tmp_path / "line", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    images = paint(tmp_path / "images", 50)
    before = snapshot(images) | snapshot(stub.parent)
    line = Line(line_dir, {"name": "top", "bundle": str(stub), "source": f"folder:{images}"})
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / ".cache")}
    try:
        line.start(env=environment)
        with wires(line.port) as bench:
            assert bench.client().inspect(deadline_ms=60_000).score == 50
            foreign = {peer for pid in family(line) for peer in connections(pid)}
        assert line.stop() == 0
    finally:
        line.end()
    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []
    assert snapshot(images) | snapshot(stub.parent) == before
    assert sorted(path.name for path in line_dir.iterdir()) == ["line.toml", "log.jsonl", "run"]
    assert foreign <= {"0100007F", "00000000"}  # loopback, and listening sockets that have no peer


def snapshot(folder: Path) -> dict[str, int]:
    """Files of a folder and when they were changed."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def connections(pid: int) -> set[str]:
    """Remote addresses of a process's TCP sockets, as the kernel writes them; version 6 has none."""
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    others = [row.split() for row in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]]
    assert not any(f"socket:[{row[9]}]" in inodes for row in others)
    return {row[2].partition(":")[0] for row in rows if f"socket:[{row[9]}]" in inodes}


def test_a_camera_that_nobody_started_keeps_the_others_answering(stub: Path, tmp_path: Path) -> None:
    """`Ready` means all cameras; those that are there are inspected all the same."""
    given = {"name": "given", "bundle": str(stub), "source": "client"}
    absent = {"name": "absent", "bundle": str(stub), "source": "process"}
    line = Line(tmp_path, given, absent)
    try:
        line.start(ready=False)
        with wires(line.port) as bench:
            status = until(lambda: (now := line.status()) and now["workers"] and now, "its worker")
            assert (status["state"], status["ready"]) == ("Initialized", False)
            assert "absent" in status["reason"]
            client = bench.client()
            assert client.inspect("given", value=50).score == 50
            answer: Answer = client.inspect("absent")
            assert (answer.verdict, answer.reason) == (Verdict.ERROR, Reason.NOT_READY)
            camera = bench.camera("absent", TriggerMode.SOFTWARE)
            bench.until(lambda: (now := line.status()) and now["ready"], "Ready")
            assert client.inspect("absent").score == camera.value
    finally:
        line.end()


def test_a_broker_that_was_held_up_takes_nobody_for_dead_but_itself(bench: Wires, line: Line) -> None:
    """A busy or paused host: what the others sent meanwhile is on its way, they were not silent."""
    client, pids = bench.client(), family(line)
    with frozen(line.pid("broker")):
        bench.pump(3.0)
    assert client.inspect("given", value=60, deadline_ms=60_000).score == 60
    assert client.inspect("top", deadline_ms=60_000).reason is None
    bench.pump(0.5)
    assert family(line) == pids
    assert not [event for event in line.events() if event["event"].endswith(("_lost", "_stuck"))]
