"""Owns the table of false rejects: whether `conformal:0.1` keeps its promise on real sets, and parity beside it."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.sealing import Sealed
from edge_runtime.errors import CalibrationError
from trainer.bench.comparison import worst_parity
from trainer.building import build
from trainer.config import make_config

_ALPHA = 0.1
_FLAGS = {"policy": f"conformal:{_ALPHA}", "holdout": 0.4}


def bench_rates(data: Path, sets: Sequence[str], methods: Sequence[str], seeds: int) -> Iterator[str]:
    """Lines of a Markdown table; rates are medians over the seeds, parity is the worst of all."""
    yield (
        f"| set | method | calibration images | false rejects (median of {seeds} seeds) | lower end of the 95 % interval | "
        "holds | parity frames | worst parity | flips | worst on |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name in sets:
        for method in methods:
            try:
                yield _row(name, method, [_build(data / name, method, seed) for seed in range(seeds)])
            except CalibrationError as error:
                yield f"| {name} | {method} | refused: {error} |"


def _build(dataset: Path, method: str, seed: int) -> Sealed:
    flags = {"method": method, "seed": seed, **_FLAGS}
    with tempfile.TemporaryDirectory(prefix="takt-bench-") as folder:
        return build(make_config(flags, None), dataset, Path(folder) / "bench.takt", with_report=False)


def _row(name: str, method: str, runs: Sequence[Sealed]) -> str:
    rates = [run.evaluation.false_reject_rate for run in runs if run.evaluation and run.evaluation.false_reject_rate]
    value = statistics.median(rate.value for rate in rates)
    low = statistics.median(rate.low for rate in rates)
    parities = [artefact.parity for run in runs for artefact in run.manifest.artefacts]
    worst = max(parities, key=worst_parity)
    count = len(runs[0].manifest.provenance.splits.calibration)
    return (
        f"| {name} | {method} | {count} | {value:.3f} of {rates[0].n} | {low:.3f} | {'yes' if low <= _ALPHA else 'no'} | "
        f"{sum(parity.frames for parity in parities)} | {worst_parity(worst):.1e} | "
        f"{sum(parity.decision_flips for parity in parities)} | {worst.worst} |"
    )
