"""Owns the resolution study: what each working scale of one data set finds, and what it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.layouts import open_dataset
from edge_runtime.errors import TaktError
from trainer.bench.measured import Kept, Measured, Order, spread

_FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What the table is about."""

    dataset: Path
    methods: tuple[str, ...]
    scales: tuple[float, ...]  # of the frame, each inspected in tiles
    tile: int  # core, in pixels of the scaled frame
    squashed: tuple[int, int]  # width and height that the whole frame is brought to, for comparison
    seeds: int
    flags: tuple[str, ...]  # more of `takt fit`, the same for all
    keep: Path | None  # results so far
    only_kept: bool  # show what is there and measure nothing


def bench_scales(study: Study) -> Iterator[str]:
    """Lines of Markdown: one row for each method and way of looking; what cannot be done is said below.

    Raises:
        DataError: the data set cannot be used.
    """
    open_dataset(study.dataset)
    kept = Kept(study.keep)
    faults: list[str] = []
    yield f"| {study.dataset.name} | frame | image AUROC | pixel AUROC | pixel AP | AUPRO | inspection, ms | bundle, MB |"
    yield "|---" * 8 + "|"
    for method in study.methods:
        for title, flags in ways(study).items():
            orders = [
                Order(dataset=study.dataset, method=method, seed=seed, precisions=("f32",), flags=flags + study.flags)
                for seed in range(study.seeds)
            ]
            if study.only_kept and not all(order in kept for order in orders):
                continue
            try:
                yield f"| {method} | {title} | {_cells([kept.measure(order) for order in orders])} |"
            except TaktError as error:
                faults.append(f"- {method}, {title}: {error}")
    yield ""
    yield from faults


def ways(study: Study) -> dict[str, tuple[str, ...]]:
    """How frames are looked at, each with the flags of `takt fit` that it takes."""
    width, height = study.squashed
    tiled = {
        f"scale {scale:g}, tiles of {study.tile}": ("--tile", str(study.tile), "--scale", f"{scale:g}")
        for scale in study.scales
    }
    return {f"squashed to {width}x{height}": ("--size", f"{width}x{height}"), **tiled}


def _cells(runs: Sequence[Measured]) -> str:
    figures = [spread([getattr(run, name) for run in runs]) for name in _FIGURES]
    latency = sum(run.latency_ms["f32"] for run in runs) / len(runs)
    size = sum(run.bundle_mb for run in runs) / len(runs)
    return " | ".join([*figures, f"{latency:.3g}", f"{size:.3g}"])
