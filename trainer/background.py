"""Owns whether the image score is taken against a background, and the background itself: from good frames alone.

Where a camera always sees the same places, some of them are restless (an edge, a glint) and others quiet; the largest
value of the raw map is then mostly a restless place's, and a defect in a quiet one has to exceed it. Against the mean and spread of
each place it does not. Where parts lie anywhere, or with few frames, mean and spread are noise and do harm. Which it
is, held-out good frames tell: half of them give the background, on the other half it is seen what a defect that
adds the same to the map at any place would have to add to become the frame's largest value, with the background and
without. Figures in docs/decisions/0019-background.md.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.progress import progress
from edge_runtime.bundle.recipe import BackgroundSpec
from edge_runtime.bundle.store import array_bytes
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import read_image
from edge_runtime.imaging.maps import Map, pooled
from edge_runtime.scorer import Scorer

MIN_FRAMES = 16  # a spread of fewer is noise: it cost one set .05 of its image AUROC
MIN_GAIN = 1.1
BACKGROUND_SHARE = 0.1  # of the good images that calibration leaves, where the method sets none apart
_PRIOR_FRAMES = 5  # what the spread common to all places weighs
_DRAWS = 4  # of halves
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A background that the image score is taken against."""

    spec: BackgroundSpec
    members: dict[str, bytes]
    backgrounds: dict[str, Background]  # by region


def choose_background(scorer: Scorer, paths: Sequence[Path], *, always: bool) -> Chosen | None:
    """The background of a fitted model, or None where the image score does better on the raw map.

    Args:
        scorer: of the model, without background.
        paths: good frames that the fit has not seen; 2 at least.
        always: take it whatever it is worth.

    Raises:
        DataError: a frame cannot be used.
    """
    maps = _maps(scorer, paths)
    if not all(np.isfinite(grid).all() for grids in maps.values() for grid in grids):
        return None  # parity says what is wrong with such a model
    backgrounds = {name: estimate(grids) for name, grids in maps.items()}
    cells = scorer.recipe.map_policy.pooled_cells or 1
    gain = min(worth(grids, scorer.valid_grid(name), cells) for name, grids in maps.items())
    if gain < MIN_GAIN and not always:
        _LOG.info(
            "no background: on %d good frames it would be worth %.2f, %.1f at least is asked for",
            len(paths),
            gain,
            MIN_GAIN,
        )
        return None
    _LOG.info(
        "background of %d good frames: the image score counts deviations from what is usual at a place; without it a "
        "defect would have to add %.2f times as much to the map",
        len(paths),
        gain,
    )
    members = {name: f"background/{name}.npy" for name in backgrounds}
    spec = BackgroundSpec(frames=len(paths), gain=gain, members=members)
    arrays = {members[name]: array_bytes(np.stack([b.mean, b.spread])) for name, b in backgrounds.items()}
    return Chosen(spec=spec, members=arrays, backgrounds=backgrounds)


def estimate(maps: Sequence[Map]) -> Background:
    """Mean and spread at every place.

    A place's variance is averaged with the one common to all places, which counts for 5 frames more.

    Args:
        maps: (h, w) each, of good frames; 2 at least.
    """
    count = len(maps)
    shape = maps[0].shape
    mean, squares = np.zeros(shape), np.zeros(shape)  # map by map: those of a stride of 1 are as large as frames
    for grid in maps:
        mean += grid / np.float64(count)
    for grid in maps:
        squares += np.square(grid - mean)
    variance = squares / (count - 1)
    common = variance.mean()
    shrunk = (count * variance + _PRIOR_FRAMES * common) / (count + _PRIOR_FRAMES)
    least = np.finfo(np.float32).tiny  # maps that are all alike have no spread at all
    return Background(mean.astype(np.float32), np.maximum(np.sqrt(shrunk), least).astype(np.float32))


def worth(maps: Sequence[Map], valid: NDArray[np.bool_] | None, cells: int) -> float:
    """How many times as much a defect has to add to the raw map as to the standardised one, on average over places.

    Args:
        maps: (h, w) each, of good frames; 2 at least.
        valid: (h, w), where the score may come from; None for everywhere.
        cells: side of the window that the image score averages over.
    """
    counted = np.ones_like(maps[0], dtype=np.bool_) if valid is None else valid
    raw, against = [], []
    for known, new in _halves(maps):
        background = estimate(known)
        averaged = np.stack([pooled(grid, cells, valid)[counted] for grid in new])
        deviations = np.stack([pooled(background.standardise(grid), cells, valid)[counted] for grid in new])
        raw.append((_usual_peak(averaged) - averaged).mean())
        against.append(((_usual_peak(deviations) - deviations) * background.spread[counted]).mean())
    needed = float(np.mean(against))
    return float(np.mean(raw)) / needed if needed > 0 else 1.0


def _usual_peak(values: NDArray[np.float32]) -> float:
    """(N, cells) -> the largest value of a frame, on average over frames: where a threshold lies, give or take."""
    return float(values.max(axis=1).mean())


def _halves(maps: Sequence[Map]) -> Iterator[tuple[list[Map], list[Map]]]:
    """The frames in two halves, drawn several times, each half once as the known one; with fewer than 4 each of them counts for both."""
    if len(maps) < 4:  # noqa: PLR2004 - half of them has no spread
        yield list(maps), list(maps)
        return
    draw = np.random.default_rng(0)
    for _ in range(_DRAWS):
        order = draw.permutation(len(maps))
        halves = [[maps[index] for index in part] for part in (order[: len(maps) // 2], order[len(maps) // 2 :])]
        yield halves[0], halves[1]
        yield halves[1], halves[0]


def _maps(scorer: Scorer, paths: Iterable[Path]) -> Mapping[str, list[Map]]:
    found: dict[str, list[Map]] = {region.name: [] for region in scorer.regions}
    for path in progress(list(paths), "background"):
        for part in scorer.score(read_image(path, scorer.recipe.geometry.file_format)).regions:
            found[part.name].append(part.grid)
    return found
