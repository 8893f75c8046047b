"""Owns a `takt serve` that the workstation starts, as a user would: its file, its process, its end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from edge_runtime.clients.control import Control, ServiceError
from edge_runtime.clients.station import Station, read_station
from edge_runtime.errors import TaktError

Table = Mapping[str, str | int]

_SOCKETS = 6  # of a service, one port after the other
_FIRST_PORT = 5550
_LAST_PORT = 5990
_POLL_S = 0.02
_ASK_S = 0.25
_STOP_S = 30.0
_GONE_S = 10.0  # for processes that were killed
_TOLD_CHARS = 2000  # of the log, where a service does not start


def write_line(path: Path, station: Table, cameras: Sequence[Table]) -> Path:
    """Write `line.toml`.

    Args:
        path: the file.
        station: its keys but for the cameras.
        cameras: keys of each `[[camera]]`.
    """
    tables = ["\n[[camera]]\n" + _toml(camera) for camera in cameras]
    path.write_text(_toml(station) + "".join(tables), encoding="utf-8")
    return path


def free_endpoint() -> str:
    """A trigger socket's address whose ports are free, the usual one first.

    Raises:
        TaktError: there is none.
    """
    for port in range(_FIRST_PORT, _LAST_PORT, 10):
        if all(_is_free(port + offset) for offset in range(_SOCKETS)):
            return f"tcp://127.0.0.1:{port}"
    message = f"no {_SOCKETS} free ports in a row from {_FIRST_PORT} to {_LAST_PORT}: stop services that are not needed"
    raise TaktError(message)


class Service:
    """A running `takt serve`; nothing of it is left when the `with` block ends."""

    def __init__(self, config: Path, endpoint: str, *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            config: `line.toml`.
            endpoint: what that says.
            log: takes what the service logs, after what is there.
            environment: variables beside those of this process.
        """
        self.endpoint = endpoint
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as stream:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "edge_runtime.cli", "serve", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env={**os.environ, **(environment or {})},
            )
        self._control = Control(endpoint, actor="trainer")

    def __enter__(self) -> Self:
        """The service."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it; kill what does not stop."""
        try:
            if self._process.poll() is None:
                self.stop()
        finally:
            self.kill()
            self._control.close()

    def wait_ready(self, within_s: float) -> float:
        """Wait until it is Ready; the seconds since its start.

        Raises:
            TaktError: it ended, or is not Ready in time.
        """
        found = "no answer"
        while time.monotonic() < self.started + within_s:
            if self._process.poll() is not None:
                message = f"takt serve ended with exit code {self._process.returncode}:\n{self._said()}"
                raise TaktError(message)
            try:
                told = self.status(timeout_s=_ASK_S)
            except ServiceError as error:
                found = str(error)
            else:
                if told.ready:
                    return time.monotonic() - self.started
                found = f"{told.state}: {told.reason}"
            time.sleep(_POLL_S)
        message = f"takt serve was not Ready within {within_s:g} s ({found}):\n{self._said()}"
        raise TaktError(message)

    def status(self, *, timeout_s: float = 2.5) -> Station:
        """How it does.

        Raises:
            ServiceError: it does not answer.
        """
        result = self._control.request("status", {}, timeout_s=timeout_s).result
        return read_station(result if isinstance(result, dict) else {})

    def processes(self) -> list[psutil.Process]:
        """The supervisor and its children."""
        try:
            supervisor = psutil.Process(self._process.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"takt serve did not stop within {_STOP_S:g} s of SIGTERM: see {self.log}"
            raise TaktError(message) from None

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        found = self.processes()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(_GONE_S)
        give_up = time.monotonic() + _GONE_S
        while any(_runs(process) for process in found[1:]) and time.monotonic() < give_up:
            time.sleep(_POLL_S / 4)

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TOLD_CHARS:]


def _runs(process: psutil.Process) -> bool:
    """Whether it does anything yet; a dead one that nobody has collected does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # else the port of a service that just ended would look taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _toml(table: Table) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
