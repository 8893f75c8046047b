"""Owns what an answer says, made of a trigger and of what became of it."""

from datetime import UTC, datetime

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, Result, TimingsMs
from edge_runtime.service.open_trigger import OpenTrigger
from edge_runtime.service.operations import Acceptance

_DETAIL = 2000


def utc_now() -> str:
    """A label for people; no duration is ever computed from it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def make_answer(
    trigger: OpenTrigger,
    station: str,
    *,
    reason: Reason | None = None,
    detail: str = "",
    result: Result | None = None,
) -> Answer:
    """The answer to a trigger: a worker's result, or ERROR with a reason."""
    acceptance = trigger.acceptance
    return Answer(
        station=station,
        client=acceptance.key.client,
        epoch=acceptance.key.epoch,
        trigger_id=acceptance.key.trigger_id,
        part_id=acceptance.part_id,
        camera=acceptance.camera,
        counter=trigger.counter,
        label=trigger.label,
        verdict=Verdict.ERROR if result is None else result.verdict,
        reason=reason if result is None else result.reason,
        detail=(detail if result is None else result.detail)[:_DETAIL],
        region=None if result is None else result.region,
        score=None if result is None else result.score,
        threshold=None if result is None else result.threshold,
        score_normalized=None if result is None else result.score_normalized,
        regions=() if result is None else result.regions,
        regions_left_out=0 if result is None else result.regions_left_out,
        complete=result is not None and result.complete,
        bundle=trigger.lane if result is None else result.bundle,
        artefact=None if result is None else result.artefact,
        deadline_ms=acceptance.deadline_ms,
        decided_utc=utc_now(),
        timings_ms=TimingsMs(
            frame=_ms(acceptance.received_ns, trigger.frame_ns),
            queue=_ms(trigger.frame_ns, trigger.work_ns),
            preprocess=None if result is None else result.preprocess_ms,
            infer=None if result is None else result.infer_ms,
            postprocess=None if result is None else result.postprocess_ms,
        ),
        seq=None,
        journaled=True,
    )


def restart_answer(acceptance: Acceptance, station: str) -> Answer:
    """For a trigger that a crash left open: nobody knows what became of it."""
    detail = "the service restarted before it had an answer"
    return make_answer(OpenTrigger(acceptance, 0, 0, 0), station, reason=Reason.RESTART, detail=detail)


def as_journal_error(answer: Answer) -> Answer:
    """The same trigger's answer where the disk did not take it in time."""
    before = f"{answer.verdict}{'' if answer.reason is None else '/' + answer.reason}"
    return answer.model_copy(
        update={
            "verdict": Verdict.ERROR,
            "reason": Reason.JOURNAL,
            "detail": f"the journal could not write the answer in time; it would have been {before}",
            "region": None,
            "score": None,
            "threshold": None,
            "score_normalized": None,
            "regions": (),
            "regions_left_out": 0,
            "complete": False,
            "seq": None,
            "journaled": False,
        }
    )


def delivered(answer: Answer, trigger: OpenTrigger, now_ns: int) -> Answer:
    """The answer as it leaves: with the times that the journal cannot know, and marked where it comes too late."""
    timings = answer.timings_ms.model_copy(
        update={
            "journal": _ms(trigger.decided_ns, now_ns),
            "total": _ms(trigger.acceptance.received_ns, now_ns),
        }
    )
    return answer.model_copy(update={"timings_ms": timings, "expired": now_ns > trigger.deadline_ns})


def _ms(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else max(0, end_ns - start_ns) / 1e6
