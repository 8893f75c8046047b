"""A `Port` of the broker and peers of it, over real sockets on loopback, driven step by step by a test."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import zmq
from support.line import PATIENCE_S, free_port

from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import Header
from edge_runtime.protocol.wire import Buffer, Message
from edge_runtime.service.port import Port

_Kind = TypeVar("_Kind", bound=Header)


def instance() -> str:
    """A random instance id."""
    return uuid.uuid4().hex


class DealerPeer:
    """A DEALER that says what a test wants."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        """Connect."""
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)

    def say(self, header: Header, pixels: Buffer | None = None) -> None:
        """Send a message."""
        self.socket.send_multipart(wire.encode(header, pixels))

    def say_raw(self, *parts: bytes) -> None:
        """Send bytes."""
        self.socket.send_multipart(list(parts))

    def hear(self, kind: type[_Kind]) -> _Kind:
        """The next message, which must be of a kind."""
        header = self.hear_any()
        assert type(header) is kind, header
        return header

    def hear_any(self) -> Header:
        """The next message."""
        assert self.socket.poll(int(PATIENCE_S * 1000)), "no message came"
        return wire.decode(self.socket.recv_multipart()).header

    def close(self) -> None:
        """Leave."""
        self.socket.close(0)


class BoundPort:
    """A port, the peers that talk to it, and its counters."""

    def __init__(self, accepted: Mapping[int, type[Header]], *, pixel_bytes: int = 0) -> None:
        """Bind to a free port of loopback."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.counters: Counter[str] = Counter()
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.port = Port(self.context, self.address, accepted, self.counters, pixel_bytes=pixel_bytes)
        self.peers: list[DealerPeer] = []

    def peer(self) -> DealerPeer:
        """One more peer."""
        self.peers.append(DealerPeer(self.context, self.address))
        return self.peers[-1]

    def take(self, handle: Callable[[bytes, Message, int], None], now_ns: int = 0) -> int:
        """Wait for something to come, then hand over all that is there, as the broker's loop does; gives how many."""
        assert self.port.socket.poll(int(PATIENCE_S * 1000)), "nothing came"
        taken = 0
        for route, message in self.port.receive(256):
            handle(route, message, now_ns)
            taken += 1
        return taken

    def take_until(
        self, handle: Callable[[bytes, Message, int], None], done: Callable[[], object], now_ns: int
    ) -> None:
        """Hand over what comes until something holds."""
        give_up = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < give_up, "it never came to hold"
            self.take(handle, now_ns)

    def close(self) -> None:
        """Close all."""
        for peer in self.peers:
            peer.close()
        self.port.close(0)
        self.context.term()


@contextmanager
def bound(accepted: Mapping[int, type[Header]], *, pixel_bytes: int = 0) -> Iterator[BoundPort]:
    """A port for the length of a test."""
    made = BoundPort(accepted, pixel_bytes=pixel_bytes)
    try:
        yield made
    finally:
        made.close()
