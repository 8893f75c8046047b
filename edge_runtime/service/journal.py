"""Owns the journal: what was promised and what was said, on disk before anyone hears of it.

One SQLite file with a write-ahead log; `apply` is one transaction. Of every key there is one verdict, of every
verdict one place in the record stream, and `seq` has no holes. A start settles what the last one left open: first
verdicts whose client was told ERROR/JOURNAL, then triggers without a verdict.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from edge_runtime.protocol.messages import Answer
from edge_runtime.service.answers import as_journal_error
from edge_runtime.service.disowned import Disowned
from edge_runtime.service.journal_file import Clock, connect, explained, next_epoch
from edge_runtime.service.journal_tables import Tables
from edge_runtime.service.operations import Acceptance, Decide, Operation, Probe


class Journal:
    """An open journal, for one thread; `epoch`, `newest`, `unfinished`, `cursors` and `active` may be read from any."""

    def __init__(self, path: Path, connection: sqlite3.Connection, disowned: Disowned, tables: Tables) -> None:
        """Take over open files; see `open`."""
        self._path = path
        self.disowned = disowned
        self.epoch = 0
        self.recovered = 0  # triggers that this start answered with ERROR/RESTART
        self.newest = tables.seq  # seq of the newest record; 0 where there is none
        self.unfinished = tables.unfinished  # triggers without a verdict
        self._connection = connection
        self._tables = tables
        self._cursors = tables.cursors
        self._active = tables.active

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        station: str,
        restart: Callable[[Acceptance], Answer],
        clock: Clock | None = None,
        durable: bool = True,
    ) -> Self:
        """Open the journal or make it, count the start, and settle what the last one left.

        Args:
            path: the database; `epoch` and `disowned` lie beside it.
            station: whose journal it is.
            restart: the ERROR/RESTART answer for a trigger that was open.
            clock: time; the machine's own if None.
            durable: commits survive a power failure; False is for measuring only.

        Raises:
            ConfigError: a file is damaged, not of this station, of a newer release, in use, or cannot be written.
        """
        clock = clock or Clock()
        with contextlib.ExitStack() as opened, explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            disowned = Disowned.open(path.with_name("disowned"))
            opened.callback(disowned.close)
            connection = connect(path, station=station, durable=durable)
            opened.callback(connection.close)
            epoch = _begin(path, connection, clock)
            journal = cls(path, connection, disowned, Tables(connection, epoch=epoch, clock=clock))
            journal.epoch = epoch
            journal._take_back()
            journal._recover(restart)
            opened.pop_all()
        return journal

    def cursors(self) -> dict[str, int]:
        """How far each known consumer has acknowledged, as committed."""
        return dict(self._cursors)

    def active(self) -> dict[str, tuple[str, str, str | None]]:
        """Of each camera the configured bundle, the digest that runs, and the one before it, as committed."""
        return dict(self._active)

    @property
    def size_bytes(self) -> int:
        """Of the database and its log on disk."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def apply(self, batch: Sequence[Operation]) -> list[object]:
        """Do all operations in order in one transaction, or none; gives their results.

        Raises:
            sqlite3.Error: nothing was done. Where the commit itself failed, it may yet be found done after a crash.
        """
        return self._transact(lambda: [self._tables.run(operation) for operation in batch])

    def settle(self, rewrites: Sequence[Answer]) -> None:
        """Give records another body, and show that the disk takes writes.

        A transaction that was committed after a failed commit has taken its place in the log: none of that one can
        come back.

        Args:
            rewrites: what is to stand at each one's seq.

        Raises:
            sqlite3.Error: nothing was done.
        """

        def rewrite() -> list[object]:
            for answer in rewrites:
                self._tables.rewrite(answer)
            return [self._tables.run(Probe())]

        self._transact(rewrite)

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()
        self.disowned.close()

    def _transact(self, work: Callable[[], list[object]]) -> list[object]:
        self._roll_back()  # where the last one could not be
        self._tables.mark()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = work()
            self._connection.execute("COMMIT")
        except BaseException:
            self._tables.forget()
            with contextlib.suppress(sqlite3.Error):  # tried again before the next one
                self._roll_back()
            raise
        self.newest, self.unfinished = self._tables.seq, self._tables.unfinished
        self._cursors, self._active = self._tables.cursors, self._tables.active
        return results

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _take_back(self) -> None:
        """Make ERROR/JOURNAL of verdicts that were disowned and then committed after all."""
        try:
            found = [self._tables.find_after(entry.key, entry.after) for entry in self.disowned.entries()]
        except ValidationError as error:
            message = f"a record cannot be read: {error}"
            raise sqlite3.DatabaseError(message) from error
        if rewrites := [as_disowned(answer) for answer in found if answer is not None and answer.journaled]:
            self.settle(rewrites)
        self.disowned.reset()

    def _recover(self, restart: Callable[[Acceptance], Answer]) -> None:
        still_open = self._tables.open_triggers()
        self.apply([Decide(acceptance=acceptance, answer=restart(acceptance)) for acceptance in still_open])
        self.recovered = len(still_open)


def _begin(path: Path, connection: sqlite3.Connection, clock: Clock) -> int:
    """Count this start, on disk when this returns."""
    newest: int = connection.execute("SELECT coalesce(max(epoch), 0) FROM epochs").fetchone()[0]
    epoch = next_epoch(path.with_name("epoch"), newest)
    utc = datetime.fromtimestamp(clock.utc_s(), UTC).isoformat(timespec="milliseconds")
    connection.execute("INSERT INTO epochs VALUES (?, ?, ?)", (epoch, clock.boot_id, utc))
    return epoch


def as_disowned(answer: Answer) -> Answer:
    """What stands in the journal for a verdict whose client was told ERROR/JOURNAL."""
    return as_journal_error(answer).model_copy(update={"seq": answer.seq})
