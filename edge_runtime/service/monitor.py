"""Owns what status says of answers: how many of which verdict, and how long each stage took of late."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.decision import Verdict
from edge_runtime.protocol.messages import Answer

STAGES = ("frame", "queue", "preprocess", "infer", "postprocess", "journal", "total")
_RECENT = 1000


@dataclass(slots=True)
class CameraFigures:
    """Answers of one camera since the start, and the last thousand of them."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _times: dict[str, deque[float]] = field(default_factory=lambda: {stage: deque(maxlen=_RECENT) for stage in STAGES})

    def note(self, answer: Answer) -> None:
        """Count an answer that was sent."""
        self.verdicts[answer.verdict.value] += 1
        self._recent.append(answer.verdict.value)
        if answer.reason is not None:
            self.reasons[answer.reason.value] += 1
        for stage, times in self._times.items():
            value: float | None = getattr(answer.timings_ms, stage)
            if value is not None:
                times.append(value)

    def as_json(self) -> dict[str, Any]:
        """For status."""
        recent = Counter(self._recent)
        shares = {
            verdict.value.lower(): recent[verdict.value] / len(self._recent) if self._recent else None
            for verdict in Verdict
        }
        return {
            "verdicts": {verdict.value: self.verdicts[verdict.value] for verdict in Verdict},
            "reasons": dict(self.reasons),
            "recent": {"n": len(self._recent), **shares},
            "latency_ms": {stage: percentiles(times) for stage, times in self._times.items()},
        }


def percentiles(values: Iterable[float]) -> dict[str, float | int | None]:
    """p50, p90, p99, maximum and number; the smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p90": None, "p99": None, "max": None, "n": 0}
    return {
        "p50": _at(ordered, 50),
        "p90": _at(ordered, 90),
        "p99": _at(ordered, 99),
        "max": ordered[-1],
        "n": len(ordered),
    }


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
