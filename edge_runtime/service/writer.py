"""Owns the journal's thread: operations are queued, committed in groups, and come back as outcomes.

Commits of many operations cost one write to disk. Nothing that the disk does holds up whoever submits.

A verdict that does not come back in time can be disowned with `cancel`: its client is told ERROR/JOURNAL, so the
verdict may never be seen, neither in an outcome nor in the record stream nor after a crash. Its key goes into the
file `disowned` first; where the commit succeeds after all, the record is rewritten before anything of it is
delivered. The same file takes the keys of a commit that failed: a log that was written but not synced can come back
after a crash. While anything is in doubt, nothing else is tried before a transaction has settled it.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edge_runtime.protocol.messages import Answer
from edge_runtime.service.disowned import Entry, fits
from edge_runtime.service.group_commit import Committed, Disowning, GroupCommit, mentions
from edge_runtime.service.journal import Journal
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import Accept, Acceptance, Decide, Lookup, Operation, Outcome

MAX_BATCH = 1000


class JournalWriter:
    """A thread with a journal. Methods may be called from any thread; an operation object is submitted once."""

    def __init__(
        self,
        path: Path,
        *,
        station: str,
        restart: Callable[[Acceptance], Answer],
        notify: Callable[[], None],
        clock: Clock | None = None,
        durable: bool = True,
    ) -> None:
        """Take what `Journal.open` needs, and `notify`: called from the thread when outcomes are there to be fetched."""
        self._open: Callable[[], Journal] = lambda: Journal.open(
            path, station=station, restart=restart, clock=clock, durable=durable
        )
        self._notify = notify
        self._journal: Journal | None = None
        self._group: GroupCommit | None = None
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._changed = threading.Condition()  # guards all that follows, and the file of disowned keys
        self._queue: deque[Operation] = deque()
        self._queued: dict[int, Decide] = {}  # by id: those of the queue that are not cancelled
        self._running: dict[int, Decide] = {}  # by id: those that the thread has in hand
        self._floor = 0  # newest seq before the batch that the thread has in hand
        self._disowned: dict[int, Disowning] = {}  # by id of the `Decide`
        self._retracted: list[Committed] = []  # taken out of `_ready`: the thread delivers them again, rewritten
        self._ready: list[Committed] = []
        self._backlog = 0
        self._stopping = False

    @property
    def journal(self) -> Journal:
        """The open journal; only attributes that say so may be read.

        Raises:
            RuntimeError: it was not started.
        """
        if self._journal is None:
            message = "the journal's writer was not started: call start() first"
            raise RuntimeError(message)
        return self._journal

    @property
    def _group_commit(self) -> GroupCommit:
        if self._group is None:
            message = "the journal's writer was not started: call start() first"
            raise RuntimeError(message)
        return self._group

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def backlog(self) -> int:
        """Operations that were submitted and have no outcome yet."""
        return self._backlog

    def start(self) -> None:
        """Open the journal, here, and start the thread.

        Raises:
            ConfigError: see `Journal.open`.
        """
        self._journal = self._open()
        self._group = GroupCommit(self._journal)
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """Queue an operation; its outcome comes later.

        Raises:
            ValueError: its key is none that the protocol allows.
            RuntimeError: the writer was stopped.
        """
        if isinstance(operation, Accept | Decide | Lookup) and not fits(operation.acceptance.key):
            message = f"{operation.acceptance.key} is no key of the protocol: names and ids are short and ASCII"
            raise ValueError(message)
        with self._changed:
            if self._stopping:
                message = "the journal's writer was stopped"
                raise RuntimeError(message)
            if isinstance(operation, Decide):
                self._queued[id(operation)] = operation
            self._queue.append(operation)
            self._backlog += 1
            self._changed.notify()

    def outcomes(self) -> list[Outcome]:
        """Fetch all outcomes that are there, in the order of submission."""
        with self._changed:
            ready, self._ready = self._ready, []
        return [committed.outcome for committed in ready]

    def cancel(self, decide: Decide, instead: Answer) -> bool:
        """Disown a verdict that did not come back in time; its client is told `instead`.

        Returns:
            True: it was not yet taken up; it is removed and no outcome will come. False: it may be committed; its key
            is in the file `disowned`, and its outcome comes: with `instead` at the verdict's seq, or with an error,
            or with the verdict that its key had before.

        Raises:
            ValueError: its outcome was fetched (so it stands), or it was never submitted.
        """
        number = id(decide)
        with self._changed:
            if self._queued.pop(number, None) is not None:
                self._backlog -= 1
                return True
            if number in self._running:
                self._disown(decide, instead, self._floor)
                return False
            for committed in (*self._ready, *self._retracted):
                if committed.outcome.operation is not decide:
                    continue
                if committed.new_seq is not None:
                    self._disown(decide, instead, committed.floor)
                    self._retract(committed.new_seq)
                return False
        message = f"{decide.acceptance.key}: has no outcome to come, the one that was fetched stands"
        raise ValueError(message)

    def stop(self, timeout_s: float) -> bool:
        """Commit what is queued and close the journal; outcomes can still be fetched.

        Returns:
            Whether it was done in time; if not, the thread goes on and ends with the process.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._journal is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _disown(self, decide: Decide, instead: Answer, floor: int) -> None:
        if id(decide) not in self._disowned:
            slot = self._group_commit.put_down(Entry(key=decide.acceptance.key, after=floor))
            self._disowned[id(decide)] = Disowning(instead=instead, slot=slot)

    def _retract(self, seq: int) -> None:
        """Take back all outcomes that show a record, and have the thread deliver them anew."""
        showing = [committed for committed in self._ready if mentions(committed.outcome.value, {seq})]
        self._ready = [committed for committed in self._ready if not mentions(committed.outcome.value, {seq})]
        self._retracted += showing
        self._backlog += len(showing)
        self._changed.notify()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        group = self._group_commit
        try:
            while (batch := self._take()) is not None:
                outcomes = group.commit(batch)
                while disowned := self._deliver(outcomes):  # as often as `cancel` was called meanwhile
                    outcomes = group.disown(outcomes, disowned)
                with contextlib.suppress(OSError):  # a full or closed wake-up socket: its owner is awake, or gone
                    self._notify()
        finally:
            self.journal.close()

    def _take(self) -> list[Operation] | None:
        """The next batch, which may be empty where something was retracted; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._retracted or self._stopping)
            if not (self._queue or self._retracted):
                return None
            batch: list[Operation] = []
            while self._queue and len(batch) < MAX_BATCH:
                operation = self._queue.popleft()
                if isinstance(operation, Decide):
                    if self._queued.pop(id(operation), None) is None:  # cancelled
                        continue
                    self._running[id(operation)] = operation
                batch.append(operation)
            self._floor = self.journal.newest
            return batch

    def _deliver(self, outcomes: list[Committed]) -> dict[int, Disowning]:
        """Hand outcomes over, unless some were disowned: then those, with retracted outcomes put before the others."""
        with self._changed:
            outcomes[:0] = self._retracted
            for committed in self._retracted:
                if isinstance(operation := committed.outcome.operation, Decide):
                    self._running[id(operation)] = operation
            self._retracted = []
            disowned, self._disowned = self._disowned, {}
            if not disowned:
                self._ready += outcomes
                self._running.clear()
                self._backlog -= len(outcomes)
            return disowned
