"""Owns the comparison of predictions with measurements: what a fit is told beforehand, and what its bundle then takes."""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.sealing import seal
from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.engines import EngineName, Precision
from edge_runtime.errors import TaktError
from edge_runtime.imaging.frames import Size
from edge_runtime.preflight.budget import Cost
from edge_runtime.preflight.child import measure, trial
from edge_runtime.preflight.measure import MeasureOrder
from trainer.cli import config_of
from trainer.config import BuildConfig
from trainer.demo.product import write_dataset
from trainer.fitting import fit
from trainer.models.method import FitSettings
from trainer.models.registry import METHODS
from trainer.plan import make_plan
from trainer.preflight import Preflight, tiles
from trainer.processes import Processes
from trainer.shares import fit_data

_IMAGES = 3  # a fit and its sealing should not take longer than what is measured
_STEPS = 3  # of what is trained: a graph takes as long whatever it has learnt
_INSPECTIONS = 5  # of each golden frame in a measurement
_PERIOD_MS = 500.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the table is about."""

    methods: tuple[str, ...]
    tiles: tuple[int, ...]  # cores; inputs of one tile for methods that take no others
    frames: tuple[Size, ...]
    runs: int  # predictions and measurements, in turn
    flags: tuple[str, ...]  # more of `takt build`, the same for all


def bench_preflight(comparison: Comparison) -> Iterator[str]:
    """Lines of Markdown: a row for each method, frame and tile; what cannot be done is said below."""
    yield "| method | frame | tiles | predicted, ms | measured, ms | ratio | predicted, MB | measured, MB | ratio |"
    yield "|---" * 9 + "|"
    faults: list[str] = []
    for width, height in comparison.frames:
        with tempfile.TemporaryDirectory(prefix="takt-bench-") as folder:
            dataset = Path(folder) / "parts"
            write_dataset(dataset, seed=1, train=_IMAGES, test_good=0, per_defect=0, width=width, height=height)
            for method in comparison.methods:
                for side in comparison.tiles:
                    try:
                        cells = _compared(comparison, method, side, dataset)
                        yield f"| {method} | {width}x{height} | {cells} |"
                    except TaktError as error:
                        faults.append(f"- {method}, {width}x{height}, {side}: {error}")
    yield ""
    yield from faults


def flags(method: str, side: int) -> tuple[str, ...]:
    """How a method looks at a frame: in tiles, or at all of it in one where it takes no tiles."""
    known = METHODS[method]
    single = known.image_score is ImageScoreRule.GRAPH
    steps = ("--steps", str(_STEPS)) if "steps" in known.settings else ()
    return (
        "--method",
        method,
        "--holdout",
        "0",
        *steps,
        *(("--size", f"{side}x{side}") if single else ("--tile", str(side))),
    )


def _compared(comparison: Comparison, method: str, side: int, dataset: Path) -> str:
    config = config_of(str(dataset), "--out", "-", *flags(method, side), *comparison.flags)
    out = dataset.with_name("bench.takt")
    plan = make_plan(config, dataset, Processes())
    order = _preflight(config).order(plan, out.with_suffix(".zip"))
    draft = out.with_suffix(".draft")
    fit(config, dataset, draft)
    seal(draft, open_dataset(dataset), out, policy=parse_policy("manual:0"), with_report=False)
    measuring = MeasureOrder(
        bundle=str(out),
        artefact=f"{EngineName.OPENVINO}-{Precision.F32}",
        threads=None,
        count=_INSPECTIONS,
        period_ms=_PERIOD_MS,
    )
    predicted, measured = [], []
    for _ in range(comparison.runs):
        foreseen, found = trial(order), measure(measuring)
        if foreseen is None or found is None:
            message = "takes more memory than is free"
            raise TaktError(message)
        predicted.append(foreseen.cost)
        measured.append(Cost(latency_ms=found.p50_ms, memory_mb=found.memory_mb))
    how = f"{tiles(plan)} of {side}"
    return " | ".join(
        [how, _pair(predicted, measured, lambda c: c.latency_ms), _pair(predicted, measured, lambda c: c.memory_mb)]
    )


def _preflight(config: BuildConfig) -> Preflight:
    settings = FitSettings(seed=config.seed, coreset=config.coreset, width=config.width or 1.0)
    return Preflight(EngineName.OPENVINO, settings, fit_data)


def _pair(predicted: list[Cost], measured: list[Cost], of: Callable[[Cost], float]) -> str:
    """Medians of both, and the median of the ratios of each pair: a pair was taken one after the other."""
    first, second = ([of(cost) for cost in costs] for costs in (predicted, measured))
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return f"{_figure(statistics.median(first))} | {_figure(statistics.median(second))} | {ratio:.2f}"


def _figure(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - from there on a digit more is noise
