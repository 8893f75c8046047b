"""Owns how time and memory of an inspection grow with the frame: one tiled model, laid on ever larger frames."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.store import read_manifest
from edge_runtime.commands.arguments import write_bytes
from edge_runtime.imaging.frames import PixelFormat, Size, encode_png
from edge_runtime.layout import make_plan
from trainer.bench.measured import takt

_SHAPE = (4, 3)
_BLOCK = 8  # pixels of one brightness: such a frame is quickly written and read
_STAGES = ("scale", "cut", "infer", "stitch", "score", "upsample", "smooth", "components")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is measured."""

    bundle: Path  # tiled
    folder: Path  # for frames and bundles
    megapixels: tuple[float, ...]
    runs: int  # inspections of each size; the first, which warms up, does not count


def bench_frames(study: Study) -> Iterator[str]:
    """Lines of Markdown: time by stage, time a megapixel, memory, for each size of frame.

    Raises:
        BundleError: the bundle is none.
        TaktError: its model cannot be laid on other frames.
    """
    with Archive(study.bundle) as archive:
        pixel_format = read_manifest(archive).geometry.pixel_format
    yield f"| MP | frame | tiles | total, ms | ms a MP | ms a tile | {', ms | '.join(_STAGES)}, ms | all but infer | process, MB | beyond frame and map, MB |"
    yield "|---" * (9 + len(_STAGES)) + "|"
    for megapixels in study.megapixels:
        size = frame_size(megapixels)
        yield f"| {megapixels:g} | {size} | {' | '.join(_row(study, size, pixel_format))} |"


def frame_size(megapixels: float) -> Size:
    """A frame of 4:3, sides in multiples of 8 pixels."""
    wide, high = _SHAPE
    unit = (megapixels * 1e6 / (wide * high)) ** 0.5
    return Size(max(1, round(wide * unit / _BLOCK)) * _BLOCK, max(1, round(high * unit / _BLOCK)) * _BLOCK)


def _row(study: Study, size: Size, pixel_format: PixelFormat) -> Sequence[str]:
    good = study.folder / f"{size}"
    paths = [good / f"{index}.png" for index in range(study.runs + 1)]
    for index, path in enumerate(paths):
        write_bytes(path, encode_png(_pixels(size, pixel_format, index)))
    bundle = study.folder / f"{size}.takt"
    takt(
        "calibrate", str(study.bundle), str(good), "--out", str(bundle), "--frame", f"{size}", "--policy", "quantile:1"
    )
    done = takt("run", str(bundle), *map(str, paths), "--json")
    times = [_times(json.loads(line)) for line in done.out.splitlines()][1:]
    found = {name: statistics.median(each[name] for each in times) for name in times[0]}
    bytes_of_pixel = pixel_format.channels * pixel_format.dtype.itemsize + np.dtype(np.float32).itemsize
    held = size.width * size.height * bytes_of_pixel / 1e6
    area = size.width * size.height / 1e6
    stages = [f"{found[name]:.1f}" for name in _STAGES]
    rest = 100 * (found["total"] - found["infer"]) / found["total"]
    tiles = _tiles(bundle)
    total = [f"{tiles}", f"{found['total']:.0f}", f"{found['total'] / area:.0f}", f"{found['total'] / tiles:.0f}"]
    return [*total, *stages, f"{rest:.1f} %", f"{done.peak_mb:.0f}", f"{done.peak_mb - held:.0f}"]


def _tiles(bundle: Path) -> int:
    """Of the only region's plan: time goes with them, and the last of a row and of a column may reach beyond the frame."""
    with Archive(bundle) as archive:
        manifest = read_manifest(archive)
    return make_plan(manifest, manifest.geometry.regions[0]).count


def _pixels(size: Size, pixel_format: PixelFormat, seed: int) -> np.ndarray[Any, np.dtype[Any]]:
    """(H, W, C): blocks of random brightness."""
    draw = np.random.default_rng(seed)
    shape = (size.height // _BLOCK, size.width // _BLOCK, pixel_format.channels)
    blocks = draw.integers(60, 180, shape).astype(pixel_format.dtype)
    return blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)


def _times(answer: dict[str, Any]) -> dict[str, float]:
    """Stages and their total, the file's decoding left out."""
    stages: dict[str, float] = answer["stages_ms"]
    timings = answer["timings_ms"]
    return stages | {"total": timings["total"] - timings["decode"]}
