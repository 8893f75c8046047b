"""What an answer says of its trigger, whatever words others gave for it."""

from datetime import UTC, datetime

import pytest
from support.headers import EXAMPLES
from support.journals import acceptance, answer

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Result
from edge_runtime.service.answers import as_journal_error, delivered, make_answer, restart_answer, utc_now
from edge_runtime.service.open_trigger import OpenTrigger

MS = 1_000_000
RESULT = next(one for one in EXAMPLES if isinstance(one, Result))


def opened() -> OpenTrigger:
    return OpenTrigger(acceptance("t1", received_ns=10 * MS), 1, 800 * MS, 900 * MS, lane="b" * 64)


def test_a_result_is_repeated_with_the_trigger_and_its_times() -> None:
    trigger = opened()
    trigger.counter, trigger.label, trigger.frame_ns, trigger.work_ns = 4, "a.png", 12 * MS, 15 * MS
    made = make_answer(trigger, "press-4", result=RESULT)
    for name in ("verdict", "reason", "score", "threshold", "score_normalized", "region", "regions", "artefact"):
        assert getattr(made, name) == getattr(RESULT, name)
    assert (made.client, made.trigger_id, made.part_id, made.camera) == ("plc", "t1", "part-t1", "top")
    assert (made.counter, made.label, made.bundle) == (4, "a.png", RESULT.bundle)
    assert (made.timings_ms.frame, made.timings_ms.queue, made.timings_ms.infer) == (2.0, 3.0, RESULT.infer_ms)
    assert (made.journaled, made.seq, made.expired) == (True, None, False)


def test_an_error_has_no_score_and_names_the_bundle_that_would_have_inspected() -> None:
    made = make_answer(opened(), "press-4", reason=Reason.TIMEOUT, detail="late")
    assert (made.verdict, made.reason, made.detail) == (Verdict.ERROR, Reason.TIMEOUT, "late")
    assert (made.score, made.threshold, made.regions, made.bundle) == (None, None, (), "b" * 64)
    assert made.timings_ms.frame is None


@pytest.mark.parametrize("detail", ["x" * 5000, "ß" * 5000, "\0" * 5000])
def test_a_detail_of_any_length_is_cut_and_never_refused(detail: str) -> None:
    made = make_answer(opened(), "press-4", reason=Reason.ENGINE, detail=detail)
    assert made.detail == detail[:2000]


def test_error_journal_says_what_would_have_been_and_nothing_of_the_inspection() -> None:
    made = as_journal_error(answer(acceptance("t1"), Verdict.ACCEPT))
    assert (made.verdict, made.reason, made.journaled, made.seq) == (Verdict.ERROR, Reason.JOURNAL, False, None)
    assert made.detail.endswith("it would have been ACCEPT")
    assert (made.score, made.threshold, made.region, made.regions, made.score_normalized) == (
        None,
        None,
        None,
        (),
        None,
    )
    twice = as_journal_error(answer(acceptance("t1"), Verdict.ERROR, Reason.TIMEOUT))
    assert twice.detail.endswith("it would have been ERROR/TIMEOUT")


@pytest.mark.parametrize(("now_ms", "expired"), [(1010, False), (1010.000001, True)])
def test_an_answer_that_leaves_after_its_deadline_is_expired(now_ms: float, *, expired: bool) -> None:
    trigger = opened()
    trigger.decided_ns = 20 * MS
    left = delivered(answer(trigger.acceptance), trigger, round(now_ms * MS))
    assert left.expired is expired
    assert left.timings_ms.total == pytest.approx(now_ms - 10)
    assert left.timings_ms.journal == pytest.approx(now_ms - 20)


def test_after_a_restart_the_answer_names_the_trigger_and_nothing_else() -> None:
    made = restart_answer(acceptance("t1"), "press-4")
    assert (made.verdict, made.reason, made.trigger_id, made.part_id) == (
        Verdict.ERROR,
        Reason.RESTART,
        "t1",
        "part-t1",
    )
    assert (made.score, made.bundle, made.counter) == (None, None, None)


def test_the_label_of_time_is_utc() -> None:
    assert datetime.fromisoformat(utc_now()).tzinfo == UTC
