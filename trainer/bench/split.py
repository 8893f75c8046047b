"""Owns where the time of one frame goes: the stages of its inspection, side by side, for the stub and for real bundles."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.store import read_manifest
from edge_runtime.imaging.frames import Frame, decode_png
from edge_runtime.inspector import Inspector


def split_lines(bundle: Path, *, runs: int = 5, early_reject: bool = False) -> Iterator[str]:
    """A Markdown table of a bundle's golden frames: milliseconds by stage, medians over `runs`, and the graph's share.

    Raises:
        BundleError: it is none.
    """
    inspector = Inspector.open(bundle, early_reject=early_reject)
    with Archive(bundle) as archive:
        manifest = read_manifest(archive)
        frames = [decode_png(archive.read(golden.frame), golden.name) for golden in manifest.golden]
    yield "| frame | " + " | ".join((*_stages(inspector, frames[0], 1), "all but the graph, % of total")) + " |"
    yield "|---|" + "---|" * (len(_stages(inspector, frames[0], 1)) + 1)
    for golden, frame in zip(manifest.golden, frames, strict=True):
        found = _stages(inspector, frame, runs)
        rest = 100 * (found["total"] - found["infer"]) / found["total"]
        verdict = inspector.inspect(frame).verdict
        figures = " | ".join(f"{value:.1f}" for value in found.values())
        yield f"| {golden.name}, {verdict} | {figures} | {rest:.1f} |"


def _stages(inspector: Inspector, frame: Frame, runs: int) -> dict[str, float]:
    """Median milliseconds by stage."""
    times = [inspector.inspect(frame).timings_ms for _ in range(runs)]
    rows = [asdict(found.stages) | {"total": found.total} for found in times]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}
