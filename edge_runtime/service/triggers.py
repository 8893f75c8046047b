"""Owns the life of a trigger: received, framed, in work, decided, on disk, answered; each step once, and all in time."""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import Answer, Result
from edge_runtime.service.answers import as_journal_error, delivered, make_answer
from edge_runtime.service.open_trigger import OpenTrigger, Step, deadline_ns, time_limits
from edge_runtime.service.operations import (
    Accept,
    Acceptance,
    Conflict,
    Decide,
    Key,
    Lookup,
    Operation,
    Outcome,
    Stored,
)

_REMEMBERED = 20_000  # answers of this epoch that a retry finds without the disk
_PARKED = 10_000  # answers that the disk did not take, to be written when it does
_FAIR_NS = 15_000_000  # a disk that takes longer for a verdict is too slow

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Answered:
    answer: bytes  # JSON: a tenth of the memory, and few are asked for again
    content: str
    deadline_ns: int


class Writer(Protocol):
    """What is needed of the journal's thread."""

    def submit(self, operation: Operation) -> None:
        """Have an operation done."""

    def cancel(self, decide: Decide, instead: Answer) -> bool:
        """Take back a verdict that is late; see `JournalWriter.cancel`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What others do when a trigger gets on."""

    deliver: Callable[[Answer], None]  # to the client
    queued: Callable[[Key], None]  # to the client: the acceptance is on disk
    publish: Callable[[Answer], None]  # to the record stream, after the commit
    frameless: Callable[[OpenTrigger], None]  # decided without ever having had a frame
    journal: Callable[[str | None], None]  # the disk failed, and how; None: it works


@dataclass(slots=True)
class Triggers:
    """All open triggers, and the answers of late."""

    station: str
    epoch: int
    writer: Writer
    hooks: Hooks
    open: dict[Key, OpenTrigger] = field(default_factory=dict)
    _by_serial: dict[int, OpenTrigger] = field(default_factory=dict)
    _by_operation: dict[int, OpenTrigger] = field(default_factory=dict)
    _answered: OrderedDict[Key, _Answered] = field(default_factory=OrderedDict)
    _timers: list[tuple[int, int]] = field(default_factory=list)
    _serials: Iterator[int] = field(default_factory=itertools.count)
    _parked: deque[Operation] = field(default_factory=lambda: deque(maxlen=_PARKED))

    def receive(self, acceptance: Acceptance) -> OpenTrigger | None:
        """Take a TRIGGER of this epoch.

        Returns:
            The trigger where it is new and wants a frame; None where it was met before, and that is dealt with.
        """
        key = acceptance.key
        answered = self._answered.get(key)  # first: what was sent as ERROR/JOURNAL may be open still
        known = self.open.get(key)
        if answered is not None:
            if answered.content != acceptance.content:
                self._conflict(acceptance)
            else:
                late = acceptance.received_ns > answered.deadline_ns
                answer = Answer.model_validate_json(answered.answer)
                self.hooks.deliver(answer.model_copy(update={"expired": late}))
            return None
        if known is not None:
            if known.acceptance.content != acceptance.content:
                self._conflict(acceptance)
            return None
        trigger = self._new(acceptance)
        self.open[key] = trigger
        self.writer.submit(Accept(acceptance=acceptance))
        return trigger

    def receive_old(self, acceptance: Acceptance) -> None:
        """Take a TRIGGER of another epoch: the journal knows its answer, or there is none and never will be."""
        trigger = self._new(acceptance)
        detail = f"the service restarted: this is epoch {self.epoch}, the trigger is of {acceptance.key.epoch}"
        trigger.answer = make_answer(trigger, self.station, reason=Reason.RESTART, detail=detail)
        self._submit(trigger, Lookup(acceptance=acceptance, otherwise=trigger.answer))

    def decide(
        self,
        trigger: OpenTrigger,
        now_ns: int,
        *,
        reason: Reason | None = None,
        detail: str = "",
        result: Result | None = None,
    ) -> None:
        """Give a trigger its verdict: a worker's result, or ERROR with a reason. The first one counts."""
        if not trigger.undecided:
            return
        frameless = trigger.step is Step.FRAME
        trigger.decided_ns = now_ns
        trigger.answer = make_answer(trigger, self.station, reason=reason, detail=detail, result=result)
        trigger.step = Step.DECIDED
        self._submit(trigger, Decide(acceptance=trigger.acceptance, answer=trigger.answer))
        if frameless:
            self.hooks.frameless(trigger)

    def on_outcome(self, outcome: Outcome, now_ns: int) -> None:
        """The journal is done with an operation, or could not do it."""
        self.hooks.journal(outcome.error)
        if isinstance(outcome.operation, Accept):
            self._accepted(outcome)
            return
        trigger = self._by_operation.pop(id(outcome.operation), None)
        if outcome.error is not None:
            if trigger is not None and not isinstance(outcome.operation, Lookup):
                self._without_journal(trigger, now_ns)
            self._park(outcome.operation, trigger)
        elif trigger is None:
            if isinstance(outcome.value, Answer):  # written late
                self.hooks.publish(outcome.value)
        elif isinstance(outcome.value, Stored):
            self._found(trigger, outcome.value, now_ns)
        elif isinstance(outcome.value, Answer):
            self._committed(trigger, outcome.value, now_ns)

    def due(self, now_ns: int) -> None:
        """Decide what ran out of time, and answer what the disk did not take in time."""
        while self._timers and self._timers[0][0] <= now_ns:
            _, serial = heapq.heappop(self._timers)
            trigger = self._by_serial.get(serial)
            if trigger is None:
                continue
            if trigger.undecided:
                heapq.heappush(self._timers, (trigger.answer_by_ns, serial))
                self._timed_out(trigger, now_ns)
            elif not trigger.sent and now_ns < trigger.answer_by_ns:
                heapq.heappush(self._timers, (trigger.answer_by_ns, serial))
            elif not trigger.sent and not isinstance(trigger.operation, Lookup):
                self._overdue(trigger, now_ns)

    def next_due_ns(self) -> int | None:
        """When `due` has something to do at the earliest."""
        return self._timers[0][0] if self._timers else None

    def resume_journal(self) -> None:
        """The disk works again: write what it did not take."""
        parked, self._parked = self._parked, deque(maxlen=_PARKED)
        for operation in parked:
            trigger = self._by_operation.pop(id(operation), None)
            again = replace(operation)  # the journal takes each object once
            if trigger is not None and isinstance(again, Lookup):
                self._submit(trigger, again)
            else:
                self.writer.submit(again)

    @property
    def unjournaled(self) -> int:
        """Answers that were sent and are not on disk yet."""
        return len(self._parked)

    @property
    def unfinished(self) -> int:
        """Triggers without a journalled answer."""
        return len(self._by_serial)

    def _new(self, acceptance: Acceptance) -> OpenTrigger:
        decide_by, answer_by = time_limits(acceptance)
        trigger = OpenTrigger(acceptance, next(self._serials), decide_by, answer_by)
        self._by_serial[trigger.serial] = trigger
        heapq.heappush(self._timers, (decide_by, trigger.serial))
        return trigger

    def _conflict(self, acceptance: Acceptance) -> Answer:
        trigger = self._new(acceptance)
        detail = (
            "this id was used before with another camera, part, deadline or frame: give every trigger an id of its own"
        )
        trigger.answer = make_answer(trigger, self.station, reason=Reason.CONFLICT, detail=detail)
        self._submit(trigger, Conflict(answer=trigger.answer))
        return trigger.answer

    def _submit(self, trigger: OpenTrigger, operation: Decide | Conflict | Lookup) -> None:
        trigger.operation = operation
        self._by_operation[id(operation)] = trigger
        self.writer.submit(operation)

    def _timed_out(self, trigger: OpenTrigger, now_ns: int) -> None:
        waited = f"{trigger.acceptance.deadline_ms} ms"
        if trigger.step is Step.FRAME:
            self.decide(
                trigger, now_ns, reason=Reason.NO_FRAME, detail=f"no frame came within the deadline of {waited}"
            )
        else:
            what = "waited for a worker" if trigger.step is Step.QUEUE else "was being inspected"
            self.decide(
                trigger, now_ns, reason=Reason.TIMEOUT, detail=f"the frame {what} when the deadline of {waited} ran out"
            )

    def _accepted(self, outcome: Outcome) -> None:
        operation = outcome.operation
        trigger = self.open.get(operation.acceptance.key) if isinstance(operation, Accept) else None
        if trigger is None or outcome.error is not None:
            return  # a verdict that is written brings its acceptance along
        if outcome.value is None:
            self.hooks.queued(trigger.acceptance.key)
        elif isinstance(outcome.value, Stored) and outcome.value.acceptance.content != trigger.acceptance.content:
            if trigger.sent:
                return
            self._forget(trigger)
            self._by_operation.pop(id(trigger.operation), None)  # decided meanwhile: that is not told
            trigger.answer = self._conflict(trigger.acceptance)
        # else a retry from before what is remembered: the verdict that it gets is the stored one, see `Decide`

    def _committed(self, trigger: OpenTrigger, answer: Answer, now_ns: int) -> None:
        self._forget(trigger)
        if not trigger.sent and answer.model_copy(update={"seq": None}) != trigger.answer:
            # a retry from before what is remembered: its stored answer counts, and is too old to open a gate
            self.hooks.deliver(answer.model_copy(update={"expired": True}))
            return
        if not trigger.sent:
            self._remember(trigger, answer)
            self.hooks.deliver(delivered(answer, trigger, now_ns))
        self.hooks.publish(answer)

    def _found(self, trigger: OpenTrigger, stored: Stored, now_ns: int) -> None:
        self._forget(trigger)
        if stored.acceptance.content != trigger.acceptance.content:
            self._conflict(trigger.acceptance)
        elif stored.answer is not None:
            fresh = stored.answer.seq is not None and stored.acceptance == trigger.acceptance
            late = stored.deadline_passed or now_ns > deadline_ns(stored.acceptance)
            self.hooks.deliver(stored.answer.model_copy(update={"expired": late}))
            if fresh:
                self.hooks.publish(stored.answer)

    def _overdue(self, trigger: OpenTrigger, now_ns: int) -> None:
        """The answer must leave; the disk is to blame only if it had time: a short deadline leaves it hardly any."""
        given_ns = now_ns - (trigger.decided_ns or trigger.acceptance.received_ns)
        if given_ns >= _FAIR_NS:
            self.hooks.journal("the disk did not take a verdict in time")
        self._without_journal(trigger, now_ns, park=given_ns >= _FAIR_NS)

    def _without_journal(self, trigger: OpenTrigger, now_ns: int, *, park: bool = True) -> None:
        """Answer ERROR/JOURNAL now; what the journal will say must be the same, when the disk works again or at once."""
        if trigger.answer is None or trigger.sent:
            return
        instead = as_journal_error(trigger.answer)
        trigger.sent = True
        operation = trigger.operation
        if (
            isinstance(operation, Decide)
            and id(operation) in self._by_operation
            and self.writer.cancel(operation, instead)
        ):
            self._by_operation.pop(id(operation))
            if park:
                self._park(operation, trigger)
            else:
                self._forget(trigger)
                self.writer.submit(Decide(acceptance=operation.acceptance, answer=instead))
        self._remember(trigger, instead)
        self.hooks.deliver(delivered(instead, trigger, now_ns))

    def _park(self, operation: Operation, trigger: OpenTrigger | None) -> None:
        if trigger is not None and trigger.sent and isinstance(operation, Decide):
            operation = Decide(acceptance=operation.acceptance, answer=as_journal_error(operation.answer))
        if isinstance(operation, Lookup):  # nobody was answered: ask again when the disk works
            if trigger is not None:
                self._by_operation[id(operation)] = trigger
        elif trigger is not None:
            self._forget(trigger)
        if len(self._parked) == self._parked.maxlen:  # the oldest gives way
            dropped = self._by_operation.pop(id(self._parked[0]), None)
            if dropped is not None:
                self._forget(dropped)
        self._parked.append(operation)

    def _remember(self, trigger: OpenTrigger, answer: Answer) -> None:
        if not isinstance(trigger.operation, Decide):
            return  # the id belongs to another trigger
        self._answered[trigger.acceptance.key] = _Answered(
            answer.model_dump_json().encode(), trigger.acceptance.content, trigger.deadline_ns
        )
        while len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)

    def _forget(self, trigger: OpenTrigger) -> None:
        self._by_serial.pop(trigger.serial, None)
        if self.open.get(trigger.acceptance.key) is trigger:
            del self.open[trigger.acceptance.key]
