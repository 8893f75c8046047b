"""Owns the qualification of a machine for a bundle: predict, refuse what does not fit, measure, choose.

1. predict   every artefact on a few batches of tiles; where none fits the budget, nothing more is done
2. measure   those that fit, with each number of threads: whole inspections of golden frames at the line's pace
3. choose    f32 unless another is clearly faster, and the fewest threads that are as fast
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import ArtefactSpec, Manifest
from edge_runtime.bundle.recipe import GraphRole, Recipe
from edge_runtime.bundle.store import MANIFEST, check_digests, read_manifest
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError
from edge_runtime.preflight.budget import Budget, free_mb, memory, milliseconds
from edge_runtime.preflight.child import measure, trial
from edge_runtime.preflight.measure import Measured, MeasureOrder
from edge_runtime.preflight.trial import Trial, TrialOrder

CLEARLY_FASTER = 0.8  # of f32's time: what another precision has to reach to be preferred
AS_FAST = 1.05  # of the shortest time: within this, fewer threads leave more of the machine to the rest of the line
_PERIOD_MS = 500.0  # between inspections, where nobody says
_SHARE_BUSY = 0.5  # of the period at most, where nobody says: the engine rests as long as it works


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one artefact does with one number of threads."""

    artefact: ArtefactSpec
    threads: int
    predicted: Trial  # with the largest number of threads that is asked for
    measured: Measured
    excesses: tuple[str, ...]  # of the budget, as sentences

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts read."""
        return {
            "artefact": self.artefact.name,
            "engine": self.artefact.engine.value,
            "precision": self.artefact.precision.value,
            "threads": self.threads,
            "p50_ms": self.measured.p50_ms,
            "p99_ms": self.measured.p99_ms,
            "memory_mb": self.measured.memory_mb,
            "n": self.measured.count,
            "predicted_ms": self.predicted.latency_ms,
            "predicted_memory_mb": self.predicted.memory_mb,
            "fits": not self.excesses,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Qualification:
    """What was found of a machine and a bundle."""

    digest: str  # of the bundle
    found: tuple[Found, ...]
    chosen: Found | None  # None where nothing fits


def qualify(
    path: Path,
    budget: Budget,
    *,
    threads: Sequence[int],
    count: int,
    period_ms: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Qualification:
    """Find out how a bundle is best run on this machine, and whether it fits.

    Args:
        path: a sealed bundle.
        budget: what an inspection may take.
        threads: numbers to try.
        count: inspections of each golden frame.
        period_ms: from one inspection to the next; twice what one takes, and half a second at least, when None.
        tell: called with each line that is worth saying meanwhile.

    Raises:
        ConfigError: no artefact is predicted to fit; the message has the numbers.
        BundleError: the bundle cannot be trusted.
        EngineError: an engine broke down.
    """
    with Archive(path) as archive:
        manifest = read_manifest(archive)
        check_digests(archive, MANIFEST, manifest.members)
        digest = hashlib.sha256(archive.read(MANIFEST)).hexdigest()
    most = max(threads)
    predicted = [(artefact, trial(_order(path, manifest, artefact, most))) for artefact in manifest.artefacts]
    for artefact, expected in predicted:
        tell(f"{artefact.name}: {_told(expected)}, predicted with {most} thread(s)")
    fitting = [
        (artefact, expected) for artefact, expected in predicted if expected and not budget.excesses(expected.cost)
    ]
    if not fitting:
        raise ConfigError(_refusal(path, manifest, predicted, budget))
    found = []
    for artefact, expected in fitting:
        period = period_ms or max(_PERIOD_MS, expected.latency_ms / _SHARE_BUSY)
        for number in threads:
            order = MeasureOrder(
                bundle=str(path), artefact=artefact.name, threads=number, count=count, period_ms=float(period)
            )
            measured = measure(order)
            if measured is None:
                tell(f"{artefact.name}: the memory that is free does not suffice")
                continue
            excesses = budget.excesses(measured.cost)
            found.append(
                Found(artefact=artefact, threads=number, predicted=expected, measured=measured, excesses=excesses)
            )
    return Qualification(digest=digest, found=tuple(found), chosen=choose(found))


def choose(found: Sequence[Found]) -> Found | None:
    """The one to run: f32 unless another is clearly faster, with the fewest threads that are as fast; None if none fits.

    Only an artefact whose verdicts were held against torch's when it was sealed may be chosen.
    """
    fitting = [one for one in found if not one.excesses and _agrees(one.artefact)]
    if not fitting:
        return None
    fastest = min(fitting, key=_p50)
    plain = [one for one in fitting if one.artefact.precision is Precision.F32]
    if plain and _p50(fastest) > CLEARLY_FASTER * min(map(_p50, plain)):
        fastest = min(plain, key=_p50)
    alike = [one for one in fitting if one.artefact == fastest.artefact and _p50(one) <= AS_FAST * _p50(fastest)]
    return min(alike, key=lambda one: one.threads)


def thread_counts() -> tuple[int, ...]:
    """One, half and all of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(sorted({1, max(1, cores // 2), cores}))


def _p50(one: Found) -> float:
    return one.measured.p50_ms


def _agrees(artefact: ArtefactSpec) -> bool:
    return artefact.parity.frames > 0 and artefact.parity.decision_flips <= artefact.parity.flip_limit


def _order(path: Path, manifest: Manifest, artefact: ArtefactSpec, threads: int) -> TrialOrder:
    return TrialOrder(
        archive=str(path),
        recipe=Recipe(**{name: getattr(manifest, name) for name in Recipe.model_fields}),
        engine=artefact.engine,
        precision=artefact.precision,
        files=tuple(name for graph in artefact.graphs if graph.role is GraphRole.TILE for name in graph.files),
        has_image_score=manifest.has_image_score,
        threads=threads,
    )


def _told(expected: Trial | None) -> str:
    return (
        "an inspection takes more memory than is free" if expected is None else f"an inspection takes {expected.cost}"
    )


def _refusal(
    path: Path, manifest: Manifest, predicted: Sequence[tuple[ArtefactSpec, Trial | None]], budget: Budget
) -> str:
    free = free_mb() or math.inf
    known = [expected for _, expected in predicted if expected is not None and expected.memory_mb <= free]
    each = "; ".join(
        f"{artefact.name} " + (" and ".join(budget.excesses(expected.cost)) if expected else "takes more than is free")
        for artefact, expected in predicted
    )
    advice = "take a machine with more memory"
    if known:
        best = min(known, key=lambda expected: expected.latency_ms)
        advice = f"the nearest budget that fits: --deadline-ms {math.ceil(best.latency_ms)} --memory-mb {math.ceil(best.memory_mb)}"
    frame, tiling = manifest.geometry.frame.size, manifest.tiling
    return (
        f"{path}: {manifest.provenance.method}, frames of {frame} in tiles of {tiling.core.size} with a halo of {tiling.halo}: "
        f"an inspection does not fit (predicted): {each}: {advice}; or build again with this budget: `takt build --deadline-ms N "
        "--memory-mb N` names the tiles, scale or method that fit"
    )


def table(found: Sequence[Found]) -> list[str]:
    """Lines for people: what was predicted and measured."""
    rows = [("artefact", "threads", "p50", "p99", "memory", "predicted", "")]
    for one in found:
        taken, expected = one.measured, one.predicted
        fits = "" if not one.excesses else "does not fit"
        times = (milliseconds(taken.p50_ms), milliseconds(taken.p99_ms), memory(taken.memory_mb))
        rows.append((one.artefact.name, str(one.threads), *times, str(expected.cost), fits))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
