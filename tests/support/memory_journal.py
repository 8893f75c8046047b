"""A journal in memory that keeps the real writer's promises, and whose pace and failures a test decides."""

from dataclasses import replace

from edge_runtime.protocol.messages import Answer
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


class MemoryJournal:
    """Implements `triggers.Writer`; an operation is queued, taken in hand, done, and fetched."""

    def __init__(self) -> None:
        """Empty, and nothing to do."""
        self.now_ns = 0
        self.accepted: dict[Key, Acceptance] = {}
        self.answers: dict[Key, Answer] = {}
        self.records: list[Answer] = []  # in the order of seq
        self.queue: list[Operation] = []
        self.in_hand: list[Operation] = []
        self.ready: list[Outcome] = []
        self._disowned: dict[int, Answer] = {}

    def submit(self, operation: Operation) -> None:
        """Queue it."""
        self.queue.append(operation)

    def cancel(self, decide: Decide, instead: Answer) -> bool:
        """As `JournalWriter.cancel` says."""
        if any(one is decide for one in self.queue):
            self.queue = [one for one in self.queue if one is not decide]
            return True
        if any(one is decide for one in self.in_hand):
            self._disowned[id(decide)] = instead
            return False
        for index, outcome in enumerate(self.ready):
            if outcome.operation is decide:
                self._rewrite(index, instead)
                return False
        message = f"{decide.acceptance.key}: the outcome that was fetched stands"
        raise ValueError(message)

    def take(self) -> None:
        """Begin a batch: what is in it cannot be taken back any more."""
        self.in_hand += self.queue
        self.queue = []

    def finish(self, error: str | None = None) -> None:
        """End the batch: all of it is done, or none."""
        for operation in self.in_hand:
            value = None if error else self._do(operation)
            self.ready.append(Outcome(operation=operation, value=value, error=error, commit_ms=1.0))
        self.in_hand = []
        self._disowned.clear()

    def fetch(self) -> list[Outcome]:
        """What is done and was not fetched yet."""
        ready, self.ready = self.ready, []
        return ready

    def _do(self, operation: Operation) -> object:
        match operation:
            case Accept(acceptance=accepted):
                if accepted.key in self.accepted:
                    return self._stored(accepted.key)
                self.accepted[accepted.key] = accepted
            case Decide(acceptance=accepted, answer=answer):
                self.accepted.setdefault(accepted.key, accepted)
                if accepted.key not in self.answers:
                    instead = self._disowned.get(id(operation))
                    self.answers[accepted.key] = self._record(instead or answer)
                return self.answers[accepted.key]
            case Conflict(answer=answer):
                return self._record(answer)
            case Lookup(acceptance=accepted, otherwise=answer):
                if accepted.key not in self.accepted:
                    self.accepted[accepted.key] = accepted
                    self.answers[accepted.key] = self._record(answer)
                return self._stored(accepted.key)
        return None

    def _record(self, answer: Answer) -> Answer:
        self.records.append(answer.model_copy(update={"seq": len(self.records) + 1}))
        return self.records[-1]

    def _stored(self, key: Key) -> Stored:
        accepted = self.accepted[key]
        end_ns = accepted.received_ns + accepted.deadline_ms * 1_000_000
        return Stored(acceptance=accepted, answer=self.answers.get(key), deadline_passed=self.now_ns >= end_ns)

    def _rewrite(self, index: int, instead: Answer) -> None:
        outcome = self.ready[index]
        if isinstance(outcome.value, Answer) and isinstance(outcome.operation, Decide):
            rewritten = instead.model_copy(update={"seq": outcome.value.seq})
            self.records[(rewritten.seq or 0) - 1] = rewritten
            self.answers[outcome.operation.acceptance.key] = rewritten
            self.ready[index] = replace(outcome, value=rewritten)
