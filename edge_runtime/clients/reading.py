"""Owns the reading of the record stream, without any socket: every record once, in order, from where the reader stands.

A named reader has a cursor in the service: what it has acknowledged is not sent again, all else is, after whatever
interruption. Records that come a second time are dropped here. A hole that the service has not declared is asked for
three times; where it stays, it is reported as a gap. A reader without name gets what comes from now on.
"""

from edge_runtime.clients.connection import Connection
from edge_runtime.clients.effects import Delivered, Effect, Failed, Send
from edge_runtime.errors import ConfigError
from edge_runtime.protocol.messages import (
    Ack,
    Code,
    ConsumerHello,
    ConsumerWelcome,
    Gap,
    Heartbeat,
    Record,
    Refused,
    accepting,
)

_ASK_TIMES = 3
_SPARE = 1000
_LARGEST_WINDOW = 10_000
_NEVER = 2**63 - 1
_FROM_SERVICE = accepting(ConsumerWelcome, Refused, Heartbeat, Record, Gap)


class Reading:
    """One reader of the record stream; see the module."""

    def __init__(self, name: str | None, instance: str, now: int, *, last_acked: int | None = None) -> None:
        """Start unconnected.

        Args:
            name: of the cursor; None reads from now on, without one.
            instance: random, one for each process that uses the name.
            now: nanoseconds.
            last_acked: what the reader's own store holds; None takes the service's cursor.
        """
        self.connection = Connection(self._hello, _FROM_SERVICE, now)
        self.acked = last_acked  # None until the service has said where the cursor stands
        self.failed = False
        self._name = name
        self._instance = instance
        self._delivered: int | None = None
        self._window = 0
        self._confirm = False  # whether there is an acknowledgement to repeat
        self._again_ns = 0
        self._gaps: list[Gap] = []  # handed over, before them something is not acknowledged yet
        self._base = 0  # end of the last gap, which needs no acknowledgement to make room
        self._asked = (0, 0)  # a record that is missing, and how often it was asked for

    def ack(self, now: int, seq: int) -> None:
        """All records up to `seq` are safe with the reader."""
        if self.failed or self.acked is None or seq <= self.acked:
            return
        self.acked = seq
        while self._gaps and self._gaps[0].first <= self.acked + 1:
            self.acked = max(self.acked, self._gaps.pop(0).last)
        self._confirm = True
        self._again_ns = now
        self.tick(now)

    def told(self, now: int, gap: Gap) -> None:
        """The reader has been told of a gap: the cursor passes it as soon as all before it is acknowledged."""
        if self._name is None or self.acked is None:
            return
        self._gaps.append(gap)
        if gap.first <= self.acked + 1:
            self._gaps.pop()
            self.ack(now, gap.last)

    def receive(self, now: int, parts: list[bytes]) -> None:
        """Take a message as it came from the socket."""
        message = None if self.failed else self.connection.decode(now, parts)
        match message.header if message else None:
            case Record() as record:
                self._record(now, record)
            case Heartbeat() as heartbeat:
                self.connection.heartbeat(now, heartbeat)
            case ConsumerWelcome() as welcome:
                self._welcome(now, welcome)
            case Gap() as gap:
                self._gap(now, gap)
            case Refused() as refused:
                self._refused(now, refused)

    def tick(self, now: int) -> None:
        """Keep the connection; repeat the last acknowledgement as often as a heartbeat."""
        if self.failed:
            return
        self.connection.tick(now)
        if self._confirm and self.connection.welcomed and now >= self._again_ns and self.acked is not None:
            self._again_ns = now + self.connection.heartbeat_ns
            self.connection.out.append(Send(Ack(seq=self.acked)))

    def due(self) -> int:
        """When `tick` has something to do next."""
        if self.failed:
            return _NEVER
        if self._confirm and self.connection.welcomed:
            return min(self.connection.due(), self._again_ns)
        return self.connection.due()

    def finish(self, _now: int) -> None:
        """Nothing is open here: what was not acknowledged comes again to the next reader of this name."""

    def take(self) -> list[Effect]:
        """Effects since the last call, in order."""
        taken, self.connection.out = self.connection.out, []
        return taken

    def _hello(self) -> ConsumerHello:
        last_acked = None if self._name is None else self.acked
        return ConsumerHello(name=self._name, instance=self._instance, last_acked=last_acked)

    def _welcome(self, now: int, welcome: ConsumerWelcome) -> None:
        known = self.acked if self._delivered is None else self._delivered
        if self._name is not None and known is not None and welcome.newest < known:
            self._fail(f"the service's journal ends at record {welcome.newest}, this reader has had {known}")
            return
        self._window = min(welcome.window, _LARGEST_WINDOW)
        if not self.connection.welcome(now, welcome):
            return  # the same once more, for a HELLO that was repeated
        if self.acked is None:
            self.acked = welcome.last_acked
        if self._name is None:
            self._delivered = welcome.last_acked
        elif self._delivered is None:
            self._delivered = self._base = self.acked

    def _record(self, now: int, record: Record) -> None:
        if not self.connection.welcomed or self._delivered is None:
            return  # for an earlier HELLO; it comes again after WELCOME
        if record.seq is None:
            self.connection.malformed("RECORD without seq")
            return
        if record.seq <= self._delivered or self._too_many(record.seq):
            return
        if self._name is not None and record.seq > self._delivered + 1:
            if self._ask(now):
                return
            missing = "the service left these records out"
            self._pass(Gap(first=self._delivered + 1, last=record.seq - 1, detail=missing))
        self._delivered = record.seq
        self.connection.out.append(Delivered(record))

    def _gap(self, now: int, gap: Gap) -> None:
        if not self.connection.welcomed or self._delivered is None or gap.last <= self._delivered:
            return
        if gap.first > gap.last:
            self.connection.malformed(f"GAP from {gap.first} to {gap.last}")
            return
        if self._name is not None and gap.first > self._delivered + 1 and self._ask(now):
            return
        self._pass(Gap(first=self._delivered + 1, last=gap.last, detail=gap.detail))

    def _pass(self, gap: Gap) -> None:
        self._delivered = self._base = gap.last
        self.connection.out.append(Delivered(gap))

    def _ask(self, now: int) -> bool:
        """Ask for the records after the last one delivered, by another HELLO; false where that was in vain."""
        expected = (self._delivered or 0) + 1
        times = self._asked[1] + 1 if self._asked[0] == expected else 1
        self._asked = (expected, times)
        if times > _ASK_TIMES:
            return False
        self.connection.greet(now)
        return True

    def _too_many(self, seq: int) -> bool:
        """Whether the service sends far more than it may: what a slow reader has in memory stays bounded."""
        return self._name is not None and seq > max(self.acked or 0, self._base) + 2 * self._window + _SPARE

    def _refused(self, now: int, refused: Refused) -> None:
        if refused.code is Code.CURSOR_AHEAD:
            self._fail(refused.detail)
        else:
            self.connection.refused(now, refused)

    def _fail(self, detail: str) -> None:
        self.failed = True
        message = (
            f"reader {self._name!r}: {detail}: its journal was replaced; start again with `last_acked` at or before "
            "the newest record, or with another name"
        )
        self.connection.out.append(Failed(ConfigError(message)))
