"""Owns where the time of one frame goes: a clock that is stopped at the end of each stage."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Milliseconds spent in each stage between a decoded frame and what is listed of it; 0 for stages that did not run."""

    scale: float = 0.0  # pixel format, crop, resize
    cut: float = 0.0  # tiles from the plane into the engine's buffer
    infer: float = 0.0
    stitch: float = 0.0
    score: float = 0.0  # the image score's own work: checks, pooling, where a peak can lie
    upsample: float = 0.0
    smooth: float = 0.0
    components: float = 0.0  # areas above the pixel threshold

    @property
    def preprocess(self) -> float:
        """Up to the engine."""
        return self.scale + self.cut

    @property
    def postprocess(self) -> float:
        """After the engine."""
        return self.stitch + self.score + self.upsample + self.smooth + self.components

    def as_json(self) -> Mapping[str, float]:
        """By stage."""
        return asdict(self)


class StageClock:
    """Adds up the time since the last lap, by stage."""

    def __init__(self) -> None:
        """Start."""
        self._spent = {field.name: 0.0 for field in fields(StageTimes)}
        self.start()

    def start(self) -> None:
        """What passed since the last lap belongs to nobody."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the last lap belongs to a stage, named as in `StageTimes`."""
        now = time.perf_counter()
        self._spent[stage] += (now - self._last) * 1000
        self._last = now

    def times(self) -> StageTimes:
        """So far."""
        return StageTimes(**self._spent)
