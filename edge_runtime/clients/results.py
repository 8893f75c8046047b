"""Owns what a gateway gets for a trigger, and the rule that opens a gate."""

from dataclasses import dataclass
from datetime import UTC, datetime

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer, TimingsMs, Trigger


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """The one result of a trigger. `accepted` is all that a gate needs; its truth value is the same."""

    answer: Answer
    accepted: bool  # a clean ACCEPT for this part, in time; everything else is for the reject gate
    latency_ms: float  # from the call to the result, measured here; for a stream the service's own total
    silent: bool = False  # the service gave no answer: this one, an ERROR, was made here

    def __bool__(self) -> bool:
        """Whether the part may pass, so that `if answer:` cannot open a gate for a reject."""
        return self.accepted

    @property
    def verdict(self) -> Verdict:
        """ACCEPT, REVIEW, REJECT or ERROR; an ACCEPT that came too late is in the answer, but not `accepted`."""
        return self.answer.verdict

    @property
    def reason(self) -> Reason | None:
        """Why, for ERROR."""
        return self.answer.reason

    @property
    def detail(self) -> str:
        """For people: what went wrong."""
        return self.answer.detail


def opens_gate(answer: Answer) -> bool:
    """The part of the gate rule that an answer itself can tell."""
    clean = answer.verdict is Verdict.ACCEPT and answer.journaled
    return clean and not answer.expired and not answer.replayed


def answered(answer: Answer, trigger: Trigger, *, latency_ms: float) -> Inspected:
    """The service's answer, come in time; one that speaks of another part opens no gate."""
    same = answer.camera == trigger.camera and answer.part_id == trigger.part_id
    return Inspected(answer=answer, accepted=opens_gate(answer) and same, latency_ms=latency_ms)


def silence(
    trigger: Trigger, reason: Reason, detail: str, *, client: str, station: str, latency_ms: float
) -> Inspected:
    """A result for a trigger that the service did not answer."""
    answer = Answer(
        station=station,
        client=client,
        epoch=trigger.epoch,
        trigger_id=trigger.trigger_id,
        part_id=trigger.part_id,
        camera=trigger.camera,
        counter=None,
        label=None,
        verdict=Verdict.ERROR,
        reason=reason,
        detail=detail[:2000],
        region=None,
        score=None,
        threshold=None,
        score_normalized=None,
        regions=(),
        regions_left_out=0,
        complete=False,
        bundle=None,
        artefact=None,
        deadline_ms=trigger.deadline_ms or 1,
        decided_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        timings_ms=TimingsMs(),
        seq=None,
        journaled=False,
    )
    return Inspected(answer=answer, accepted=False, latency_ms=latency_ms, silent=True)
