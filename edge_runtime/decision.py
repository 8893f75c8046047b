"""Owns the verdict: the only place where a score meets a threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the line is told; everything but ACCEPT is rejected by the gate."""

    ACCEPT = "ACCEPT"
    REVIEW = "REVIEW"
    REJECT = "REJECT"
    ERROR = "ERROR"


class Reason(StrEnum):
    """Why a verdict is ERROR."""

    NO_FRAME = "NO_FRAME"
    FRAME_MISMATCH = "FRAME_MISMATCH"
    BAD_IMAGE = "BAD_IMAGE"
    TIMEOUT = "TIMEOUT"
    OVERLOAD = "OVERLOAD"
    NOT_READY = "NOT_READY"
    NOT_FINITE = "NOT_FINITE"
    ENGINE = "ENGINE"
    WORKER_LOST = "WORKER_LOST"
    RESTART = "RESTART"
    JOURNAL = "JOURNAL"
    CONFLICT = "CONFLICT"
    UNKNOWN_CAMERA = "UNKNOWN_CAMERA"


_SEVERITY = {Verdict.ACCEPT: 0, Verdict.REVIEW: 1, Verdict.REJECT: 2, Verdict.ERROR: 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Raw image-score thresholds of one region and artefact.

    `score >= reject` rejects; with a review band, `review <= score < reject` asks a person.

    Raises:
        ValueError: a threshold is not a finite number, or the band is upside down.
    """

    reject: float
    review: float | None = None

    def __post_init__(self) -> None:
        """Refuse thresholds that could never reject."""
        if not math.isfinite(self.reject):
            message = f"reject threshold is {self.reject}, expected a finite number"
            raise ValueError(message)
        if self.review is not None and not -math.inf < self.review <= self.reject:  # also catches NaN
            message = (
                f"review threshold {self.review} is not a finite number at or below the reject threshold {self.reject}"
            )
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and for ERROR its reason."""

    verdict: Verdict
    reason: Reason | None = None


def decide(image_score: float, thresholds: Thresholds) -> Decision:
    """Turn a raw image score into a verdict: the only place where a score meets a threshold."""
    if not math.isfinite(image_score):  # a sick engine must not become an escape
        return Decision(Verdict.ERROR, Reason.NOT_FINITE)
    if image_score >= thresholds.reject:
        return Decision(Verdict.REJECT)
    if thresholds.review is not None and image_score >= thresholds.review:
        return Decision(Verdict.REVIEW)
    return Decision(Verdict.ACCEPT)


def worst(decisions: Sequence[Decision], ranks: Sequence[float]) -> int:
    """Index of the decision that decides for the frame: ERROR > REJECT > REVIEW > ACCEPT, the highest rank of equals.

    Args:
        decisions: of the frame's regions, one at least.
        ranks: how far each region is towards rejection; NaN ranks lowest.

    Raises:
        ValueError: there is no decision at all.
    """
    return max(
        range(len(decisions)),
        key=lambda i: (_SEVERITY[decisions[i].verdict], -math.inf if math.isnan(ranks[i]) else ranks[i]),
    )
