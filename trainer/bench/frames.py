"""Owns how time and memory of an inspection grow with the frame: a model built for each size, or one laid on them all."""

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
from edge_runtime.imaging.tiles import TilePlan
from edge_runtime.layout import tile_plan
from trainer.bench.measured import takt
from trainer.cli import config_of
from trainer.config import as_typed
from trainer.plan import make_plan
from trainer.processes import Processes
from trainer.settings_that_fit import evenly_tiled

_SHAPE = (4, 3)
_BLOCK = 8  # pixels of one brightness: such a frame is quickly written and read
_BANK = 1000  # patches
_FEWEST = 4  # frames to build from: two to fit, two for thresholds
_STAGES = ("scale", "cut", "infer", "stitch", "score", "upsample", "smooth", "components")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is measured."""

    bundle: Path | None  # tiled, to be laid on every size; None to build for each, in tiles that divide it evenly
    folder: Path  # for frames and bundles
    tile: int  # largest core of what is built
    flags: tuple[str, ...]  # more of `takt fit`, for what is built
    megapixels: tuple[float, ...]
    runs: int  # inspections of each size; the first, which warms up, does not count


def bench_frames(study: Study) -> Iterator[str]:
    """Lines of Markdown: time by stage, time a megapixel, memory, for each size of frame.

    Raises:
        BundleError: the bundle is none.
        TaktError: its model cannot be laid on other frames, or none can be built.
    """
    pixel_format = PixelFormat.RGB8
    if study.bundle is not None:
        with Archive(study.bundle) as archive:
            pixel_format = read_manifest(archive).geometry.pixel_format
    yield f"| MP | frame | tiles | of | total, ms | ms a MP | ms a tile | {', ms | '.join(_STAGES)}, ms | all but infer | process, MB | beyond frame and map, MB |"
    yield "|---" * (10 + len(_STAGES)) + "|"
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
    paths = [good / f"{index}.png" for index in range(max(_FEWEST, study.runs + 1))]
    for index, path in enumerate(paths):
        write_bytes(path, encode_png(_pixels(size, pixel_format, index)))
    bundle = study.folder / f"{size}.takt"
    if study.bundle is None:
        takt("build", str(good), "--out", str(bundle), *_build_flags(study, good))
    else:
        flags = ("--frame", f"{size}", "--policy", "quantile:1")
        takt("calibrate", str(study.bundle), str(good), "--out", str(bundle), *flags)
    done = takt("run", str(bundle), *map(str, paths[: study.runs + 1]), "--json")
    times = [_times(json.loads(line)) for line in done.out.splitlines()][1:]
    found = {name: statistics.median(each[name] for each in times) for name in times[0]}
    bytes_of_pixel = pixel_format.channels * pixel_format.dtype.itemsize + np.dtype(np.float32).itemsize
    held = size.width * size.height * bytes_of_pixel / 1e6
    area = size.width * size.height / 1e6
    stages = [f"{found[name]:.1f}" for name in _STAGES]
    rest = 100 * (found["total"] - found["infer"]) / found["total"]
    plan = _tile_plan(bundle)
    tiles = plan.count
    total = [
        f"{tiles}",
        f"{plan.core}",
        f"{found['total']:.0f}",
        f"{found['total'] / area:.0f}",
        f"{found['total'] / tiles:.0f}",
    ]
    return [*total, *stages, f"{rest:.1f} %", f"{done.peak_mb:.0f}", f"{done.peak_mb - held:.0f}"]


def _build_flags(study: Study, good: Path) -> list[str]:
    """Tiles that divide the frame, a memory bank of one size whatever the frame's, and thresholds from half of the frames."""
    tile = ["--tile", str(study.tile)]
    fixed = ["--coreset", str(_BANK), "--background", "off", "--holdout", "0.5", *study.flags]
    plan = make_plan(config_of(str(good), "--out", "unused", *fixed, *tile), good, Processes())
    even = evenly_tiled(plan)
    if even is not None and even.tile is not None:
        tile = ["--tile", as_typed(even.tile)]
    return [*fixed, *tile, "--halo", str(plan.recipe.tiling.halo), "--policy", "quantile:1"]


def _tile_plan(bundle: Path) -> TilePlan:
    """Of the only region: time goes with its tiles, and the last of a row and of a column may reach beyond the frame."""
    with Archive(bundle) as archive:
        manifest = read_manifest(archive)
    return tile_plan(manifest, manifest.geometry.regions[0])


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
