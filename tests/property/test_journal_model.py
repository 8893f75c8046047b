"""What holds for the journal under every sequence of operations, failed commits and restarts."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.journals import Starts, acceptance, decide, one, page, restart

from edge_runtime.decision import Verdict
from edge_runtime.protocol.messages import Answer
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import (
    Accept,
    Acked,
    Audit,
    Conflict,
    Decide,
    Lookup,
    Operation,
    Prune,
    SetCursor,
    Stored,
)

KEYS = [acceptance(f"t{number}", epoch=epoch) for number in range(3) for epoch in (1, 2)]
keys = st.sampled_from(KEYS)
operations: st.SearchStrategy[Operation] = st.one_of(
    keys.map(lambda key: Accept(acceptance=key)),
    st.builds(decide, keys, st.sampled_from(Verdict)),
    keys.map(lambda key: Conflict(answer=restart(key))),
    keys.map(lambda key: Lookup(acceptance=key, otherwise=restart(key))),
    st.builds(Acked, consumer=st.sampled_from("ab"), seq=st.integers(0, 9)),
    st.builds(SetCursor, consumer=st.sampled_from("ab"), seq=st.integers(0, 9)),
    st.just(Prune(days=1)),
)
FAILING = Audit(actor="ann", command="c", detail=[], ok=True)  # type: ignore[arg-type]
RESTART = "restart"
steps = st.lists(st.just(RESTART) | st.tuples(st.lists(operations, max_size=6), st.booleans()), max_size=12)


class Model:
    """The journal as two dictionaries and a list."""

    def __init__(self) -> None:
        """Empty."""
        self.answers: dict[object, Answer | None] = {}  # by key, in the order of acceptance
        self.records: list[Answer] = []
        self.cursors: dict[str, int] = {}

    def record(self, answer: Answer) -> Answer:
        """Give an answer its place."""
        self.records.append(answer.model_copy(update={"seq": len(self.records) + 1}))
        return self.records[-1]

    def restart(self) -> None:
        """Settle what is open."""
        by_key = {accepted.key: accepted for accepted in KEYS}
        for accepted in [by_key[key] for key, answer in self.answers.items() if answer is None]:  # type: ignore[index]
            self.answers[accepted.key] = self.record(restart(accepted))

    def apply(self, operation: Operation) -> object:
        """Do an operation; gives its answer, or "new"."""
        match operation:
            case Accept(acceptance=accepted):
                known = accepted.key in self.answers
                return self.answers[accepted.key] if known else self.answers.setdefault(accepted.key, None) or "new"
            case Decide(acceptance=accepted, answer=answer):
                self.answers[accepted.key] = self.answers.get(accepted.key) or self.record(answer)
                return self.answers[accepted.key]
            case Conflict(answer=answer):
                return self.record(answer)
            case Lookup(acceptance=accepted, otherwise=answer):
                if accepted.key not in self.answers:
                    self.answers[accepted.key] = self.record(answer)
                return self.answers[accepted.key]
            case Acked(consumer=consumer, seq=seq):
                self.cursors[consumer] = max(self.cursors.get(consumer, 0), seq)
            case SetCursor(consumer=consumer, seq=seq):
                self.cursors[consumer] = seq
            case Prune():
                return 0  # all is young
        return None


def seen(operation: Operation, result: object) -> object:
    """A result of the journal in the model's terms."""
    if isinstance(operation, Accept) and result is None:
        return "new"
    return result.answer if isinstance(result, Stored) else result


@contextmanager
def starting() -> Iterator[Starts]:
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(Path(folder))
        try:
            yield starts
        finally:
            starts.close()


@settings(max_examples=60, deadline=None)
@given(steps)
def test_the_journal_does_what_a_dictionary_would(script: list[str | tuple[list[Operation], bool]]) -> None:
    """One verdict for each key, seq without holes, and of a failed batch nothing at all."""
    model = Model()
    with starting() as start:
        journal = start()
        for step in [*script, RESTART]:
            if isinstance(step, str):
                journal = start()
                model.restart()
            elif step[1]:
                with pytest.raises(sqlite3.Error):
                    journal.apply([*step[0], FAILING])
            else:
                wanted = [model.apply(operation) for operation in step[0]]
                results = journal.apply(step[0])
                assert [seen(*pair) for pair in zip(step[0], results, strict=True)] == wanted
            records = page(journal).records
            assert [record.seq for record in records] == list(range(1, journal.newest + 1))
            assert [record.model_dump() for record in records] == [record.model_dump() for record in model.records]
            assert journal.cursors() == model.cursors
            assert journal.unfinished == sum(answer is None for answer in model.answers.values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 60))
def test_prune_removes_a_prefix_and_nothing_younger(days: list[int], keep: int, today: int) -> None:
    """`days`: what the wall clock said at each record."""
    now = [0.0]
    with starting() as start:
        journal = start(clock=Clock(utc_s=lambda: now[0] * 86_400))
        for number, day in enumerate(days):
            now[0] = day
            one(journal, decide(acceptance(f"t{number}")))
        now[0] = today
        removed = one(journal, Prune(days=keep))
        assert isinstance(removed, int)
        assert [record.seq for record in page(journal).records] == list(range(removed + 1, len(days) + 1))
        assert all(today - day > keep for day in days[:removed])
        assert removed == len(days) - 1 or today - days[removed] <= keep
