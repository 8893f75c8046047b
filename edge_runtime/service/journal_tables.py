"""Owns the journal's statements: each operation, inside the transaction that its caller holds."""

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from edge_runtime.protocol.messages import Answer, Record
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import (
    Accept,
    Acceptance,
    Acked,
    Activate,
    Audit,
    AuditRow,
    Conflict,
    Decide,
    Key,
    Lookup,
    Operation,
    Probe,
    Prune,
    ReadAudit,
    ReadRecords,
    RecordPage,
    SetCursor,
    Stored,
)

PRUNED_ROWS = 2000
_DAY_S = 86_400.0
_KEY = "client = ? AND epoch = ? AND trigger_id = ?"
_TRIGGER = (
    "t.client, t.epoch, t.trigger_id, t.camera, t.part_id, t.content, t.deadline_ms, t.received_ns, t.received_utc"
)
_INSERT_TRIGGER = """INSERT INTO triggers (client, epoch, trigger_id, camera, part_id, content, deadline_ms, received_ns,
    received_utc, arrived) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (client, epoch, trigger_id) DO NOTHING"""
_FIND_VERDICT = f"""SELECT id, body FROM triggers LEFT JOIN verdicts ON trigger_row = id WHERE {_KEY}"""  # noqa: S608 - constants
_FIND_STORED = f"""SELECT {_TRIGGER}, arrived, body
    FROM triggers AS t LEFT JOIN verdicts ON trigger_row = id WHERE {_KEY}"""  # noqa: S608 - constants
_FIND_OPEN = f"SELECT {_TRIGGER} FROM unanswered JOIN triggers AS t ON id = trigger_row ORDER BY id"  # noqa: S608 - constants
_FIND_AFTER = f"""SELECT seq, body FROM triggers JOIN verdicts ON trigger_row = id WHERE {_KEY} AND seq > ?"""  # noqa: S608 - constants
_SET_CURSOR = "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (consumer) DO UPDATE SET acked = excluded.acked"
_SET_ACTIVE = """INSERT INTO active VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (camera) DO UPDATE SET
    configured = excluded.configured, digest = excluded.digest, previous = excluded.previous, actor = excluded.actor,
    utc = excluded.utc"""


class Tables:
    """The tables of one open journal; what changed in memory is taken back by `forget` when a transaction fails."""

    def __init__(self, connection: sqlite3.Connection, *, epoch: int, clock: Clock) -> None:
        """Read what is small enough to keep at hand."""
        self._execute = connection.execute
        self._epoch = epoch
        self._clock = clock
        self._boots: dict[int, str] = dict(self._execute("SELECT epoch, boot FROM epochs"))
        self.seq: int = self._execute("SELECT coalesce(max(seq), 0) FROM verdicts").fetchone()[0]
        self.unfinished: int = self._execute("SELECT count(*) FROM unanswered").fetchone()[0]
        self.cursors: Mapping[str, int] = dict(self._execute("SELECT consumer, acked FROM cursors"))
        self.active: Mapping[str, tuple[str, str, str | None]] = {
            row[0]: row[1:] for row in self._execute("SELECT camera, configured, digest, previous FROM active")
        }
        self.mark()
        self._handlers: dict[type, Callable[[Any], object]] = {
            Accept: self._accept,
            Decide: self._decide,
            Conflict: self._conflict,
            Lookup: self._lookup,
            ReadRecords: self._read_records,
            Acked: self._acked,
            SetCursor: self._set_cursor,
            Activate: self._activate,
            Audit: self._audit,
            ReadAudit: self._read_audit,
            Prune: self._prune,
            Probe: self._probe,
        }

    def mark(self) -> None:
        """A transaction begins."""
        self._before = self._seen()

    def forget(self) -> None:
        """The transaction was rolled back."""
        self.seq, self.unfinished, self.cursors, self.active = self._before

    def _seen(self) -> tuple[int, int, Mapping[str, int], Mapping[str, tuple[str, str, str | None]]]:
        return self.seq, self.unfinished, self.cursors, self.active

    def run(self, operation: Operation) -> object:
        """Do one operation and give its result."""
        return self._handlers[type(operation)](operation)

    def open_triggers(self) -> list[Acceptance]:
        """Triggers without a verdict, as they were accepted."""
        return [_acceptance(row) for row in self._execute(_FIND_OPEN)]

    def find_after(self, key: Key, after: int) -> Answer | None:
        """The verdict of a key, where its seq is over `after`."""
        row = self._execute(_FIND_AFTER, (key.client, key.epoch, key.trigger_id, after)).fetchone()
        return None if row is None else Answer.model_validate_json(row[1])

    def rewrite(self, answer: Answer) -> None:
        """Put another body into the record of that seq."""
        self._execute("UPDATE verdicts SET body = ? WHERE seq = ?", (answer.model_dump_json(), answer.seq))

    # --- operations -----------------------------------------------------------------------------------------------

    def _accept(self, operation: Accept) -> Stored | None:
        row = self._insert(operation.acceptance)
        if row is None:
            return self._stored(operation.acceptance.key)
        self._execute("INSERT INTO unanswered VALUES (?)", (row,))
        self.unfinished += 1
        return None

    def _decide(self, operation: Decide) -> Answer:
        key = operation.acceptance.key
        found = self._execute(_FIND_VERDICT, (key.client, key.epoch, key.trigger_id)).fetchone()
        if found is None:
            row = self._insert(operation.acceptance)
        elif found[1] is not None:
            return Answer.model_validate_json(found[1])
        else:
            row = found[0]
            self._execute("DELETE FROM unanswered WHERE trigger_row = ?", (row,))
            self.unfinished -= 1
        return self._record(row, operation.answer)

    def _conflict(self, operation: Conflict) -> Answer:
        return self._record(None, operation.answer)

    def _lookup(self, operation: Lookup) -> Stored | None:
        row = self._insert(operation.acceptance)
        if row is not None:
            self._record(row, operation.otherwise)
        return self._stored(operation.acceptance.key)

    def _read_records(self, operation: ReadRecords) -> RecordPage:
        first = self._execute("SELECT min(seq) FROM verdicts").fetchone()[0]
        rows = self._execute(
            "SELECT body FROM verdicts WHERE seq > ? ORDER BY seq LIMIT ?", (operation.after, max(operation.limit, 0))
        )
        return RecordPage(
            records=tuple(Record.model_validate_json(body) for (body,) in rows),
            first=self.seq + 1 if first is None else first,
        )

    def _acked(self, operation: Acked) -> None:
        self._move_cursor(operation.consumer, max(self.cursors.get(operation.consumer, 0), operation.seq))

    def _set_cursor(self, operation: SetCursor) -> None:
        self._move_cursor(operation.consumer, operation.seq)

    def _activate(self, operation: Activate) -> None:
        bundle = (operation.configured, operation.digest, operation.previous)
        self._execute(_SET_ACTIVE, (operation.camera, *bundle, operation.actor, self._utc()))
        self.active = {**self.active, operation.camera: bundle}

    def _audit(self, operation: Audit) -> None:
        line = (self._utc(), operation.actor, operation.command, operation.detail, int(operation.ok))
        self._execute("INSERT INTO audit (utc, actor, command, detail, ok) VALUES (?, ?, ?, ?, ?)", line)

    def _read_audit(self, operation: ReadAudit) -> tuple[AuditRow, ...]:
        rows = self._execute(
            "SELECT utc, actor, command, detail, ok FROM audit ORDER BY id DESC LIMIT ?", (max(operation.limit, 0),)
        )
        return tuple(
            AuditRow(utc=utc, actor=actor, command=command, detail=detail, ok=bool(ok))
            for utc, actor, command, detail, ok in rows
        )

    def _prune(self, operation: Prune) -> int:
        before_s = self._clock.utc_s() - operation.days * _DAY_S
        rows = self._execute(
            "SELECT seq, trigger_row, written_s FROM verdicts WHERE seq < ? ORDER BY seq LIMIT ?",
            (self.seq, PRUNED_ROWS),  # the newest stays: the next start counts on from it
        ).fetchall()
        old = list(takewhile(lambda row: row[2] < before_s, rows))
        for seq, trigger_row, _ in old:
            self._execute("DELETE FROM verdicts WHERE seq = ?", (seq,))
            if trigger_row is not None:
                self._execute("DELETE FROM triggers WHERE id = ?", (trigger_row,))
        return len(old)

    def _probe(self, _: Probe) -> None:
        self._execute("UPDATE about SET probes = probes + 1")

    # --- parts of them ------------------------------------------------------------------------------------------------

    def _insert(self, acceptance: Acceptance) -> int | None:
        """The row of a new trigger; None where the key is there already."""
        key = acceptance.key
        done = self._execute(
            _INSERT_TRIGGER,
            (
                key.client,
                key.epoch,
                key.trigger_id,
                acceptance.camera,
                acceptance.part_id,
                acceptance.content,
                acceptance.deadline_ms,
                acceptance.received_ns,
                acceptance.received_utc,
                self._epoch,
            ),
        )
        return done.lastrowid if done.rowcount == 1 else None

    def _record(self, row: int | None, answer: Answer) -> Answer:
        numbered = answer.model_copy(update={"seq": self.seq + 1})
        self._execute(
            "INSERT INTO verdicts VALUES (?, ?, ?, ?)",
            (numbered.seq, row, self._clock.utc_s(), numbered.model_dump_json()),
        )
        self.seq += 1
        return numbered

    def _stored(self, key: Key) -> Stored | None:
        row = self._execute(_FIND_STORED, (key.client, key.epoch, key.trigger_id)).fetchone()
        if row is None:
            return None
        acceptance, arrived, body = _acceptance(row), row[-2], row[-1]
        boot = self._boots[arrived]
        comparable = arrived == self._epoch or (boot != "" and boot == self._clock.boot_id)
        end_ns = acceptance.received_ns + acceptance.deadline_ms * 1_000_000
        return Stored(
            acceptance=acceptance,
            answer=None if body is None else Answer.model_validate_json(body),
            deadline_passed=not comparable or self._clock.monotonic_ns() >= end_ns,
        )

    def _move_cursor(self, consumer: str, seq: int) -> None:
        self._execute(_SET_CURSOR, (consumer, seq))
        self.cursors = {**self.cursors, consumer: seq}  # never changed in place: other threads read it

    def _utc(self) -> str:
        return datetime.fromtimestamp(self._clock.utc_s(), UTC).isoformat(timespec="milliseconds")


def _acceptance(row: tuple[Any, ...]) -> Acceptance:
    client, epoch, trigger_id, camera, part_id, content, deadline_ms, received_ns, received_utc = row[:9]
    return Acceptance(
        key=Key(client=client, epoch=epoch, trigger_id=trigger_id),
        camera=camera,
        part_id=part_id,
        content=content,
        deadline_ms=deadline_ms,
        received_ns=received_ns,
        received_utc=received_utc,
    )
