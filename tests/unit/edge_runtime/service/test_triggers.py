"""Single steps of a trigger's life; what holds under every order of events is in `tests/property/test_triggers.py`."""

import pytest
from support.journals import acceptance, answer
from support.trigger_bench import END, MS, Bench

from edge_runtime.decision import Reason, Verdict
from edge_runtime.service import triggers as module
from edge_runtime.service.open_trigger import Step
from edge_runtime.service.operations import Accept, Conflict, Lookup


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_queued_is_told_when_the_acceptance_is_on_disk_and_not_before(bench: Bench) -> None:
    trigger = bench.new("t1")
    assert bench.queued == []
    bench.disk()
    assert bench.queued == [trigger.acceptance.key]


def test_an_answer_is_told_when_it_is_on_disk_and_not_before(bench: Bench) -> None:
    bench.reject(bench.new("t1"))
    assert bench.told == []
    bench.disk(now_ns=5 * MS)
    assert bench.said == [("t1", Reason.NO_FRAME)]
    assert (bench.told[0].seq, bench.told[0].timings_ms.total, bench.told[0].expired) == (1, 5.0, False)
    assert bench.triggers.unfinished == 0


def test_the_first_verdict_counts(bench: Bench) -> None:
    trigger = bench.new("t1")
    bench.reject(trigger)
    bench.triggers.decide(trigger, 0, reason=Reason.TIMEOUT)
    bench.disk()
    assert bench.said == [("t1", Reason.NO_FRAME)]


def test_a_retry_of_what_is_open_is_not_a_trigger_of_its_own(bench: Bench) -> None:
    bench.reject(bench.new("t1"))
    assert bench.triggers.receive(acceptance("t1")) is None
    bench.disk()
    assert bench.said == [("t1", Reason.NO_FRAME)]


def test_a_retry_gets_the_stored_answer_and_after_the_deadline_it_is_expired(bench: Bench) -> None:
    bench.reject(bench.new("t1"))
    bench.disk()
    for received_ns, expired in ((1000 * MS, False), (1000 * MS + 1, True)):
        assert bench.triggers.receive(acceptance("t1", received_ns=received_ns)) is None
        assert bench.told[-1] == bench.told[0].model_copy(
            update={"expired": expired, "timings_ms": bench.told[-1].timings_ms}
        )
    assert len(bench.published) == 1


@pytest.mark.parametrize("decided", [False, True])
def test_the_same_id_for_another_part_is_a_conflict_and_the_first_goes_on(bench: Bench, *, decided: bool) -> None:
    trigger = bench.new("t1")
    if decided:
        bench.reject(trigger)
        bench.disk()
    assert bench.triggers.receive(acceptance("t1", content="other")) is None
    bench.disk()
    assert bench.said[-1] == ("t1", Reason.CONFLICT)
    bench.reject(trigger)
    bench.disk()
    assert sorted(bench.said, key=str) == [("t1", Reason.CONFLICT), ("t1", Reason.NO_FRAME)]
    assert bench.triggers.unfinished == 0


def test_without_a_frame_in_time_it_is_no_frame_and_its_camera_is_told(bench: Bench) -> None:
    trigger = bench.new("t1")
    bench.triggers.due(trigger.decide_by_ns - 1)
    assert trigger.undecided
    bench.triggers.due(trigger.decide_by_ns)
    bench.disk(now_ns=trigger.decide_by_ns)
    assert bench.said == [("t1", Reason.NO_FRAME)]
    assert bench.frameless == [trigger]
    assert not bench.told[0].expired


@pytest.mark.parametrize(("step", "what"), [(Step.QUEUE, "waited for a worker"), (Step.WORK, "was being inspected")])
def test_a_frame_that_was_not_inspected_in_time_says_where_it_was(bench: Bench, step: Step, what: str) -> None:
    trigger = bench.new("t1")
    trigger.step = step
    bench.triggers.due(trigger.decide_by_ns)
    bench.disk()
    assert bench.said == [("t1", Reason.TIMEOUT)]
    assert what in bench.told[0].detail
    assert bench.frameless == []


def test_a_disk_that_is_late_makes_it_error_journal_in_time(bench: Bench) -> None:
    trigger = bench.new("t1")
    bench.reject(trigger)
    bench.triggers.due(trigger.answer_by_ns - 1)
    assert bench.told == []
    bench.triggers.due(trigger.answer_by_ns)
    assert bench.said == [("t1", Reason.JOURNAL)]
    assert (bench.told[0].journaled, bench.told[0].seq, bench.told[0].expired) == (False, None, False)
    assert bench.news == ["the disk did not take a verdict in time"]
    assert bench.triggers.unjournaled == 1
    bench.triggers.resume_journal()
    bench.disk()
    assert bench.said == [("t1", Reason.JOURNAL)]
    assert [(one.reason, one.journaled) for one in bench.published] == [(Reason.JOURNAL, False)]


def test_a_verdict_that_came_too_late_for_the_disk_is_not_held_against_it(bench: Bench) -> None:
    """Else any client with a deadline of some milliseconds would take the whole station out of Ready."""
    trigger = bench.new("t1")
    bench.reject(trigger, trigger.answer_by_ns - MS)
    bench.triggers.due(trigger.answer_by_ns)
    assert bench.said == [("t1", Reason.JOURNAL)]
    assert (bench.news, bench.triggers.unjournaled) == ([], 0)
    bench.disk()
    assert [(one.reason, one.journaled) for one in bench.published] == [(Reason.JOURNAL, False)]
    assert bench.said == [("t1", Reason.JOURNAL)]


def test_a_verdict_in_mid_commit_is_disowned(bench: Bench) -> None:
    trigger = bench.new("t1")
    bench.triggers.decide(trigger, 0, reason=Reason.NO_FRAME)
    bench.journal.take()
    bench.triggers.due(trigger.answer_by_ns)
    assert bench.said == [("t1", Reason.JOURNAL)]
    assert bench.triggers.receive(acceptance("t1")) is None
    assert bench.said == [("t1", Reason.JOURNAL)] * 2  # a retry while the disk still has it in hand
    bench.disk()
    assert bench.said == [("t1", Reason.JOURNAL)] * 2
    assert [one.reason for one in bench.published] == [Reason.JOURNAL]
    assert bench.triggers.unfinished == 0


def test_a_disk_that_fails_makes_it_error_journal_at_once(bench: Bench) -> None:
    bench.reject(bench.new("t1"))
    bench.disk("full")
    assert bench.said == [("t1", Reason.JOURNAL)]
    assert "full" in bench.news
    assert (bench.triggers.unfinished, bench.triggers.unjournaled) == (0, 1)


def test_a_trigger_of_an_old_epoch_is_answered_from_the_journal(bench: Bench) -> None:
    stored = acceptance("t1", epoch=0)
    bench.journal.accepted[stored.key] = stored
    bench.journal.answers[stored.key] = answer(stored, Verdict.ACCEPT).model_copy(update={"seq": 7})
    bench.triggers.receive_old(acceptance("t1", epoch=0, received_ns=5))
    bench.disk(now_ns=1000 * MS)
    bench.triggers.receive_old(acceptance("t1", epoch=0, received_ns=6))
    bench.disk(now_ns=1000 * MS + 1)
    assert [(one.verdict, one.seq, one.expired) for one in bench.told] == [
        (Verdict.ACCEPT, 7, False),
        (Verdict.ACCEPT, 7, True),
    ]
    assert bench.published == []
    assert bench.triggers.unfinished == 0


def test_an_old_id_with_other_content_is_a_conflict(bench: Bench) -> None:
    stored = acceptance("t1", epoch=0)
    bench.journal.accepted[stored.key] = stored
    bench.triggers.receive_old(acceptance("t1", epoch=0, content="other"))
    bench.disk()
    bench.disk()
    assert bench.said == [("t1", Reason.CONFLICT)]


def test_an_old_id_that_nobody_knows_is_restart(bench: Bench) -> None:
    bench.triggers.receive_old(acceptance("t1", epoch=0))
    bench.disk()
    assert bench.said == [("t1", Reason.RESTART)]
    assert [one.seq for one in bench.published] == [1]


def test_an_old_id_waits_for_a_disk_that_fails_since_only_the_disk_knows(bench: Bench) -> None:
    bench.triggers.receive_old(acceptance("t1", epoch=0))
    bench.disk("full")
    bench.triggers.due(END)
    assert bench.told == []
    bench.triggers.resume_journal()
    bench.disk(now_ns=END)
    assert bench.said == [("t1", Reason.RESTART)]
    assert bench.told[0].expired
    assert bench.triggers.unfinished == 0


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Bench:
    """One that remembers a single answer; `t1` is answered and forgotten."""
    monkeypatch.setattr(module, "_REMEMBERED", 1)
    for trigger_id in ("t1", "t2"):
        bench.reject(bench.new(trigger_id))
        bench.disk()
    bench.told.clear()
    bench.published.clear()
    return bench


def test_a_retry_of_what_was_forgotten_gets_the_stored_answer_expired(forgetful: Bench) -> None:
    trigger = forgetful.new("t1")
    forgetful.disk()
    assert forgetful.told == []
    forgetful.triggers.decide(trigger, 0, reason=Reason.TIMEOUT)
    forgetful.disk()
    assert forgetful.said == [("t1", Reason.NO_FRAME)]
    assert (forgetful.told[0].expired, forgetful.told[0].seq) == (True, 1)
    assert forgetful.published == []


@pytest.mark.parametrize("when", ["never", "together", "after"])
def test_another_part_under_an_id_that_was_forgotten_is_a_conflict_and_told_nothing_else(
    forgetful: Bench, when: str
) -> None:
    """Its verdict may never come, or with or after the news that the id is taken."""
    trigger = forgetful.new("t1", content="other")
    if when == "together":
        forgetful.triggers.decide(trigger, 0, reason=Reason.TIMEOUT)
    forgetful.disk()
    if when == "after":
        forgetful.triggers.decide(trigger, 0, reason=Reason.TIMEOUT)
    forgetful.disk()
    forgetful.disk()
    assert forgetful.said == [("t1", Reason.CONFLICT)]
    assert (forgetful.triggers.unfinished, forgetful.triggers.open) == (0, {})


def test_what_was_told_that_the_disk_is_late_is_not_told_of_a_conflict_besides(forgetful: Bench) -> None:
    trigger = forgetful.new("t1", content="other")
    forgetful.triggers.decide(trigger, 0, reason=Reason.TIMEOUT)
    forgetful.journal.take()
    forgetful.triggers.due(trigger.answer_by_ns)
    forgetful.disk()
    forgetful.disk()
    assert forgetful.said == [("t1", Reason.JOURNAL)]
    assert (forgetful.triggers.unfinished, forgetful.triggers.open) == (0, {})


def test_what_the_disk_never_took_is_dropped_oldest_first_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PARKED", 2)
    bench = Bench()
    bench.triggers.receive_old(acceptance("old", epoch=0))
    bench.disk("full")
    for trigger_id in ("t1", "t2"):
        bench.reject(bench.new(trigger_id))
        bench.disk("full")
    assert (bench.triggers.unjournaled, bench.triggers.unfinished) == (2, 0)
    bench.triggers.resume_journal()
    bench.disk()
    assert [one.trigger_id for one in bench.published] == ["t1", "t2"]


def test_operations_are_given_to_the_journal_once_each(bench: Bench) -> None:
    bench.reject(bench.new("t1"))
    bench.triggers.receive(acceptance("t1", content="other"))
    bench.triggers.receive_old(acceptance("t1", epoch=0))
    kinds = [type(one) for one in bench.journal.queue]
    assert (kinds.count(Accept), kinds.count(Conflict), kinds.count(Lookup)) == (1, 1, 1)
    assert len({id(one) for one in bench.journal.queue}) == len(kinds) == 4


def test_timers_go_when_their_time_has_come_whatever_became_of_the_trigger(bench: Bench) -> None:
    for number in range(50):
        bench.reject(bench.new(f"t{number}"))
    bench.disk()
    assert bench.triggers.next_due_ns() is not None
    bench.triggers.due(END)
    assert bench.triggers.next_due_ns() is None
    assert len(bench.told) == 50
