"""The journal's thread: what is submitted comes back once, in order, whatever the disk or a neighbour does."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journals import STATION, Gate, Writing, acceptance, decide, open_journal, page, put_down, restart

from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.protocol.messages import Answer
from edge_runtime.service.operations import Accept, Audit, Probe, ReadRecords, RecordPage, Stored
from edge_runtime.service.writer import MAX_BATCH, JournalWriter

BAD = Audit(actor="ann", command="c", detail=[], ok=True)  # type: ignore[arg-type]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def writing(tmp_path: Path, gate: Gate) -> Iterator[Writing]:
    writing = Writing(tmp_path, clock=gate.clock)
    yield writing
    gate.open()
    writing.stop()


def test_outcomes_come_once_and_in_the_order_of_submission(writing: Writing) -> None:
    operations = [one for number in range(300) for one in (Accept(acceptance=acceptance(f"t{number}")), Probe())]
    writing.submit(*operations)
    outcomes = writing.outcomes(len(operations))
    assert all(outcome.operation is operation for outcome, operation in zip(outcomes, operations, strict=True))
    assert {outcome.error for outcome in outcomes} == {None}
    assert all(outcome.commit_ms > 0 for outcome in outcomes)
    assert writing.writer.outcomes() == []
    assert writing.writer.backlog == 0


def test_what_piles_up_during_a_commit_is_committed_together_and_no_more_than_a_batch(
    writing: Writing, gate: Gate
) -> None:
    gate.shut()
    writing.submit(decide(acceptance("first")))
    gate.wait_until_reached()
    writing.submit(*(Accept(acceptance=acceptance(f"t{number}")) for number in range(MAX_BATCH + 1)))
    assert writing.writer.backlog == MAX_BATCH + 2
    gate.open()
    outcomes = writing.outcomes(MAX_BATCH + 2)
    groups = [outcome.commit_ms for outcome in outcomes]  # one time for each transaction
    assert len(set(groups)) == 3
    assert len(set(groups[1:-1])) == 1


def test_one_bad_operation_does_not_fail_its_neighbours(writing: Writing, gate: Gate) -> None:
    gate.shut()
    writing.submit(decide(acceptance("first")))
    gate.wait_until_reached()
    writing.submit(decide(acceptance("t1")), BAD, decide(acceptance("t2")))
    gate.open()
    first, left, bad, right = writing.outcomes(4)
    assert [first.error, left.error, right.error] == [None, None, None]
    assert bad.error is not None
    assert bad.value is None
    assert isinstance(left.value, Answer)
    assert isinstance(right.value, Answer)
    assert (left.value.seq, right.value.seq) == (2, 3)
    assert writing.writer.journal.newest == 3


def test_a_busy_file_fails_the_whole_batch_and_the_thread_goes_on(writing: Writing, tmp_path: Path) -> None:
    """A lock stands for whatever keeps the disk from taking a commit."""
    accepted = acceptance("t1")
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing.submit(Accept(acceptance=accepted), decide(accepted), Probe())
    outcomes = writing.outcomes(3)
    assert all("locked" in (outcome.error or "") for outcome in outcomes)
    other.execute("ROLLBACK")
    other.close()
    assert writing.do(Accept(acceptance=accepted)).value is None  # as new: nothing of it was stored
    value = writing.do(decide(accepted)).value
    assert isinstance(value, Answer)
    assert value.seq == 1


def test_verdicts_of_a_failed_commit_do_not_stand_if_a_crash_brings_it_back(tmp_path: Path) -> None:
    """A log that was written and not synced may be found whole after a crash; its verdicts were told to nobody."""
    writing = Writing(tmp_path)
    accepted = acceptance("t1")
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert writing.do(decide(accepted)).error is not None
    assert put_down(tmp_path, "t1")
    other.execute("ROLLBACK")
    other.close()
    writing.stop()
    (tmp_path / "kept").write_bytes((tmp_path / "disowned").read_bytes())
    journal = open_journal(tmp_path)
    journal.apply([decide(accepted)])  # as if the log had been found
    journal.close()
    (tmp_path / "kept").replace(tmp_path / "disowned")
    journal = open_journal(tmp_path)
    assert [record.reason for record in page(journal).records] == [Reason.JOURNAL]
    journal.close()


def test_after_the_next_good_commit_a_failed_one_is_in_doubt_no_more(tmp_path: Path) -> None:
    writing = Writing(tmp_path)
    accepted = acceptance("t1")
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert [writing.do(decide(accepted)).error is None for _ in range(2)] == [False, False]
    other.execute("ROLLBACK")
    other.close()
    assert writing.do(decide(accepted)).error is None
    assert not put_down(tmp_path, "t1")
    writing.stop()
    journal = open_journal(tmp_path)
    assert [record.verdict for record in page(journal).records] == [Verdict.ACCEPT]
    journal.close()


def test_stop_commits_what_is_queued_and_closes_the_journal(tmp_path: Path) -> None:
    gate = Gate()
    writing = Writing(tmp_path, clock=gate.clock)
    gate.shut()
    writing.submit(*(decide(acceptance(f"t{number}")) for number in range(50)))
    gate.wait_until_reached()
    assert writing.writer.stop(0.01) is False
    assert writing.writer.alive
    with pytest.raises(RuntimeError, match="stopped"):
        writing.writer.submit(Probe())
    gate.open()
    assert writing.writer.stop(30) is True
    assert len(writing.outcomes(50)) == 50
    assert not writing.writer.alive
    journal = open_journal(tmp_path)  # it let go of its lock
    assert journal.newest == 50
    journal.close()


def test_start_says_at_once_what_is_wrong_with_the_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database " * 100)
    writer = JournalWriter(
        tmp_path / "journal.sqlite", station=STATION, restart=restart, notify=threading.Event().set, durable=False
    )
    with pytest.raises(RuntimeError, match="not started"):
        _ = writer.journal
    with pytest.raises(ConfigError, match="not a database"):
        writer.start()
    assert writer.stop(1)


def test_a_wake_up_that_cannot_be_sent_does_not_stop_the_thread(tmp_path: Path) -> None:
    calls: list[int] = []

    def full() -> None:
        calls.append(1)
        raise BlockingIOError

    writer = JournalWriter(tmp_path / "journal.sqlite", station=STATION, restart=restart, notify=full, durable=False)
    writer.start()
    for _ in range(2):
        writer.submit(Probe())
    assert writer.stop(30)
    assert len(writer.outcomes()) == 2
    assert calls


def test_a_key_that_the_protocol_does_not_allow_is_not_taken(writing: Writing) -> None:
    for trigger_id in ("ü", "x" * 1000):
        with pytest.raises(ValueError, match="is no key of the protocol"):
            writing.writer.submit(Accept(acceptance=acceptance(trigger_id)))
    assert writing.writer.backlog == 0


def test_many_threads_may_submit_and_each_operation_comes_back_once(writing: Writing) -> None:
    def submit(name: int) -> None:
        for number in range(200):
            writing.writer.submit(decide(acceptance(f"{name}-{number}")))

    threads = [threading.Thread(target=submit, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = writing.outcomes(800)
    seqs = [outcome.value.seq for outcome in outcomes if isinstance(outcome.value, Answer)]
    assert seqs == list(range(1, 801))
    found = writing.do(ReadRecords(after=0, limit=1000)).value
    assert isinstance(found, RecordPage)
    assert [record.seq for record in found.records] == seqs


def test_reading_works_beside_a_writer_of_another_process(writing: Writing, tmp_path: Path) -> None:
    """The file can be looked at while the service runs."""
    writing.do(decide(acceptance("t1")))
    other = sqlite3.connect(f"file:{tmp_path / 'journal.sqlite'}?mode=ro", uri=True)
    assert other.execute("SELECT count(*) FROM verdicts").fetchone() == (1,)
    other.close()
    assert isinstance(writing.do(Accept(acceptance=acceptance("t1"))).value, Stored)
