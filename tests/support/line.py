"""A running `takt serve`, started as a user starts it: its file, its processes by PID, its log, its status."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zmq

from edge_runtime.errors import ProtocolError
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import Reply, Request

TAKT = (sys.executable, "-m", "edge_runtime.cli")
PATIENCE_S = 60.0  # how long anything may take on a busy machine before a test gives up


def free_port() -> int:
    """A port with five free ones after it, none of which an outgoing connection could be given meanwhile."""
    for _ in range(1000):
        port = random.randrange(12_000, 32_000)
        if all(_is_free(port + offset) for offset in range(6)):
            return port
    message = "no six free ports in a row"
    raise RuntimeError(message)


def until(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S, every_s: float = 0.02) -> Any:  # noqa: ANN401
    """The first true value of a condition, polled for a bounded time."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        found = condition()
        if found:
            return found
        time.sleep(every_s)
    message = f"waited {within_s} s for: {what}"
    raise TimeoutError(message)


def ask(endpoint: str, command: str, *, within_s: float = 1.0, **arguments: Any) -> Reply | None:  # noqa: ANN401
    """One request to a service's control socket; None where it does not answer. `endpoint` is the control socket's."""
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(endpoint)
            request = Request(id=uuid.uuid4().hex, command=command, arguments=arguments, actor="test")
            dealer.send_multipart(wire.encode(request))
            if not dealer.poll(int(within_s * 1000)):
                return None
            try:
                reply = wire.decode(dealer.recv_multipart()).header
            except ProtocolError:
                return None
            return reply if isinstance(reply, Reply) else None
    finally:
        context.term()


class Line:
    """One service with its folder; `cameras` are the tables of `line.toml`."""

    def __init__(self, folder: Path, *cameras: dict[str, Any], port: int | None = None, **keys: Any) -> None:  # noqa: ANN401
        """Write `line.toml`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.config = folder / "line.toml"
        self.log = folder / "log.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        top = {"station": "test", "run_dir": str(folder / "run"), "endpoint": self.endpoint, "threads": 1, **keys}
        tables = ["\n[[camera]]\n" + _toml(camera) for camera in cameras]
        self.config.write_text(_toml(top) + "".join(tables), encoding="utf-8")

    @property
    def run_dir(self) -> Path:
        """Where the service writes."""
        return self.folder / "run"

    def start(self, *, ready: bool = True, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> "Line":
        """Start the service; by default wait until it is Ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *TAKT, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Status, once the service is Ready."""
        return dict(until(lambda: (status := self.status()) and status["ready"] and status, "Ready", within_s=within_s))

    def status(self) -> dict[str, Any] | None:
        """What `status` says; None while nobody answers."""
        reply = self.ask("status")
        return reply.result if reply is not None and isinstance(reply.result, dict) else None

    def ask(self, command: str, **arguments: Any) -> Reply | None:  # noqa: ANN401
        """One request to the control socket."""
        return ask(f"tcp://127.0.0.1:{self.port + 3}", command, **arguments)

    def pid(self, kind: str) -> int:
        """PID of `supervisor`, `broker`, `worker` (the first) or `camera` (the first), as the operating system has it."""
        assert self.process is not None
        if kind == "supervisor":
            return self.process.pid
        found = [pid for pid, command in children(self.process.pid) if command.endswith(f"service.child {kind}")]
        if not found:
            message = f"no {kind} runs"
            raise LookupError(message)
        return found[0]

    def kill(self, kind: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process of the service; its PID."""
        pid = self.pid(kind)
        os.kill(pid, number)
        return pid

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def end(self) -> None:
        """Leave nothing behind, whatever state the test left the service in."""
        if self.process is None:
            return
        pids = [pid for pid, _ in children(self.process.pid)]
        self.process.kill()
        self.process.wait(10)
        for pid in pids:
            until(lambda pid=pid: not _alive(pid), f"{pid} to leave", within_s=10)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log, or its events of one name; every line must be one JSON object."""
        found = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [event for event in found if name is None or event["event"] == name]


@contextmanager
def serving(
    folder: Path,
    *cameras: dict[str, Any],
    env: dict[str, str] | None = None,
    **keys: Any,  # noqa: ANN401
) -> Iterator[Line]:
    """A service that is Ready; ended afterwards."""
    line = Line(folder, *cameras, **keys)
    try:
        yield line.start(env=env)
    finally:
        line.end()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does nothing for a while: it hangs, or its work takes longer than anybody waits."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def children(parent: int) -> list[tuple[int, str]]:
    """PIDs and command lines of a process's children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (OSError, UnicodeDecodeError):
                continue
            fields = stat.rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append((int(entry.name), command))
    return found


def _alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if value is not None)
