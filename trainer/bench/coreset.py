"""Owns the measurement of coreset selection: the lazy exact selection against the plain loop, on real patches."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from calibration.layouts import open_dataset
from calibration.samples import Label, Split
from edge_runtime.imaging.frames import PixelFormat, Size, read_image
from edge_runtime.imaging.resize import resize
from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import weights_folder
from trainer.models.coreset import first_centre, greedy, projection
from trainer.models.patchcore import PatchCoreMethod, embed

_SIZE = Size(256, 256)
_SHARE = 0.02
_PEER_DISTORTION = 0.9


def bench_coreset(dataset: Path, *, runs: int, seeds: int) -> Iterator[str]:
    """Lines of Markdown: seconds in turn (A B C A B C), their ratios, and the covering radius over seeds."""
    patches = _patches(dataset)
    matrix = projection(patches.shape[1], seed=0)
    points = patches if matrix is None else patches @ matrix
    wide = patches @ torch.randn(
        patches.shape[1], _peer_width(len(patches)), generator=torch.Generator().manual_seed(0)
    )
    count = round(_SHARE * len(points))
    yield f"{len(points)} patches of {dataset.name}, {count} selected, {torch.get_num_threads()} threads, {runs} runs in turn."
    yield ""
    loops: dict[str, Callable[[int], Tensor]] = {
        "Takt: exact and lazy, 128 channels": lambda seed: greedy(points, count, seed=seed),
        "plain loop, 128 channels": lambda seed: plain(points, count, seed=seed),
        f"the peer's loop, {wide.shape[1]} channels": lambda seed: peer(wide, count, seed=seed),
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for run in range(runs):
        for name, loop in loops.items():
            times[name].append(_seconds(lambda loop=loop, seed=run: loop(seed)))  # type: ignore[misc]
    ours = next(iter(times.values()))
    yield "| selection | seconds (median) | times as long |"
    yield "|---|---|---|"
    for name, taken in times.items():
        ratio = statistics.median(b / a for a, b in zip(ours, taken, strict=True))
        yield f"| {name} | {statistics.median(taken):.2f} | {ratio:.0f} |"
    lazy = [radius(points, greedy(points, count, seed=seed)) for seed in range(seeds)]
    plainly = [radius(points, plain(points, count, seed=seed)) for seed in range(seeds)]
    yield ""
    yield (
        f"Covering radius on the same projection, median of {seeds} seeds: Takt {statistics.median(lazy):.5f}, "
        f"plain loop {statistics.median(plainly):.5f}."
    )


def peer(points: Tensor, count: int, *, seed: int) -> Tensor:
    """The loop that anomalib 2.7 runs: `pairwise_distance` to the last pick and a minimum, at every pick."""
    chosen = [first_centre(points, seed)]
    nearest = functional.pairwise_distance(points, points[chosen[0]])
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, functional.pairwise_distance(points, points[chosen[-1]]))
    return torch.tensor(chosen)


def _peer_width(points: int) -> int:
    """Channels that its projection keeps: the Johnson-Lindenstrauss bound for a distortion of 0.9."""
    return int(4 * math.log(points) / (_PEER_DISTORTION**2 / 2 - _PEER_DISTORTION**3 / 3))


def plain(points: Tensor, count: int, *, seed: int) -> Tensor:
    """Greedy selection as it is usually written: all differences and their norms at every pick."""
    chosen = [first_centre(points, seed)]
    nearest = torch.linalg.norm(points - points[chosen[0]], dim=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.linalg.norm(points - points[chosen[-1]], dim=1))
    return torch.tensor(chosen)


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
