"""All that runs in a campaign: the service, two cameras of their own, clients and readers that know the truth."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faults import parts
from faults.ledger import Ledger
from support.line import Line, children, until

HERE = Path(__file__).parent
CLIENTS = {"raw-a": "raw", "raw-b": "raw", "lib": "library"}
READERS = {"reader-raw": "raw-reader", "reader-lib": "library-reader"}
PART_CAMERAS = {"shared": "memory", "remote": "message"}
FOLDER_CAMERA, CLIENT_CAMERA = "files", "given"
_LAST_S = 90.0  # for the last answers and records
_SLOTS = 16


class Floor:
    """The processes; each can be killed and is started again."""

    def __init__(self, folder: Path, stub: Path, *, seed: int, rate: float) -> None:
        """Write the files.

        Args:
            folder: for everything that this campaign leaves behind.
            stub: the bundle of all cameras.
            seed: of everything random.
            rate: triggers a second, in all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.diary = Ledger(folder / "campaign.jsonl")
        self._dead: set[int] = set()
        self._returning: dict[str, int] = {}  # checkers that were killed, and the size of their ledgers then
        self._seed = seed
        self._rate = rate / len(CLIENTS)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        parts.write_folder(folder / "files", seed)
        camera = {"bundle": str(stub), "slots": _SLOTS}
        self.line = Line(
            folder / "service",
            *({"name": name, "source": "process", **camera} for name in PART_CAMERAS),
            {"name": CLIENT_CAMERA, "source": "client", **camera},
            {"name": FOLDER_CAMERA, "source": f"folder:{folder / 'files'}", **camera},
        )

    def start(self) -> None:
        """Start everything, the load last."""
        self.line.start(ready=False)
        for name in PART_CAMERAS:
            self._spawn(name)
        self.line.wait_ready()
        for name in (*READERS, *CLIENTS):
            self._spawn(name)
        until(self.well, "all peers")

    def kill(self, kind: str, draw: random.Random, *, calm: bool) -> None:
        """SIGKILL one process of a kind, or `everything`; what the service does not start again by itself is started."""
        if kind in {"supervisor", "everything"}:
            self._kill_service(kind, calm=calm)
            return
        scope, name = None, kind
        if kind == "camera":
            scope = name = draw.choice([*PART_CAMERAS, FOLDER_CAMERA])
        elif kind == "client":
            scope = name = draw.choice([*CLIENTS, *READERS])
        if name in self._running:
            self._strike(kind, name, scope, self._running[name].pid, calm=calm)
            _bury(self._running[name])
            if kind == "client":
                self._returning[name] = self._ledger(name).stat().st_size
            self._spawn(name)
        else:
            pid: int = until(lambda: self._pid(kind), f"a {kind} to kill")
            self._strike(kind, name, scope, pid, calm=calm)

    def well(self) -> bool:
        """Whether the service is Ready, with all its peers, and none of them is one that was killed."""
        status = self.line.status()
        if status is None or not status["ready"]:
            return False
        fed = [camera["pid"] for camera in status["cameras"] if camera["name"] != CLIENT_CAMERA]
        pids = {*status["pid"].values(), *fed, *(worker["pid"] for worker in status["workers"])}
        peers = status["peers"]
        for name, size in tuple(self._returning.items()):
            if b'"did": "welcome"' in self._ledger(name).read_bytes()[size:]:
                del self._returning[name]
        return (
            not self._returning
            and None not in pids
            and not pids & self._dead
            and set(CLIENTS) <= set(peers["clients"])
            and set(READERS) <= set(peers["consumers"])
        )

    def recover(self, within_s: float) -> bool:
        """Wait until all is well, and note it; whether it came to that."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            self.look()
            if self.well():
                self.diary.put("recovered")
                return True
            time.sleep(0.02)
        self.diary.put("fault", what=f"not well again within {within_s} s: {self.line.status()}")
        return False

    def look(self) -> None:
        """Note whoever ended by itself, and start it again."""
        if self.line.process is not None and self.line.process.poll() is not None:
            self.diary.put("fault", what=f"the service ended by itself: exit code {self.line.process.returncode}")
            self.line.start(ready=False)
        for name, process in tuple(self._running.items()):
            if process.poll() is not None:
                said = (self.folder / f"{name}.err").read_text(encoding="utf-8")[-2000:]
                self.diary.put("fault", what=f"{name} ended by itself: exit code {process.returncode}: {said}")
                _bury(process)
                self._spawn(name)

    def finish(self) -> None:
        """Stop the load, wait for the last answers and records, then stop the service as its manager would."""
        self._dismiss(*CLIENTS)
        try:
            until(self._settled, "an empty journal and readers that are up to date", within_s=_LAST_S)
        except TimeoutError as error:
            self.diary.put("fault", what=f"{error}: {self.line.status()}")
        self._dismiss(*READERS)
        try:
            code = self.line.stop()
        except subprocess.TimeoutExpired:
            code = -1
        if code != 0:
            self.diary.put("fault", what=f"the service stopped with exit code {code}")
        self._dismiss(*PART_CAMERAS)

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        for process in self._running.values():
            process.kill()
            _bury(process)
        self._running.clear()
        self.line.end()

    def _settled(self) -> bool:
        status = self.line.status()
        if status is None:
            return False
        journal = status["journal"]
        acked = {consumer["name"]: consumer["acked"] for consumer in journal["consumers"]}
        behind = any(acked.get(name) != journal["newest_seq"] for name in READERS)
        return not (journal["open"] or journal["unjournaled"] or behind)

    def _pid(self, kind: str) -> int | None:
        try:
            return self.line.pid(kind)
        except LookupError:  # the last one was killed a moment ago
            return None

    def _kill_service(self, kind: str, *, calm: bool) -> None:
        assert self.line.process is not None
        pid = self.line.process.pid
        family = [child for child, _ in children(pid)] if kind == "everything" else []
        self._strike(kind, kind, None, pid, calm=calm)
        for child in family:
            self._end(child)
        self.line.process.wait(10)
        self.line.start(ready=False)

    def _strike(self, kind: str, name: str, scope: str | None, pid: int, *, calm: bool) -> None:
        self.diary.put("kill", kind=kind, name=name, scope=scope, pid=pid, calm=calm)
        self._end(pid)

    def _end(self, pid: int) -> None:
        self._dead.add(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it went with the one before
            return

    def _ledger(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _spawn(self, name: str) -> None:
        at = self.line.port
        if name in PART_CAMERAS:
            seed = str(self._seed)
            command = [str(HERE / "part_camera.py"), f"tcp://127.0.0.1:{at + 1}", name, PART_CAMERAS[name], seed]
        else:
            role = {**CLIENTS, **READERS}[name]
            numbers = [f"--seed={self._seed + len(name)}", f"--rate={self._rate}"]
            ledger = f"--ledger={self._ledger(name)}"
            command = [str(HERE / "checker.py"), role, f"--endpoint={self.line.endpoint}", f"--name={name}", ledger]
            command += numbers
        with (self.folder / f"{name}.err").open("ab") as errors:
            self._running[name] = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=errors, stderr=errors
            )

    def _dismiss(self, *names: str) -> None:
        leaving = {name: self._running.pop(name) for name in names}
        for process in leaving.values():
            assert process.stdin is not None
            process.stdin.close()
        for name, process in leaving.items():
            try:
                code: Any = process.wait(_LAST_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait(10)
            if code != 0:
                self.diary.put("fault", what=f"{name} stopped with exit code {code}")


def _bury(process: "subprocess.Popen[bytes]") -> None:
    process.wait(10)
    if process.stdin is not None:
        process.stdin.close()
