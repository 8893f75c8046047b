"""Owns one of the broker's sockets: what comes in is checked and counted, what cannot go out is counted."""

from collections import Counter
from collections.abc import Iterator, Mapping

import structlog
import zmq

from edge_runtime.errors import ConfigError, ProtocolError
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import Code, Header, Refused
from edge_runtime.protocol.wire import Buffer, Message

_HANDSHAKE_MS = 3000  # a connection that is no ZeroMQ, or never says so, is dropped after this
_ZERO_COPY_FROM = 65_536
_WAITING = 10_000  # messages to one peer that may wait for the network: thousands of answers leave after one commit

log = structlog.get_logger()


class Port:
    """A bound ROUTER that speaks the protocol."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        accepted: Mapping[int, type[Header]],
        counters: Counter[str],
        *,
        pixel_bytes: int = 0,
    ) -> None:
        """Bind.

        Args:
            context: ZeroMQ's.
            address: `tcp://host:port`.
            accepted: message types that are taken here.
            counters: of the service; `malformed` and `undelivered` are counted here.
            pixel_bytes: of the largest frame that may come in.

        Raises:
            ConfigError: the address cannot be bound.
        """
        self.address = address
        self._accepted = accepted
        self._counters = counters
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 200
        self.socket.sndhwm = _WAITING
        self.socket.router_mandatory = 1
        self.socket.handshake_ivl = _HANDSHAKE_MS
        self.socket.maxmsgsize = wire.MAX_HEADER_BYTES + pixel_bytes
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.socket.close(0)
            message = f"{address}: cannot be bound ({error.strerror}): another service uses it, or choose another port"
            raise ConfigError(message) from error

    def receive(self, limit: int) -> Iterator[tuple[bytes, Message]]:
        """Messages that are there, at most `limit`, each with the route to its sender; malformed ones are refused."""
        for _ in range(limit):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route, parts = frames[0].bytes, [_part(frame) for frame in frames[1:]]
            try:
                message = wire.decode(parts, self._accepted)
            except ProtocolError as error:
                named = wire.meant(parts)
                trigger_id, epoch = (None, None) if named is None else (named.trigger_id, named.epoch)
                self.refuse(route, Code.BAD_MESSAGE, str(error), trigger_id=trigger_id, epoch=epoch)
                continue
            yield route, message

    def refuse(
        self, route: bytes, code: Code, detail: str, *, trigger_id: str | None = None, epoch: int | None = None
    ) -> None:
        """Tell a peer that its message changed nothing."""
        self._counters["malformed" if code is Code.BAD_MESSAGE else "refused"] += 1
        if code is not Code.HELLO_FIRST:
            log.warning("refused", socket=self.address, code=code, detail=detail)
        self.send(route, Refused(code=code, detail=detail[:2000], trigger_id=trigger_id, epoch=epoch))

    def send(self, route: bytes | None, header: Header) -> bool:
        """Send without waiting; False, and counted, where the peer is gone or does not read."""
        if route is not None:
            try:
                self.socket.send_multipart([route, *wire.encode(header)], zmq.NOBLOCK)
            except ProtocolError as error:
                log.warning("too_large_to_send", socket=self.address, detail=str(error))
            except zmq.ZMQError as error:  # EHOSTUNREACH: gone; EAGAIN: its queue is full
                log.debug("undelivered", socket=self.address, message=type(header).__name__, detail=error.strerror)
            else:
                return True
        self.count("undelivered")  # whom it concerns asks again; the answer is in the journal
        return False

    def count(self, what: str) -> None:
        """Count something that status shows."""
        self._counters[what] += 1

    def close(self, linger_ms: int) -> None:
        """Give what was sent a bounded time to leave."""
        self.socket.close(linger_ms)


def _part(frame: zmq.Frame) -> Buffer:
    return frame.buffer if len(frame) >= _ZERO_COPY_FROM else frame.bytes
