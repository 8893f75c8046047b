"""Owns requests to the control socket: one question, one reply, or an error that says what is the matter."""

import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq
from pydantic import JsonValue

from edge_runtime.errors import ConfigError, ProtocolError, TaktError
from edge_runtime.protocol.endpoints import parse_endpoint
from edge_runtime.protocol.messages import Refused, Reply, Request, accepting
from edge_runtime.protocol.wire import decode, encode

ASK_S = 2.0  # for what the service knows by heart
ACT_S = 120.0  # for what it must load and test first

_FROM_SERVICE = accepting(Reply, Refused)


class ServiceError(TaktError):
    """The service does not answer, or did not carry out a command; the message is its own."""


class Control:
    """Commands for a running service; each call opens a connection of its own."""

    def __init__(self, endpoint: str, *, actor: str = "") -> None:
        """Nothing is sent yet.

        Args:
            endpoint: `tcp://127.0.0.1:PORT` of the service: the trigger socket's, as everywhere.
            actor: who asks, for the service's audit log.

        Raises:
            ConfigError: the endpoint is no address.
        """
        self.endpoint = endpoint
        self._address = parse_endpoint(endpoint).control
        self._actor = actor[:128]
        self._context = zmq.Context()

    def status(self) -> dict[str, JsonValue]:
        """How the station does; `edge_runtime.clients.station.Station` gives it types."""
        result = self.request("status", {}, timeout_s=ASK_S).result
        if not isinstance(result, dict):
            message = (
                f"{self.endpoint}: the status is {type(result).__name__}, expected an object: is it another version?"
            )
            raise ServiceError(message)
        return result

    def stage(self, bundle: str | Path, camera: str | None = None) -> Reply:
        """Load and test a sealed bundle beside the one that runs; on one camera, or on all."""
        return self._act("stage", {"camera": camera, "bundle": str(Path(bundle).absolute())})

    def activate(self, camera: str | None = None) -> Reply:
        """Switch to the staged bundle, between frames."""
        return self._act("activate", {"camera": camera})

    def rollback(self, camera: str | None = None) -> Reply:
        """Switch back to the bundle before."""
        return self._act("rollback", {"camera": camera})

    def resync(self, camera: str) -> Reply:
        """Pair a hardware-triggered camera's exposures with triggers anew."""
        return self._act("resync", {"camera": camera})

    def halt(self) -> Reply:
        """Stop inspecting: every trigger is answered ERROR/NOT_READY."""
        return self._act("halt", {})

    def resume(self) -> Reply:
        """Inspect again."""
        return self._act("resume", {})

    def audit(self, limit: int = 100) -> list[JsonValue]:
        """The last commands: when, who, what, and whether it was done."""
        result = self.request("audit", {"limit": limit}, timeout_s=ASK_S).result
        return result if isinstance(result, list) else [result]

    def request(self, command: str, arguments: dict[str, JsonValue], *, timeout_s: float) -> Reply:
        """Send one command. It is sent once: none is repeated without a person's knowledge.

        Raises:
            ServiceError: no reply in time, or the service says no.
        """
        if self._context.closed:
            message = "control is closed: make a new one"
            raise ConfigError(message)
        asked = Request(id=uuid.uuid4().hex, command=command, arguments=arguments, actor=self._actor)
        with self._context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._address)
            socket.send_multipart(encode(asked))
            reply = self._reply(socket, asked, time.monotonic() + timeout_s)
        if reply is None:
            message = (
                f"{self.endpoint}: no reply to `{command}` within {timeout_s:g} s: is the service running, and is this "
                f"the endpoint of its line.toml?"
            )
            raise ServiceError(message)
        if not reply.ok:
            message = f"{self.endpoint}: `{command}` was not done: {reply.detail}"
            raise ServiceError(message)
        return reply

    def close(self) -> None:
        """Let go of the network."""
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _act(self, command: str, arguments: dict[str, JsonValue]) -> Reply:
        """A command that may take long: first make sure, quickly, that somebody is there to hear it."""
        self.status()
        return self.request(command, arguments, timeout_s=ACT_S)

    def _reply(self, socket: zmq.Socket[bytes], asked: Request, until: float) -> Reply | None:
        while (left_s := until - time.monotonic()) > 0:
            if not socket.poll(int(left_s * 1000) + 1):
                return None
            try:
                header = decode(socket.recv_multipart(), _FROM_SERVICE).header
            except ProtocolError:
                continue  # whatever it is, it is no reply
            if isinstance(header, Refused):
                message = f"{self.endpoint}: the service refused `{asked.command}`: {header.code}: {header.detail}"
                raise ServiceError(message)
            if isinstance(header, Reply) and header.id == asked.id:
                return header
        return None
