"""A verdict that was disowned is never seen: not in an outcome, not in the record stream, not after a crash."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journals import Gate, Writing, acceptance, decide, not_in_time, open_journal, page, put_down

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import Accept, Decide, Outcome, Probe, ReadRecords, RecordPage, Stored

FORBID = "CREATE TRIGGER forbid BEFORE UPDATE ON verdicts BEGIN SELECT RAISE(ABORT, 'no rewriting now'); END"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def writing(tmp_path: Path, gate: Gate) -> Iterator[Writing]:
    writing = Writing(tmp_path, clock=gate.clock)
    yield writing
    gate.open()
    writing.stop()


def records(writing: Writing) -> tuple[tuple[str, Verdict], ...]:
    value = writing.do(ReadRecords(after=0, limit=100)).value
    assert isinstance(value, RecordPage)
    return tuple((record.trigger_id, record.verdict) for record in value.records)


def test_a_verdict_that_was_not_taken_up_is_removed(writing: Writing, gate: Gate) -> None:
    gate.shut()
    writing.submit(decide(acceptance("t1")))
    gate.wait_until_reached()
    late = decide(acceptance("t2"))
    writing.submit(late, decide(acceptance("t3")))
    assert writing.writer.cancel(late, not_in_time(late.acceptance)) is True
    assert writing.writer.backlog == 2
    gate.open()
    assert [outcome.operation is late for outcome in writing.outcomes(2)] == [False, False]
    assert records(writing) == (("t1", Verdict.ACCEPT), ("t3", Verdict.ACCEPT))
    assert not put_down(writing.folder, "t2")


def test_a_verdict_in_mid_commit_is_put_down_and_then_rewritten_at_its_seq(writing: Writing, gate: Gate) -> None:
    gate.shut()
    late = decide(acceptance("t1"))
    writing.submit(late)
    gate.wait_until_reached()
    instead = not_in_time(late.acceptance)
    assert writing.writer.cancel(late, instead) is False
    assert put_down(writing.folder, "t1")
    assert writing.writer.outcomes() == []
    gate.open()
    (outcome,) = writing.outcomes(1)
    assert outcome.error is None
    assert outcome.value == instead.model_copy(update={"seq": 1, "journaled": False})
    value = writing.do(ReadRecords(after=0, limit=9)).value
    assert isinstance(value, RecordPage)
    assert [record.model_dump() for record in value.records] == [outcome.value.model_dump()]
    assert not put_down(writing.folder, "t1")  # nothing is in doubt any more
    writing.stop()
    journal = open_journal(writing.folder)
    assert [record.reason for record in page(journal).records] == [Reason.JOURNAL]
    journal.close()


def test_no_other_outcome_of_the_same_commit_shows_a_disowned_verdict(writing: Writing, gate: Gate) -> None:
    gate.shut()
    writing.submit(decide(acceptance("t0")))
    gate.wait_until_reached()
    late = decide(acceptance("t1"))
    others = (ReadRecords(after=0, limit=9), Accept(acceptance=late.acceptance), decide(late.acceptance))
    writing.submit(late, *others, decide(acceptance("t2")))
    gate.let_one_pass()
    assert writing.writer.cancel(late, not_in_time(late.acceptance)) is False
    gate.open()
    _, own, read, accepted, again, neighbour = writing.outcomes(6)
    assert isinstance(own.value, Answer)
    assert (own.value.reason, own.value.seq) == (Reason.JOURNAL, 2)
    assert isinstance(read.value, RecordPage)
    assert [record.verdict for record in read.value.records] == [Verdict.ACCEPT, Verdict.ERROR]
    assert isinstance(accepted.value, Stored)
    assert accepted.value.answer == own.value
    assert again.value == own.value
    assert isinstance(neighbour.value, Answer)
    assert (neighbour.value.verdict, neighbour.value.seq) == (Verdict.ACCEPT, 3)


def test_an_outcome_that_waits_to_be_fetched_is_taken_back_with_all_that_show_it(writing: Writing) -> None:
    late = decide(acceptance("t1"))
    for operation in (late, ReadRecords(after=0, limit=9), Probe()):
        writing.submit(operation)
        assert writing.notified.acquire(timeout=30)
    assert writing.writer.cancel(late, not_in_time(late.acceptance)) is False
    outcomes = writing.outcomes(3)
    by_type = {type(outcome.operation): outcome.value for outcome in outcomes}
    own, read = by_type[Decide], by_type[ReadRecords]
    assert isinstance(own, Answer)
    assert (own.verdict, own.reason, own.journaled, own.seq) == (Verdict.ERROR, Reason.JOURNAL, False, 1)
    assert isinstance(read, RecordPage)
    assert [record.verdict for record in read.records] == [Verdict.ERROR]
    assert records(writing) == (("t1", Verdict.ERROR),)


def test_an_outcome_that_was_fetched_stands(writing: Writing) -> None:
    done = decide(acceptance("t1"))
    writing.do(done)
    with pytest.raises(ValueError, match="the one that was fetched stands"):
        writing.writer.cancel(done, not_in_time(done.acceptance))
    assert records(writing) == (("t1", Verdict.ACCEPT),)


def test_a_verdict_that_its_key_had_before_is_not_touched(writing: Writing, gate: Gate) -> None:
    first = decide(acceptance("t1"))
    told = writing.do(first).value
    second = decide(acceptance("t1"), Verdict.REJECT)
    gate.shut()
    writing.submit(decide(acceptance("t0")))
    gate.wait_until_reached()
    writing.submit(second, decide(acceptance("t2")))
    gate.let_one_pass()
    assert writing.writer.cancel(second, not_in_time(second.acceptance)) is False
    gate.open()
    assert writing.outcomes(3)[1].value == told
    assert records(writing)[0] == ("t1", Verdict.ACCEPT)


def test_a_record_that_could_not_be_rewritten_is_not_readable_until_it_is(
    writing: Writing, gate: Gate, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute(FORBID)
    gate.shut()
    late = decide(acceptance("t1"))
    writing.submit(late)
    gate.wait_until_reached()
    assert writing.writer.cancel(late, not_in_time(late.acceptance)) is False
    gate.open()
    assert "no rewriting now" in (writing.outcomes(1)[0].error or "")
    for operation in (ReadRecords(after=0, limit=9), Accept(acceptance=late.acceptance), decide(late.acceptance)):
        outcome = writing.do(operation)
        assert outcome.value is None
        assert "no rewriting now" in (outcome.error or "")
    assert put_down(tmp_path, "t1")
    other.execute("DROP TRIGGER forbid")
    other.close()
    assert records(writing) == (("t1", Verdict.ERROR),)
    assert not put_down(tmp_path, "t1")


def test_what_was_never_rewritten_is_rewritten_by_the_next_start(tmp_path: Path) -> None:
    gate = Gate()
    writing = Writing(tmp_path, clock=gate.clock)
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute(FORBID)
    gate.shut()
    late = decide(acceptance("t1"))
    writing.submit(late)
    gate.wait_until_reached()
    assert writing.writer.cancel(late, not_in_time(late.acceptance)) is False
    gate.open()
    writing.stop()
    assert other.execute("SELECT body FROM verdicts").fetchone()[0].count('"ACCEPT"') == 1
    other.execute("DROP TRIGGER forbid")
    other.close()
    journal = open_journal(tmp_path)
    assert [record.reason for record in page(journal).records] == [Reason.JOURNAL]
    journal.close()


def slow_time() -> float:
    time.sleep(0.0001)
    return time.time()


def test_cancels_at_any_moment_leave_one_story(tmp_path: Path) -> None:
    """What each client was told, what the outcomes say and what the records say is the same."""
    dice = random.Random(3)
    writing = Writing(tmp_path, clock=Clock(utc_s=slow_time))  # most of the time it is in mid-transaction
    removed, disowned, fetched = set[int](), set[int](), dict[int, Outcome]()
    submitted = [decide(acceptance(f"t{number}")) for number in range(1000)]
    for number, operation in enumerate(submitted):
        writing.submit(operation)
        if dice.random() < 0.1:
            writing.submit(ReadRecords(after=max(0, writing.writer.journal.newest - 20), limit=40))
        late = submitted[max(0, number - dice.choice((0, 1, 5, 20, 80, 200)))]
        if dice.random() < 0.4 and id(late) not in removed | set(fetched):
            told = writing.writer.cancel(late, not_in_time(late.acceptance))
            (removed if told else disowned).add(id(late))
        if dice.random() < 0.05:
            fetched |= {id(outcome.operation): outcome for outcome in writing.writer.outcomes()}
        if dice.random() < 0.2:
            time.sleep(dice.choice((0, 0.0005, 0.002)))  # about as fast as the thread
    writing.stop()
    fetched |= {id(outcome.operation): outcome for outcome in writing.writer.outcomes()}
    assert len(removed) > 20
    assert len(disowned) > 20
    assert {outcome.error for outcome in fetched.values()} == {None}
    journal = open_journal(tmp_path)
    told = {record.trigger_id: record.verdict for record in page(journal).records}
    journal.close()
    for operation in submitted:
        name, number = operation.acceptance.key.trigger_id, id(operation)
        assert (number in fetched) == (number not in removed) == (name in told)
        if number in fetched:
            value = fetched[number].value
            assert isinstance(value, Answer)
            assert value.verdict is told[name] is (Verdict.ERROR if number in disowned else Verdict.ACCEPT)
    pages = [outcome.value for outcome in fetched.values() if isinstance(outcome.value, RecordPage)]
    by_name = {one.acceptance.key.trigger_id: id(one) for one in submitted}
    assert pages
    # a page that was fetched before the cancel of a verdict cannot have shown it: that verdict was fetched then, too
    assert all(record.verdict is told[record.trigger_id] for shown in pages for record in shown.records)
    assert set(by_name) >= set(told)


CANCEL_AND_GO_ON = """
import sys
from pathlib import Path
from support.journals import Gate, Writing, acceptance, decide, not_in_time
gate = Gate()
writing = Writing(Path(sys.argv[1]), clock=gate.clock, durable=True)
epoch = writing.writer.journal.epoch
print("open", flush=True)
for number in range(100_000):
    gate.shut()
    late, neighbour = (decide(acceptance(f"e{epoch}-{number}{which}", epoch=epoch)) for which in "ab")
    writing.submit(late)
    gate.wait_until_reached()
    writing.submit(neighbour)
    writing.writer.cancel(late, not_in_time(late.acceptance))
    print("disowned", late.acceptance.key.trigger_id, flush=True)
    gate.open()
    for outcome in writing.outcomes(2):
        print(outcome.value.verdict, outcome.value.trigger_id, flush=True)
"""


def test_a_disowned_verdict_does_not_come_back_after_a_kill_at_any_instant(tmp_path: Path) -> None:
    disowned: set[str] = set()
    accepted: set[str] = set()
    for lines in (2, 5, 9, 40, 80):
        child = subprocess.Popen(
            [sys.executable, "-c", CANCEL_AND_GO_ON, tmp_path],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])},
        )
        assert child.stdout is not None
        said = [child.stdout.readline().split() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        assert child.wait(30) == -signal.SIGKILL
        disowned |= {line[1] for line in said if line[0] == "disowned"}
        accepted |= {line[1] for line in said if line[0] == "ACCEPT"}
        journal = open_journal(tmp_path)
        told = {record.trigger_id: record for record in page(journal).records}
        journal.close()
        assert {told[name].reason for name in disowned & set(told)} <= {Reason.JOURNAL}
        assert {told[name].verdict for name in accepted} <= {Verdict.ACCEPT}
        assert [record.seq for record in told.values()] == list(range(1, len(told) + 1))
    assert min(len(disowned), len(accepted)) > 20
