"""Owns how operations reach the journal in groups: together, else each alone, and what a failure leaves in doubt."""

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from edge_runtime.protocol.messages import Answer, Record
from edge_runtime.service.disowned import Entry
from edge_runtime.service.journal import Journal
from edge_runtime.service.operations import Decide, Operation, Outcome, RecordPage, Stored

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """An outcome, and the newest seq before its transaction: a seq over it was given by this operation."""

    outcome: Outcome
    floor: int

    @property
    def new_seq(self) -> int | None:
        """Seq of the record that this `Decide` made; None where it failed or its key had a verdict before."""
        value = self.outcome.value
        made = isinstance(value, Answer) and value.seq is not None and value.seq > self.floor
        return value.seq if made and isinstance(value, Answer) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Disowning:
    """What the client of a `Decide` was told, and where its key is in the file `disowned`."""

    instead: Answer
    slot: int | None  # None where the file could not be written


class GroupCommit:
    """Commits batches to a journal; for one thread, but for `put_down`."""

    def __init__(self, journal: Journal) -> None:
        """Nothing is in doubt: `Journal.open` settled what was."""
        self._journal = journal
        self._rewrites: dict[int, Answer] = {}  # by seq: records that may not be read as they are
        self._slots: list[int] = []  # in the file `disowned`, not needed any more once all is settled

    def commit(self, batch: Sequence[Operation]) -> list[Committed]:
        """Do operations in one transaction; if one of them cannot be done, each in one of its own.

        Never raises: on a sick disk all get an error, and nothing more is tried before what is in doubt is settled.
        """
        if not batch:
            return []
        floor, begun = self._journal.newest, time.perf_counter()
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever it is, and says so in each outcome
            return _failed(batch, error, floor, begun)
        try:
            values = self._journal.apply(batch)
        except Exception as error:  # noqa: BLE001 - the same
            if _is_of_disk(error):
                self._doubt(batch, floor)
            elif len(batch) > 1:
                return [committed for operation in batch for committed in self.commit([operation])]
            return _failed(batch, error, floor, begun)
        took_ms = _ms_since(begun)
        return [
            Committed(outcome=Outcome(operation=operation, value=value, error=None, commit_ms=took_ms), floor=floor)
            for operation, value in zip(batch, values, strict=True)
        ]

    def disown(self, committed: Sequence[Committed], disowned: Mapping[int, Disowning]) -> list[Committed]:
        """Rewrite the records that disowned operations made, and all outcomes that show one.

        Args:
            committed: outcomes that nobody has seen.
            disowned: by id of the operation.
        """
        replaced: dict[int, Answer] = {}
        for one in committed:
            disowning = disowned.get(id(one.outcome.operation))
            if disowning is None:
                continue
            if disowning.slot is not None:
                self._slots.append(disowning.slot)
            if (seq := one.new_seq) is not None:
                replaced[seq] = disowning.instead.model_copy(update={"seq": seq, "journaled": False})
        if not replaced:
            return list(committed)
        self._rewrites.update(replaced)
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - as above; tried again before the next batch
            failure: str | None = _said(error)
        else:
            failure = None
        return [replace(one, outcome=_revised(one.outcome, replaced, failure)) for one in committed]

    def put_down(self, entry: Entry) -> int | None:
        """Write a key into the file `disowned`, from any thread."""
        try:
            return self._journal.disowned.add(entry)
        except OSError as error:  # held in memory all the same: lost only if the process is killed now
            _log.error("disowned_key_not_written", trigger_id=entry.key.trigger_id, error=str(error))
            return None

    def _doubt(self, batch: Sequence[Operation], floor: int) -> None:
        """A commit that failed may be found done after a crash: its verdicts, which nobody was told, must not stand."""
        entries = [Entry(key=one.acceptance.key, after=floor) for one in batch if isinstance(one, Decide)]
        self._slots += [slot for entry in entries if (slot := self.put_down(entry)) is not None]

    def _settle(self) -> None:
        if not (self._rewrites or self._slots):
            return
        self._journal.settle(list(self._rewrites.values()))
        self._rewrites.clear()
        slots, self._slots = self._slots, []
        for slot in slots:
            try:
                self._journal.disowned.release(slot)
            except OSError as error:  # it stays down: at the next start its record is found settled
                _log.warning("disowned_key_not_removed", error=str(error))


def mentions(value: object, seqs: Collection[int]) -> bool:
    """Whether a result shows one of these records."""
    match value:
        case Answer():
            return value.seq in seqs
        case Stored():
            return value.answer is not None and value.answer.seq in seqs
        case RecordPage():
            return any(record.seq in seqs for record in value.records)
        case _:
            return False


def _revised(outcome: Outcome, replaced: Mapping[int, Answer], failure: str | None) -> Outcome:
    """The outcome with other records in it; an error where they could not be written."""
    if not mentions(outcome.value, replaced):
        return outcome
    if failure is not None:
        return replace(outcome, value=None, error=failure)
    return replace(outcome, value=_replaced(outcome.value, replaced))


def _replaced(value: object, answers: Mapping[int, Answer]) -> object:
    match value:
        case Answer(seq=int(seq)):
            return answers[seq]
        case Stored(answer=Answer(seq=int(seq))):
            return replace(value, answer=answers[seq])
        case RecordPage():
            return replace(value, records=tuple(_record(answers.get(one.seq or 0), one) for one in value.records))
        case _:
            return value


def _record(answer: Answer | None, otherwise: Record) -> Record:
    return otherwise if answer is None else Record.model_validate_json(answer.model_dump_json())


def _failed(batch: Sequence[Operation], error: Exception, floor: int, begun: float) -> list[Committed]:
    took_ms = _ms_since(begun)
    return [
        Committed(outcome=Outcome(operation=one, value=None, error=_said(error), commit_ms=took_ms), floor=floor)
        for one in batch
    ]


def _is_of_disk(error: Exception) -> bool:
    """Whether no operation would fare better: disk, file or lock, rather than what one operation holds."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _ms_since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
