"""Owns the measurement of an inspection: whole frames of a sealed bundle, at a line's pace, in a process of its own."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.recipe import Strict
from edge_runtime.decision import Verdict
from edge_runtime.errors import EngineError
from edge_runtime.imaging.frames import Frame, decode_png
from edge_runtime.inspector import Inspector
from edge_runtime.preflight.budget import Cost, peak_mb


class MeasureOrder(Strict):
    """What is measured, and how often."""

    bundle: str
    artefact: str
    threads: int | None  # all that the process may use when None
    count: int  # inspections of each golden frame
    period_ms: float  # from one inspection's begin to the next, at least: engines are slower after a pause


class Measured(Strict):
    """What was found, of the golden frame that takes longest."""

    count: int
    p50_ms: float
    p99_ms: float  # the longest of fewer than a hundred
    memory_mb: float  # peak of the process, loading and self-test included

    @property
    def cost(self) -> Cost:
        """As a budget takes it: a deadline is missed by the slow ones."""
        return Cost(latency_ms=self.p99_ms, memory_mb=self.memory_mb)


def run_measure(order: MeasureOrder) -> Measured:
    """Load a bundle and inspect its golden frames in turn, in this process.

    Raises:
        BundleError: it cannot be trusted, or computes something else here.
        EngineError: an inspection failed.
    """
    path = Path(order.bundle)
    bundle = load(path, artefact=order.artefact, threads=order.threads)
    inspector = Inspector(bundle.scorer, bundle.artefact, bundle.digest)
    with Archive(path) as archive:
        frames = {
            golden.name: decode_png(archive.read(golden.frame), golden.frame) for golden in bundle.manifest.golden
        }
    slowest = max(_times(inspector, frames, order).values(), key=statistics.median)
    return Measured(
        count=len(slowest),
        p50_ms=statistics.median(slowest),
        p99_ms=percentile(slowest, 0.99),
        memory_mb=peak_mb() or 0.0,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _times(inspector: Inspector, frames: Mapping[str, Frame], order: MeasureOrder) -> dict[str, list[float]]:
    """Milliseconds of each inspection, by golden frame."""
    found: dict[str, list[float]] = {name: [] for name in frames}
    due = time.monotonic()
    for _ in range(order.count):
        for name, frame in frames.items():
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic()) + order.period_ms / 1000
            start = time.perf_counter()
            inspection = inspector.inspect(frame)
            found[name].append((time.perf_counter() - start) * 1000)
            if inspection.verdict is Verdict.ERROR:
                message = f"{order.bundle}: golden frame {name} is an ERROR with {order.artefact}: {inspection.detail}"
                raise EngineError(message)
    return found
