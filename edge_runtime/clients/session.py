"""Owns the triggers of one client, without any socket: each is sent until it is answered or out of time.

A trigger waits for WELCOME, takes its epoch then, and keeps it and its content ever after. It is sent again whenever
the service has forgotten this client, and after growing pauses while there is no answer: the service takes it once.
What comes out for it is one result: the service's answer, or silence at the caller's own deadline.
"""

from dataclasses import dataclass

from edge_runtime.clients.connection import Connection
from edge_runtime.clients.effects import MS, Effect, Finished, Send, Streamed
from edge_runtime.clients.orders import DEADLINE_MS, Order, described, fitted
from edge_runtime.clients.results import Inspected, answered, opens_gate, silence
from edge_runtime.decision import Reason
from edge_runtime.errors import ConfigError
from edge_runtime.protocol.messages import (
    Answer,
    CameraFacts,
    ClientHello,
    ClientWelcome,
    Code,
    Heartbeat,
    Queued,
    Refused,
    Trigger,
    accepting,
)

MAX_OPEN = 1024
_RECENT = 4096  # stream answers that are remembered, so that none is given twice
_LONGEST_PAUSE_MS = 4000
_FROM_SERVICE = accepting(ClientWelcome, Refused, Heartbeat, Queued, Answer)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A trigger without result."""

    order: Order
    trigger: Trigger
    deadline_ns: int
    sent: Send | None = None  # what every sending repeats
    again_ns: int = 0
    pause_ns: int = 0
    queued: bool = False


class Session:
    """The triggers of one client; see the module."""

    def __init__(self, hello: ClientHello, now: int, *, max_open: int = MAX_OPEN) -> None:
        """Start with no trigger and no connection.

        Args:
            hello: name, instance and followed cameras of this client.
            now: nanoseconds.
            max_open: triggers in work; one more is OVERLOAD.
        """
        self.connection = Connection(lambda: hello, _FROM_SERVICE, now)
        self.cameras: dict[str, CameraFacts] = {}
        self.counters = dict.fromkeys(("late", "unmatched", "overload"), 0)
        self._hello = hello
        self._followed = {f"@{camera}" for camera in hello.follow}
        self._max_open = max_open
        self._open: dict[str, _Open] = {}
        self._recent: dict[tuple[str, int, str], None] = {}

    def order(self, now: int, order: Order) -> None:
        """Take a trigger; it is sent at once where the service knows this client, else as soon as it does.

        Raises:
            ConfigError: a trigger of the same id is open.
        """
        trigger = order.trigger.model_copy(update={"deadline_ms": self._deadline_ms(order)})
        if trigger.trigger_id in self._open:
            message = f"trigger_id: {trigger.trigger_id!r} is open: give every part an id of its own"
            raise ConfigError(message)
        deadline_ns = order.started_ns + self._deadline_ms(order) * MS
        entry = _Open(order=order, trigger=trigger, deadline_ns=deadline_ns)
        if len(self._open) >= self._max_open:
            self.counters["overload"] += 1
            self._silent(now, entry, Reason.OVERLOAD, f"{self._max_open} triggers of this client are without answer")
            return
        self._open[trigger.trigger_id] = entry
        if now < deadline_ns and self.connection.welcomed:
            self._send(now, entry)

    def receive(self, now: int, parts: list[bytes]) -> None:
        """Take a message as it came from the socket."""
        message = self.connection.decode(now, parts)
        match message.header if message else None:
            case Answer() as answer:
                self._answer(now, answer)
            case Queued() as queued:
                self._queued(now, queued)
            case Heartbeat() as heartbeat:
                self.connection.heartbeat(now, heartbeat)
            case ClientWelcome() as welcome:
                self._welcome(now, welcome)
            case Refused() as refused:
                self._refused(now, refused)

    def tick(self, now: int) -> None:
        """Answer what is out of time; send again what may be lost; keep the connection."""
        for entry in [entry for entry in self._open.values() if now >= entry.deadline_ns]:
            self._expire(now, entry)
        self.connection.tick(now)
        if self.connection.welcomed:
            for entry in self._open.values():
                if now >= entry.again_ns:
                    self._send(now, entry)

    def due(self) -> int:
        """When `tick` has something to do next."""
        times = [self.connection.due(), *(entry.deadline_ns for entry in self._open.values())]
        if self.connection.welcomed:
            times += [entry.again_ns for entry in self._open.values()]
        return min(times)

    def finish(self, now: int) -> None:
        """End all open triggers: the caller closes."""
        for entry in list(self._open.values()):
            self._silent(now, entry, Reason.TIMEOUT, "the gateway was closed before an answer came")

    def take(self) -> list[Effect]:
        """Effects since the last call, in order."""
        taken, self.connection.out = self.connection.out, []
        return taken

    def _welcome(self, now: int, welcome: ClientWelcome) -> None:
        self.cameras = {facts.name: facts for facts in welcome.cameras}
        self.connection.state = welcome.state
        if not self.connection.welcome(now, welcome):
            return  # the same once more, for a HELLO that was repeated
        for entry in list(self._open.values()):
            if entry.sent is None:  # the camera's own deadline may be known only now
                entry.deadline_ns = entry.order.started_ns + self._deadline_ms(entry.order) * MS
            entry.pause_ns = 0
            if now >= entry.deadline_ns:
                self._expire(now, entry)
            else:
                self._send(now, entry)

    def _send(self, now: int, entry: _Open) -> None:
        if entry.sent is None:
            left_ms = -(-(entry.deadline_ns - now) // MS)  # what waiting for WELCOME took is gone
            update: dict[str, object] = {"epoch": self.connection.epoch, "deadline_ms": left_ms}
            pixels = None
            if entry.order.frame is not None:
                frame = fitted(entry.order.frame, self.cameras.get(entry.trigger.camera))
                update["frame"], pixels = described(frame)
            entry.trigger = entry.trigger.model_copy(update=update)
            entry.sent = Send(entry.trigger, pixels)
        entry.pause_ns = min(2 * entry.pause_ns or self.connection.heartbeat_ns, _LONGEST_PAUSE_MS * MS)
        entry.again_ns = now + entry.pause_ns
        self.connection.out.append(entry.sent)

    def _answer(self, now: int, answer: Answer) -> None:
        if answer.client in self._followed:
            self._stream(answer)
            return
        entry = self._found(answer.epoch, answer.trigger_id) if answer.client == self._hello.name else None
        if entry is None:
            self.counters["unmatched"] += 1  # mostly answers to triggers that this side gave up
        elif now >= entry.deadline_ns:
            self.counters["late"] += 1
            self._expire(now, entry)
        else:
            self._done(answered(answer, entry.trigger, latency_ms=_latency(now, entry)))

    def _stream(self, answer: Answer) -> None:
        key = (answer.client, answer.epoch, answer.trigger_id)
        if key in self._recent:
            return
        self._recent[key] = None
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        total = answer.timings_ms.total or 0.0
        self.connection.out.append(Streamed(Inspected(answer=answer, accepted=opens_gate(answer), latency_ms=total)))

    def _queued(self, now: int, queued: Queued) -> None:
        entry = self._found(queued.epoch, queued.trigger_id)
        if entry is not None:
            entry.queued = True
            entry.again_ns = now + entry.pause_ns

    def _refused(self, now: int, refused: Refused) -> None:
        trigger_id, epoch = refused.trigger_id, refused.epoch
        if trigger_id is None or epoch is None or refused.code in {Code.HELLO_FIRST, Code.NAME_IN_USE}:
            self.connection.refused(now, refused)
            return
        entry = self._found(epoch, trigger_id)
        if entry is None:
            self.counters["unmatched"] += 1
            return
        reason = Reason.NOT_READY if entry.trigger.frame is None else Reason.BAD_IMAGE
        self._silent(now, entry, reason, f"the service refused the trigger: {refused.code}: {refused.detail}")

    def _expire(self, now: int, entry: _Open) -> None:
        if entry.sent is None:
            why = self.connection.refusal or "the service was not reached"
        elif not self.connection.welcomed:
            why = "the connection to the service was lost"
        else:
            why = "the service took the trigger" if entry.queued else "the service did not even confirm the trigger"
        limit_ms = (entry.deadline_ns - entry.order.started_ns) // MS
        self._silent(now, entry, Reason.TIMEOUT, f"no answer within {limit_ms} ms: {why}")

    def _silent(self, now: int, entry: _Open, reason: Reason, detail: str) -> None:
        client, station = self._hello.name, self.connection.station
        latency_ms = _latency(now, entry)
        self._done(silence(entry.trigger, reason, detail, client=client, station=station, latency_ms=latency_ms))

    def _done(self, result: Inspected) -> None:
        self._open.pop(result.answer.trigger_id, None)
        self.connection.out.append(Finished(result))

    def _found(self, epoch: int, trigger_id: str) -> _Open | None:
        entry = self._open.get(trigger_id)
        return entry if entry is not None and entry.sent is not None and entry.trigger.epoch == epoch else None

    def _deadline_ms(self, order: Order) -> int:
        facts = self.cameras.get(order.trigger.camera)
        return order.trigger.deadline_ms or (DEADLINE_MS if facts is None else facts.deadline_ms)


def _latency(now: int, entry: _Open) -> float:
    return (now - entry.order.started_ns) / MS
