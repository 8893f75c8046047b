"""Owns the accuracy table: the sealed artefact, run by the runtime, against the peer's torch figures."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_runtime.bundle.manifest import ParityEvidence
from trainer.bench.peers import ANOMALIB, Figures
from trainer.building import build
from trainer.config import make_config

_FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap")


def bench_peers(data: Path, sets: Sequence[str], methods: Sequence[str], seeds: int) -> Iterator[str]:
    """Lines of a Markdown table: figure, its spread over the seeds, and the difference to the peer.

    All of `train/good` is fitted to (`--holdout 0 --policy manual:0`).
    """
    yield f"| set | method | image AUROC | pixel AUROC | pixel AP | worst parity (of {seeds}) |"
    yield "|---|---|---|---|---|---|"
    differences: dict[str, list[Figures]] = {method: [] for method in methods}
    for name in sets:
        for method in methods:
            runs, worst = zip(*(_run(data / name, method, seed) for seed in range(seeds)), strict=True)
            peer = ANOMALIB.get((name, method))
            cells = [
                _cell(np.array(column, dtype=float), peer, index)
                for index, column in enumerate(zip(*runs, strict=True))
            ]
            yield f"| {name} | {method} | {' | '.join(cells)} | {max(worst):.1e} |"
            if peer is not None:
                means = [None if None in column else float(np.mean(column)) for column in zip(*runs, strict=True)]
                differences[method].append(_minus(means, peer))
    for method, found in differences.items():
        columns = [[value for value in column if value is not None] for column in zip(*found, strict=True)]
        shown = [f"{np.mean(column):+.4f}" if column else "-" for column in columns]
        yield f"| mean difference to the peer | {method} | {' | '.join(shown)} | |"


def _run(dataset: Path, method: str, seed: int) -> tuple[tuple[float | None, ...], float]:
    """Figures of the default artefact, and its worst parity as a share of the range."""
    flags = {"method": method, "seed": seed, "holdout": 0.0, "policy": "manual:0"}
    with tempfile.TemporaryDirectory(prefix="takt-bench-") as folder:
        sealed = build(make_config(flags, None), dataset, Path(folder) / "bench.takt", with_report=False)
    if sealed.evaluation is None:
        return (None, None, None), 0.0
    found = sealed.evaluation.as_json(None)
    worst = max(worst_parity(artefact.parity) for artefact in sealed.manifest.artefacts)
    return tuple(found[key] for key in _FIGURES), worst


def worst_parity(parity: ParityEvidence) -> float:
    """The larger of map and score difference, as a share of its range."""
    return max(parity.map_max_abs / parity.map_range, parity.score_max_abs / parity.score_range)


def _cell(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], peer: Figures | None, index: int) -> str:
    if np.isnan(values).any():
        return "-"
    text = f"{values.mean():.3f} ± {values.std(ddof=1) if values.size > 1 else 0:.3f}"
    reference = None if peer is None else peer[index]
    return text if reference is None else f"{text} ({values.mean() - reference:+.3f})"


def _minus(means: Sequence[float | None], peer: Figures) -> Figures:
    parts = [None if a is None or b is None else a - b for a, b in zip(means, peer, strict=True)]
    return Figures(parts[0] or 0.0, parts[1], parts[2])
