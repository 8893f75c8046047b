"""Owns the measurement of coreset selection: the lazy exact selection against the plain loop, on real patches."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from calibration.layouts import open_dataset
from calibration.samples import Label, Split
from edge_runtime.imaging.frames import PixelFormat, Size, read_image
from edge_runtime.imaging.resize import resize
from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import weights_folder
from trainer.models.coreset import first_centre, greedy, projection
from trainer.models.patchcore import PatchCoreMethod, bank_size, embed

_SIZE = Size(256, 256)


def bench_coreset(dataset: Path, *, runs: int, seeds: int) -> Iterator[str]:
    """Lines of a Markdown table: seconds in turn (A B A B), their ratio, and the covering radius over seeds."""
    patches = _patches(dataset)
    matrix = projection(patches.shape[1], seed=0)
    points = patches if matrix is None else patches @ matrix
    count = bank_size(len(points), None)
    yield f"{len(points)} patches of {dataset.name}, projected to {points.shape[1]}, {count} selected, {torch.get_num_threads()} threads"
    yield ""
    yield "| selection | seconds (median) | covering radius (median over seeds) |"
    yield "|---|---|---|"
    times: dict[str, list[float]] = {"lazy": [], "plain": []}
    for run in range(runs):
        times["lazy"].append(_seconds(lambda seed=run: greedy(points, count, seed=seed)))  # type: ignore[misc]
        times["plain"].append(_seconds(lambda seed=run: plain(points, count, seed=seed)))  # type: ignore[misc]
    lazy_radius, plain_radius = [], []
    for seed in range(seeds):
        lazy_radius.append(radius(points, greedy(points, count, seed=seed)))
        plain_radius.append(radius(points, _plain_fast(points, count, seed=seed)))
    yield f"| Takt | {statistics.median(times['lazy']):.2f} | {statistics.median(lazy_radius):.5f} |"
    yield f"| plain loop | {statistics.median(times['plain']):.2f} | {statistics.median(plain_radius):.5f} |"
    ratios = [b / a for a, b in zip(times["lazy"], times["plain"], strict=True)]
    yield ""
    yield f"The plain loop takes {statistics.median(ratios):.0f} times as long (median of {runs} pairs)."


def plain(points: Tensor, count: int, *, seed: int) -> Tensor:
    """Greedy selection as it is usually written: all differences and their norms at every pick."""
    chosen = [first_centre(points, seed)]
    nearest = torch.linalg.norm(points - points[chosen[0]], dim=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.linalg.norm(points - points[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def _plain_fast(points: Tensor, count: int, *, seed: int) -> Tensor:
    """The same picks with a matrix product in place of the differences: what the radius is compared with."""
    norms = points.square().sum(dim=1)
    chosen = [first_centre(points, seed)]
    nearest = torch.full((len(points),), torch.inf)
    while True:
        centre = points[chosen[-1]]
        torch.minimum(nearest, norms - 2 * (points @ centre) + centre @ centre, out=nearest)
        if len(chosen) == count:
            return torch.tensor(chosen)
        chosen.append(int(nearest.argmax()))


def radius(points: Tensor, chosen: Tensor) -> float:
    """Largest distance of a point to its nearest centre."""
    return max(float(torch.cdist(block, points[chosen]).amin(dim=1).max()) for block in torch.split(points, 8192))


def _patches(dataset: Path) -> Tensor:
    layers = PatchCoreMethod().layers
    pixels = PixelSpec(channels=3, bit_depth=8)
    features = load_features("resnet18.tv_in1k", layers, weights=None, pixels=pixels, weights_dir=weights_folder())
    parts = []
    for sample in open_dataset(dataset).select(label=Label.GOOD, split=Split.TRAIN):
        frame = resize(read_image(sample.path).as_format(PixelFormat.RGB8), _SIZE)
        with torch.inference_mode():
            embedding = embed(features(torch.from_numpy(frame)[None]))
        parts.append(embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1]))
    return torch.cat(parts)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
