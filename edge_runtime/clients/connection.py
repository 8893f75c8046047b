"""Owns a connection's life without any socket: greeting, heartbeats, silence, refusals, and what was malformed."""

import logging
from collections.abc import Callable, Mapping

from edge_runtime.clients.effects import MS, Effect, Greeted, Parted, Reconnect, Send
from edge_runtime.errors import ProtocolError
from edge_runtime.protocol.messages import (
    ClientWelcome,
    Code,
    ConsumerWelcome,
    Header,
    Heartbeat,
    Refused,
    State,
)
from edge_runtime.protocol.wire import Message, decode

HELLO_MS = 200  # between HELLOs until WELCOME is heard
HEARTBEAT_MS = 500  # until WELCOME says otherwise
LAPSE_MS = 2000  # the same
_HEARTBEAT_BOUNDS = (10, 60_000)  # a WELCOME may say anything; a busy loop or a dead wait it cannot ask for
_LAPSE_BOUNDS = (100, 600_000)

_log = logging.getLogger("takt.clients")


class Connection:
    """HELLO until WELCOME; then heartbeats until the service forgets this peer or falls silent, and again."""

    def __init__(self, hello: Callable[[], Header], accepted: Mapping[int, type[Header]], now: int) -> None:
        """Start with a HELLO.

        Args:
            hello: makes the HELLO of the moment.
            accepted: message types that the service may send, by number.
            now: nanoseconds.
        """
        self.out: list[Effect] = []
        self.welcomed = False
        self.epoch = 0
        self.station = ""
        self.state: State | None = None
        self.reason = ""
        self.refusal = ""  # why the last HELLO was refused
        self.counters = dict.fromkeys(("malformed", "refused", "reconnects"), 0)
        self.heartbeat_ns = HEARTBEAT_MS * MS
        self._hello = hello
        self._accepted = accepted
        self._lapse_ns = LAPSE_MS * MS
        self._dead_at = now + self._lapse_ns
        self._next_ns = now  # of HELLO while unknown, of HEARTBEAT after

    def due(self) -> int:
        """When `tick` has something to do next."""
        return min(self._dead_at, self._next_ns)

    def tick(self, now: int) -> None:
        """Give up a silent socket; send HELLO or HEARTBEAT where one is due."""
        if now >= self._dead_at:
            self.counters["reconnects"] += 1
            self._dead_at = now + self._lapse_ns
            self.out.append(Reconnect())
            self.greet(now)
            self._next_ns = now
        if now >= self._next_ns:
            self._next_ns = now + (self.heartbeat_ns if self.welcomed else HELLO_MS * MS)
            self.out.append(Send(Heartbeat(epoch=self.epoch) if self.welcomed else self._hello()))

    def greet(self, now: int) -> None:
        """Go back to HELLO, at once; while one is on its way already, nothing is added."""
        if self.welcomed:
            self.welcomed = False
            self.out.append(Parted())
            self._next_ns = now

    def decode(self, now: int, parts: list[bytes]) -> Message | None:
        """Read a message; None where it was garbage, which counts as silence."""
        try:
            message = decode(parts, self._accepted)
        except ProtocolError as error:
            self.malformed(str(error))
            return None
        self._dead_at = now + self._lapse_ns
        return message

    def malformed(self, detail: str) -> None:
        """Count a message that makes no sense."""
        self._count("malformed", detail)

    def welcome(self, now: int, welcome: ClientWelcome | ConsumerWelcome) -> bool:
        """Take a WELCOME; true where the peer was unknown before it or the service is another one now."""
        fresh = not self.welcomed or self.epoch != welcome.epoch
        self.epoch, self.station = welcome.epoch, welcome.station
        self.heartbeat_ns = _clamp(welcome.heartbeat_ms, _HEARTBEAT_BOUNDS) * MS
        self._lapse_ns = max(_clamp(welcome.lapse_ms, _LAPSE_BOUNDS) * MS, 2 * self.heartbeat_ns)
        self._dead_at = now + self._lapse_ns
        self.refusal = ""
        if fresh:
            self.welcomed = True
            self._next_ns = now + self.heartbeat_ns
            self.out.append(Greeted())
        return fresh

    def heartbeat(self, now: int, heartbeat: Heartbeat) -> None:
        """Take the service's state; one of another epoch does not know this peer."""
        if self.welcomed and heartbeat.epoch != self.epoch:
            self.greet(now)
        self.state, self.reason = heartbeat.state or self.state, heartbeat.reason or ""

    def refused(self, now: int, refused: Refused) -> None:
        """Take a REFUSED that concerns the connection, not a trigger."""
        if refused.code is Code.HELLO_FIRST:
            self.greet(now)
            return
        refusal = f"{refused.code}: {refused.detail}"
        self._count("refused", refusal)
        if not self.welcomed or refused.code is Code.NAME_IN_USE:
            self._wait(now, refusal)

    def _count(self, name: str, detail: str) -> None:
        """Count; the 1st, 2nd, 4th, 8th ... are logged: a service gone mad must not fill a disk."""
        self.counters[name] += 1
        count = self.counters[name]
        if count & (count - 1) == 0:
            _log.warning("%s message from the service, number %d: %s", name, count, detail)

    def _wait(self, now: int, refusal: str) -> None:
        """The HELLO itself was refused: again after a lapse, for whoever has the name may be gone then."""
        self.refusal = refusal
        self.greet(now)
        self._next_ns = now + self._lapse_ns
        self._dead_at = self._next_ns + self._lapse_ns


def _clamp(value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return min(max(value, low), high)
