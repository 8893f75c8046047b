"""Triggers and answers for tests of the journal, and a clock that stops a commit where a test wants it."""

import threading
import time
from pathlib import Path

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, ListedRegion, TimingsMs
from edge_runtime.service.journal import Journal
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import Acceptance, Decide, Key, Operation, Outcome, ReadRecords, RecordPage
from edge_runtime.service.writer import JournalWriter

STATION = "press-4"


def acceptance(
    trigger_id: str, *, client: str = "plc", epoch: int = 1, content: str = "c", received_ns: int = 0
) -> Acceptance:
    return Acceptance(
        key=Key(client=client, epoch=epoch, trigger_id=trigger_id),
        camera="top",
        part_id=f"part-{trigger_id}",
        content=content,
        deadline_ms=1000,
        received_ns=received_ns,
        received_utc="2026-01-01T00:00:00.000Z",
    )


def answer(
    accepted: Acceptance, verdict: Verdict = Verdict.ACCEPT, reason: Reason | None = None, detail: str = ""
) -> Answer:
    clean = verdict is not Verdict.ERROR
    return Answer(
        station=STATION,
        client=accepted.key.client,
        epoch=accepted.key.epoch,
        trigger_id=accepted.key.trigger_id,
        part_id=accepted.part_id,
        camera=accepted.camera,
        counter=7,
        label="frame.png",
        verdict=verdict,
        reason=reason,
        detail=detail,
        region="all" if clean else None,
        score=0.25 if clean else None,
        threshold=0.5 if clean else None,
        score_normalized=50.0 if clean else None,
        regions=(ListedRegion(name="all", x=1, y=2, width=3, height=4, area_px=9, peak=0.75),) if clean else (),
        regions_left_out=0,
        complete=True,
        bundle="b" * 64,
        artefact="onnx-f32",
        deadline_ms=accepted.deadline_ms,
        decided_utc="2026-01-01T00:00:00.100Z",
        timings_ms=TimingsMs(frame=1.0, infer=2.0),
        seq=None,
        journaled=not (verdict is Verdict.ERROR and reason is Reason.JOURNAL),
    )


def decide(accepted: Acceptance, verdict: Verdict = Verdict.ACCEPT) -> Decide:
    return Decide(acceptance=accepted, answer=answer(accepted, verdict))


def restart(accepted: Acceptance) -> Answer:
    return answer(accepted, Verdict.ERROR, Reason.RESTART, "the service was restarted")


def not_in_time(accepted: Acceptance) -> Answer:
    return answer(accepted, Verdict.ERROR, Reason.JOURNAL, "not in time")


def open_journal(folder: Path, *, clock: Clock | None = None, durable: bool = False, station: str = STATION) -> Journal:
    return Journal.open(folder / "journal.sqlite", station=station, restart=restart, clock=clock, durable=durable)


class Starts:
    """Opens the journal of a folder as often as a test wants; the one before is closed."""

    def __init__(self, folder: Path) -> None:
        """Nothing is open yet."""
        self.folder = folder
        self._journal: Journal | None = None

    def __call__(self, *, clock: Clock | None = None, durable: bool = False, station: str = STATION) -> Journal:
        """Start the journal, once more."""
        self.close()
        self._journal = open_journal(self.folder, clock=clock, durable=durable, station=station)
        return self._journal

    def close(self) -> None:
        """Close the journal that is open."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def one(journal: Journal, operation: Operation) -> object:
    return journal.apply([operation])[0]


def page(journal: Journal, after: int = 0, limit: int = 1_000_000) -> RecordPage:
    result = one(journal, ReadRecords(after=after, limit=limit))
    assert isinstance(result, RecordPage)
    return result


def put_down(folder: Path, trigger_id: str, *, client: str = "plc") -> bool:
    """Whether the file `disowned` names a key."""
    return (client + trigger_id).encode() in (folder / "disowned").read_bytes()


class Gate:
    """Wall-clock time that stands still while the gate is shut: the journal asks for it in mid-transaction."""

    def __init__(self) -> None:
        """The gate is open."""
        self._changed = threading.Condition()
        self._shut = False
        self._waiting = 0  # records held up so far
        self._passes = 0

    @property
    def clock(self) -> Clock:
        """For the journal that is to stop."""
        return Clock(utc_s=self._utc_s)

    def shut(self) -> None:
        """Hold up records from now on."""
        with self._changed:
            self._shut, self._waiting, self._passes = True, 0, 0

    def wait_until_reached(self, count: int = 1) -> None:
        """Return when so many records were held up since it was shut."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting >= count, 30), "the journal's thread never came here"

    def let_one_pass(self) -> None:
        """Let the record that is held up pass; return when the next one is."""
        with self._changed:
            self._passes += 1
            count = self._waiting + 1
            self._changed.notify_all()
        self.wait_until_reached(count)

    def open(self) -> None:
        """Let records pass."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()

    def _utc_s(self) -> float:
        with self._changed:
            if self._shut:
                self._waiting += 1
                mine = self._waiting
                self._changed.notify_all()
                free = self._changed.wait_for(lambda: not self._shut or self._passes >= mine, 30)
                assert free, "a test left the gate shut"
        return time.time()


class Writing:
    """A started writer, with its outcomes collected as its owner would: fetched when it notifies."""

    def __init__(self, folder: Path, *, clock: Clock | None = None, durable: bool = False) -> None:
        """Start it."""
        self.folder = folder
        self.notified = threading.Semaphore(0)
        self.writer = JournalWriter(
            folder / "journal.sqlite",
            station=STATION,
            restart=restart,
            notify=self.notified.release,
            clock=clock,
            durable=durable,
        )
        self.writer.start()

    def submit(self, *operations: Operation) -> None:
        """Queue operations."""
        for operation in operations:
            self.writer.submit(operation)

    def outcomes(self, count: int) -> list[Outcome]:
        """Wait for so many outcomes, no more."""
        outcomes = self.writer.outcomes()
        for _ in range(10_000):  # a notification may be left from outcomes that were fetched already
            if len(outcomes) >= count:
                break
            assert self.notified.acquire(timeout=30), f"{len(outcomes)} outcome(s) came, {count} were expected"
            outcomes += self.writer.outcomes()
        assert len(outcomes) == count, outcomes
        return outcomes

    def do(self, operation: Operation) -> Outcome:
        """Submit one operation and wait for what becomes of it."""
        self.submit(operation)
        return self.outcomes(1)[0]

    def stop(self) -> None:
        """Stop it, if it still runs."""
        assert self.writer.stop(30)
