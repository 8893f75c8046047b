"""Owns a camera's socket to the service: connecting, sending without waiting, reading without trusting."""

import math
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
import zmq

from edge_runtime.errors import ProtocolError
from edge_runtime.protocol import messages, wire
from edge_runtime.protocol.messages import Header

_ACCEPTED = messages.accepting(
    messages.CameraWelcome, messages.Credit, messages.Grab, messages.Heartbeat, messages.Refused
)
_MAX_BYTES = 1 << 20  # of a message from the service; none carries pixels
_BATCH = 64  # messages in a row, before frames and heartbeats get their turn
_RECONNECT_MS = (50, 500)
_HIGH_WATER = 1000

_log = structlog.get_logger("takt.camera")


class Link:
    """A DEALER to the service's frame socket, and a wake-up for other threads. One thread uses it, but for `wake`."""

    def __init__(self, address: str, *, camera: str) -> None:
        """Connect in the background; ZeroMQ tries again by itself.

        Args:
            address: of the service's frame socket.
            camera: name, for the log.
        """
        self.instance = uuid.uuid4().hex
        self.malformed = 0
        self._camera = camera
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS[0])
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1])
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a service that is not there: it would be stale
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self._socket.connect(address)
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._woken, zmq.POLLIN)

    def __enter__(self) -> Self:
        """The link itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close at once; what was not sent is dropped."""
        self._socket.close(0)
        self._context.term()
        self._woken.close()
        self._waker.close()

    def wake(self) -> None:
        """End the wait of `arrived` from any thread."""
        with suppress(OSError):  # full: it wakes anyway; closed: nobody sleeps
            self._waker.send(b"\0")

    def arrived(self, timeout_s: float) -> Iterator[Header]:
        """Wait until something comes or somebody wakes us; then the messages that are here, garbage left out."""
        self._poller.poll(math.ceil(timeout_s * 1000))
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        for _ in range(_BATCH):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield wire.decode(parts, _ACCEPTED).header
            except ProtocolError as error:
                self.reject(str(error))

    def reject(self, detail: str) -> None:
        """Count and log a message that makes no sense; nothing else comes of it."""
        self.malformed += 1
        _log.warning("message_malformed", camera=self._camera, detail=detail, count=self.malformed)

    def send(self, header: Header, pixels: memoryview | None = None) -> bool:
        """Send at once or not at all; whether it went."""
        try:
            self._socket.send_multipart(wire.encode(header, pixels), zmq.NOBLOCK, copy=pixels is None)
        except zmq.Again:
            return False
        return True
