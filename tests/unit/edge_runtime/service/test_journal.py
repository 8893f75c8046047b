"""What the journal stores and gives back."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journals import Starts, acceptance, answer, decide, one, page, restart

from edge_runtime.decision import Reason, Verdict
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import (
    Accept,
    Acked,
    Activate,
    Audit,
    AuditRow,
    Conflict,
    Decide,
    Lookup,
    Probe,
    Prune,
    ReadAudit,
    SetCursor,
    Stored,
)

DAY_S = 86_400


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    starts = Starts(tmp_path)
    yield starts
    starts.close()


def test_a_new_trigger_is_stored_and_a_retry_finds_it(start: Starts) -> None:
    journal = start(clock=Clock(monotonic_ns=lambda: 999_999_999))
    first = acceptance("t1")
    assert one(journal, Accept(acceptance=first)) is None
    assert journal.unfinished == 1
    retry = acceptance("t1", content="other", received_ns=5)
    assert one(journal, Accept(acceptance=retry)) == Stored(acceptance=first, answer=None, deadline_passed=False)
    assert (journal.unfinished, journal.newest) == (1, 0)


def test_the_deadline_passes_on_the_monotonic_clock_from_receipt(start: Starts) -> None:
    now = [0]
    journal = start(clock=Clock(monotonic_ns=lambda: now[0]))
    accepted = acceptance("t1", received_ns=7)
    one(journal, Accept(acceptance=accepted))
    for now_ns, passed in ((1_000_000_006, False), (1_000_000_007, True)):
        now[0] = now_ns
        stored = one(journal, Accept(acceptance=accepted))
        assert isinstance(stored, Stored)
        assert stored.deadline_passed is passed


@pytest.mark.parametrize(("before", "after", "passed"), [("a", "a", False), ("a", "b", True), ("", "", True)])
def test_deadlines_of_an_earlier_start_count_only_within_the_same_known_boot(
    start: Starts, before: str, after: str, *, passed: bool
) -> None:
    open_and_close = start(clock=Clock(boot_id=before))
    one(open_and_close, decide(acceptance("t1")))
    journal = start(clock=Clock(boot_id=after, monotonic_ns=lambda: 1))
    stored = one(journal, Accept(acceptance=acceptance("t1")))
    assert isinstance(stored, Stored)
    assert stored.deadline_passed is passed


def test_a_verdict_gets_the_next_seq_in_its_body_too(start: Starts, tmp_path: Path) -> None:
    journal = start()
    for number in (1, 2):
        accepted = acceptance(f"t{number}")
        one(journal, Accept(acceptance=accepted))
        given = answer(accepted)
        assert one(journal, Decide(acceptance=accepted, answer=given)) == given.model_copy(update={"seq": number})
    assert journal.unfinished == 0
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as raw:
        assert [json.loads(body)["seq"] for (body,) in raw.execute("SELECT body FROM verdicts ORDER BY seq")] == [1, 2]
    raw.close()


def test_a_verdict_is_never_overwritten(start: Starts) -> None:
    journal = start()
    accepted = acceptance("t1")
    first = one(journal, decide(accepted, Verdict.REJECT))
    assert one(journal, decide(accepted, Verdict.ACCEPT)) == first
    assert journal.newest == 1
    stored = one(journal, Accept(acceptance=accepted))
    assert isinstance(stored, Stored)
    assert stored.answer == first


@pytest.mark.parametrize("other", [{"client": "plc2"}, {"epoch": 2}, {"trigger_id": "t2"}])
def test_client_epoch_and_id_together_are_the_key(start: Starts, other: dict[str, str]) -> None:
    journal = start()
    one(journal, Accept(acceptance=acceptance("t1")))
    assert one(journal, Accept(acceptance=acceptance(**{"trigger_id": "t1", **other}))) is None


def test_a_conflict_is_a_record_and_leaves_the_trigger_as_it_is(start: Starts) -> None:
    journal = start()
    accepted = acceptance("t1")
    one(journal, Accept(acceptance=accepted))
    conflict = answer(accepted, Verdict.ERROR, Reason.CONFLICT)
    assert one(journal, Conflict(answer=conflict)) == conflict.model_copy(update={"seq": 1})
    assert one(journal, Conflict(answer=conflict)) == conflict.model_copy(update={"seq": 2})
    stored = one(journal, Accept(acceptance=accepted))
    assert isinstance(stored, Stored)
    assert stored.answer is None
    assert [record.reason for record in page(journal).records] == [Reason.CONFLICT, Reason.CONFLICT]


def test_lookup_gives_what_is_stored_and_else_stores_the_other_answer_once(start: Starts) -> None:
    journal = start()
    known, unknown = acceptance("t1"), acceptance("t2")
    given = one(journal, decide(known))
    found, first, again = journal.apply(
        [Lookup(acceptance=one, otherwise=restart(one)) for one in (known, unknown, unknown)]
    )
    assert isinstance(found, Stored)
    assert isinstance(first, Stored)
    assert found.answer == given
    assert first.answer == restart(unknown).model_copy(update={"seq": 2})
    assert again == first
    assert (journal.newest, journal.unfinished) == (2, 0)


def test_records_come_in_order_after_a_seq_and_no_more_than_asked_for(start: Starts) -> None:
    journal = start()
    assert page(journal) == type(page(journal))(records=(), first=1)
    given = [one(journal, decide(acceptance(f"t{number}"))) for number in range(5)]
    assert [record.model_dump() for record in page(journal).records] == [one.model_dump() for one in given]  # type: ignore[attr-defined]
    assert [record.seq for record in page(journal, after=2, limit=2).records] == [3, 4]
    assert page(journal, after=5).records == ()
    assert page(journal, limit=-1).records == ()
    assert page(journal, after=5).first == 1


def test_an_acknowledged_cursor_only_goes_forward_and_a_set_one_anywhere(start: Starts) -> None:
    journal = start()
    journal.apply([Acked(consumer="mes", seq=5), Acked(consumer="mes", seq=3), Acked(consumer="erp", seq=0)])
    assert journal.cursors() == {"mes": 5, "erp": 0}
    journal.apply([SetCursor(consumer="mes", seq=2)])
    assert start().cursors() == {"mes": 2, "erp": 0}


def test_what_runs_on_each_camera_is_remembered(start: Starts) -> None:
    journal = start()
    journal.apply([Activate(camera="top", configured="c", digest="d1", previous=None, actor="ann")])
    journal.apply([Activate(camera="top", configured="c", digest="d2", previous="d1", actor="bob")])
    assert journal.active() == {"top": ("c", "d2", "d1")}
    assert start().active() == {"top": ("c", "d2", "d1")}


def test_the_audit_log_is_read_newest_first(start: Starts) -> None:
    journal = start(clock=Clock(utc_s=lambda: 0.0))
    journal.apply([Audit(actor="ann", command=f"c{number}", detail="x", ok=number > 1) for number in range(3)])
    rows = one(journal, ReadAudit(limit=2))
    assert rows == tuple(
        AuditRow(utc="1970-01-01T00:00:00.000+00:00", actor="ann", command=command, detail="x", ok=ok)
        for command, ok in (("c2", True), ("c1", False))
    )


def test_prune_removes_the_oldest_with_their_triggers_and_says_how_many(start: Starts) -> None:
    now = [0.0]
    journal = start(clock=Clock(utc_s=lambda: now[0]))
    for number in range(4):
        now[0] = number * DAY_S
        one(journal, decide(acceptance(f"t{number}")))
    now[0] = 3.5 * DAY_S
    assert one(journal, Prune(days=2)) == 2
    assert [record.seq for record in page(journal).records] == [3, 4]
    assert page(journal).first == 3
    assert one(journal, Prune(days=2)) == 0
    assert one(journal, Accept(acceptance=acceptance("t0"))) is None  # forgotten with its verdict
    assert isinstance(one(journal, Accept(acceptance=acceptance("t2"))), Stored)


def test_prune_stops_at_the_first_young_record_so_that_none_is_missing_between_others(start: Starts) -> None:
    """The wall clock may jump; the order of records is that of their seq."""
    now = [0.0]
    journal = start(clock=Clock(utc_s=lambda: now[0]))
    for number, day in enumerate([0, 90, 1, 2]):
        now[0] = day * DAY_S
        one(journal, decide(acceptance(f"t{number}")))
    now[0] = 91 * DAY_S
    assert one(journal, Prune(days=30)) == 1
    assert [record.seq for record in page(journal).records] == [2, 3, 4]


def test_prune_keeps_the_newest_record_so_that_seq_counts_on_after_a_start(start: Starts) -> None:
    now = [0.0]
    journal = start(clock=Clock(utc_s=lambda: now[0]))
    journal.apply([decide(acceptance(f"t{number}")) for number in range(2100)])
    now[0] = 100.0 * DAY_S
    assert [one(journal, Prune(days=1)) for _ in range(3)] == [2000, 99, 0]
    journal = start()
    assert (page(journal).first, journal.newest) == (2100, 2100)


def test_prune_leaves_open_triggers_and_conflicts_are_no_obstacle(start: Starts) -> None:
    now = [0.0]
    journal = start(clock=Clock(utc_s=lambda: now[0]))
    still_open = acceptance("open")
    journal.apply([Accept(acceptance=still_open), Conflict(answer=restart(still_open)), decide(acceptance("t1"))])
    now[0] = 100.0 * DAY_S
    assert one(journal, Prune(days=1)) == 1
    assert isinstance(one(journal, Accept(acceptance=still_open)), Stored)


def test_a_probe_writes_to_the_file(start: Starts, tmp_path: Path) -> None:
    journal = start()
    size = journal.size_bytes
    assert one(journal, Probe()) is None
    assert journal.size_bytes > size
    with sqlite3.connect(tmp_path / "journal.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            one(journal, Probe())
        other.rollback()
    other.close()


def test_a_failed_batch_changes_nothing_and_its_seq_is_given_again(start: Starts) -> None:
    journal = start()
    one(journal, Accept(acceptance=acceptance("t0")))
    bad = Audit(actor="ann", command="c", detail=[], ok=True)  # type: ignore[arg-type]
    before = (journal.newest, journal.unfinished, journal.cursors(), journal.active())
    batch = [
        decide(acceptance("t0")),
        Accept(acceptance=acceptance("t1")),
        Acked(consumer="mes", seq=1),
        Activate(camera="top", configured="c", digest="d", previous=None, actor="ann"),
    ]
    with pytest.raises(sqlite3.Error):
        journal.apply([*batch, bad])
    assert (journal.newest, journal.unfinished, journal.cursors(), journal.active()) == before
    assert page(journal).records == ()
    journal.apply(batch)
    assert [record.seq for record in page(journal).records] == [1]
    assert (journal.unfinished, journal.cursors()) == (1, {"mes": 1})


def test_commits_are_synced_unless_it_is_for_measuring(start: Starts) -> None:
    for durable, level in ((True, 2), (False, 0)):
        journal = start(durable=durable)
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (level,)  # noqa: SLF001 - a property of the connection
        assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # noqa: SLF001 - the same
        journal.close()
