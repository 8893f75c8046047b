"""Owns the tables of all methods: how well each one finds defects on real sets, and what it costs."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edge_runtime.errors import TaktError
from trainer.bench.measured import Kept, Measured, Order, spread
from trainer.models.registry import METHODS

# What two cores bear, where there is no GPU: the other methods' own schedules take minutes.
REDUCED: dict[str, dict[str, str]] = {
    "csflow": {"--size": "128x128"},
    "draem": {"--size": "128x128", "--width": "0.25", "--steps": "200", "--learning-rate": "1e-3"},
    "efficientad_s": {"--size": "128x128", "--batch": "2", "--steps": "600", "--learning-rate": "1e-3"},
    "efficientad_m": {"--size": "128x128", "--batch": "2", "--steps": "600", "--learning-rate": "1e-3"},
}

_FIGURES = {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc", "pixel AP": "pixel_ap", "AUPRO": "aupro"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the tables are about."""

    data: Path
    sets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int
    precisions: tuple[str, ...]
    steps: Mapping[str, int]  # by method, in place of its own schedule and of the reduced one
    full: bool  # schedules of the papers; else reduced ones
    teacher: Path | None
    textures: Path | None
    keep: Path | None  # results so far
    only_kept: bool  # show what is there and measure nothing


def bench_methods(plan: Plan) -> Iterator[str]:
    """Lines of Markdown: a table for each figure, one row a method and one column a set; then what each costs."""
    kept = Kept(plan.keep)
    found: dict[tuple[str, str], list[Measured]] = {}
    faults: list[str] = []
    for method in plan.methods:
        for name in plan.sets:
            orders = [order(plan, method, name, seed) for seed in range(plan.seeds)]
            if plan.only_kept and not all(one in kept for one in orders):
                continue
            try:
                found[method, name] = [kept.measure(one) for one in orders]
            except TaktError as error:
                faults.append(f"- {method} on {name}: {error}")
    for title, key in _FIGURES.items():
        yield from _figure(plan, title, key, found)
    yield from _costs(plan, found)
    yield from faults


def order(plan: Plan, method: str, name: str, seed: int) -> Order:
    """How a method is fitted to a set."""
    settings = METHODS[method].settings
    flags = [word for pair in schedule(plan, method).items() for word in pair]
    if "teacher" in settings and plan.teacher is not None:
        flags += ["--teacher", str(plan.teacher)]
    if "textures" in settings and plan.textures is not None:
        flags += ["--textures", str(plan.textures)]
    return Order(dataset=plan.data / name, method=method, seed=seed, precisions=plan.precisions, flags=tuple(flags))


def schedule(plan: Plan, method: str) -> dict[str, str]:
    """Flags that take the place of the method's own schedule; none where that is kept."""
    reduced = {} if plan.full else REDUCED.get(method, {})
    given = {"--steps": str(plan.steps[method])} if method in plan.steps else {}
    return reduced | given


def default_full() -> bool:
    """Whether the papers' schedules are within reach here."""
    return torch.cuda.is_available()


def _figure(plan: Plan, title: str, key: str, found: Mapping[tuple[str, str], Sequence[Measured]]) -> Iterator[str]:
    yield f"| {title} | {' | '.join(plan.sets)} | mean |"
    yield "|---" * (len(plan.sets) + 2) + "|"
    for method in plan.methods:
        columns = [[getattr(run, key) for run in found.get((method, name), ())] for name in plan.sets]
        known = [statistics.mean(column) for column in columns if column and None not in column]
        mean = f"{statistics.mean(known):.3f}" if known else "-"
        yield f"| {method} | {' | '.join(spread(column) for column in columns)} | {mean} |"
    yield ""


def _costs(plan: Plan, found: Mapping[tuple[str, str], Sequence[Measured]]) -> Iterator[str]:
    latencies = "".join(f" {precision}, ms |" for precision in plan.precisions)
    yield f"| cost | schedule | fit, s | fit, MB | bundle, MB |{latencies} inspection, MB |"
    yield "|---" * (6 + len(plan.precisions)) + "|"
    for method in plan.methods:
        runs = [run for name in plan.sets for run in found.get((method, name), ())]
        if not runs:
            continue
        flags = [word for pair in schedule(plan, method).items() for word in pair]
        trained = "steps" in METHODS[method].settings
        shown = " ".join(flags) or ("its own" if trained else "in one pass")
        cells = [_range([run.fit_s for run in runs]), _range([run.fit_mb for run in runs])]
        cells.append(_range([run.bundle_mb for run in runs]))
        cells += [_range([run.latency_ms[precision] for run in runs]) for precision in plan.precisions]
        yield f"| {method} | {shown} | {' | '.join(cells)} | {_range([run.run_mb for run in runs])} |"
    yield ""


def _range(values: Sequence[float]) -> str:
    """Median, and from where to where where sets differ."""
    low, middle, high = min(values), statistics.median(values), max(values)
    text = f"{middle:.3g}" if middle < 1000 else f"{middle:.0f}"  # noqa: PLR2004 - no powers of ten in a table
    return text if high <= 1.2 * low else f"{text} ({low:.3g} to {high:.4g})"
