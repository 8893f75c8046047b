"""Owns what is known of a trigger until its answer is on disk, and how long each step of it may take."""

from dataclasses import dataclass
from enum import Enum

from edge_runtime.protocol.messages import Answer
from edge_runtime.service.operations import Acceptance, Conflict, Decide, Lookup


class Step(Enum):
    """How far a trigger is."""

    FRAME = "frame"  # waits for its frame
    QUEUE = "queue"  # has its frame, waits for a worker
    WORK = "work"  # is being inspected
    DECIDED = "decided"  # waits for the disk


@dataclass(slots=True, eq=False)
class OpenTrigger:
    """A trigger that has no journalled answer yet. Times in nanoseconds, monotonic."""

    acceptance: Acceptance
    serial: int
    decide_by_ns: int
    answer_by_ns: int
    lane: str | None = None  # digest of the bundle that inspects it
    early_reject: bool = False  # its camera's setting
    step: Step = Step.FRAME
    counter: int | None = None
    label: str | None = None
    frame_ns: int | None = None
    work_ns: int | None = None
    decided_ns: int | None = None
    answer: Answer | None = None
    operation: Decide | Conflict | Lookup | None = None
    sent: bool = False  # as ERROR/JOURNAL, before the disk said anything

    @property
    def deadline_ns(self) -> int:
        """When the answer must be there."""
        return deadline_ns(self.acceptance)

    @property
    def undecided(self) -> bool:
        """Whether a verdict is still wanted."""
        return self.answer is None


def deadline_ns(acceptance: Acceptance) -> int:
    """When the answer must be there, on the clock of the broker that received the trigger."""
    return acceptance.received_ns + acceptance.deadline_ms * 1_000_000


def time_limits(acceptance: Acceptance) -> tuple[int, int]:
    """Until when a verdict must be there to be written, and until when the answer must leave, in nanoseconds.

    A tenth of the deadline, at most 10 ms, is left to the way back; another tenth, at most 30 ms, to the disk.
    """
    tenth = acceptance.deadline_ms * 100_000
    answer_by = deadline_ns(acceptance) - min(10_000_000, tenth)
    return answer_by - min(30_000_000, tenth), answer_by
