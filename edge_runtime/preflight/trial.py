"""Owns the prediction of an inspection: a few batches of tiles are run, all other work is done once, the rest is computed.

A frame of fifty batches is so predicted from three. Nothing but the number of batches is a model: cutting, stitching,
upsampling, smoothing and listing are done by the code that inspects, on a frame of the camera's size.
"""

import hashlib
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import read_backgrounds, read_valid_areas
from edge_runtime.bundle.recipe import Recipe, Strict
from edge_runtime.engines import Engine, EngineName, GraphOutput, Precision, TileGraph, open_engine
from edge_runtime.imaging.frames import Frame
from edge_runtime.preflight.budget import Cost, peak_mb
from edge_runtime.scorer import Scorer

_FRAMES, _BATCHES = 5, 4  # timed after a frame that is not, and batches that are run of each
_FRAMES_SLOW, _BATCHES_SLOW = 2, 2  # the same where a batch takes longer than this
_SLOW_S = 1.0
_IDLE_S = 0.5  # before each frame: the first run after a pause is slower, and a line pauses between parts


class TrialOrder(Strict):
    """A graph and what is done with it."""

    archive: str  # path of an archive: a sealed bundle, or one with the members that a bundle will have
    recipe: Recipe
    engine: EngineName
    precision: Precision
    files: tuple[str, ...]  # members: (onnx,) or (xml, bin)
    has_image_score: bool
    threads: int | None = None  # all that the process may use when None


class Trial(Strict):
    """What was found."""

    batches: int  # of tiles, in a frame
    batch_ms: float  # one of them
    latency_ms: float  # predicted: all of them, and all else
    memory_mb: float  # peak of the process, which held graph, frame, tiles and maps as an inspection does

    @property
    def cost(self) -> Cost:
        """As a budget takes it."""
        return Cost(latency_ms=self.latency_ms, memory_mb=self.memory_mb)


class SampledEngine:
    """An `Engine` that runs the first batches of a frame and repeats the last answer for all others."""

    def __init__(self, engine: Engine) -> None:
        """Wrap an engine."""
        self._engine = engine
        self._last: GraphOutput | None = None
        self._left = 1
        self.calls = 0
        self.spent_ms: list[float] = []  # of the batches that were run

    @property
    def tiles(self) -> NDArray[Any]:
        """(B, H, W, C) input buffer."""
        return self._engine.tiles

    @property
    def tile_index(self) -> NDArray[np.int32]:
        """(B,) input buffer."""
        return self._engine.tile_index

    def begin(self, batches: int) -> None:
        """The next frame comes, of which so many batches are run."""
        self._left, self.calls, self.spent_ms = batches, 0, []

    def run(self) -> GraphOutput:
        """Run the graph, or give what it gave last."""
        self.calls += 1
        if self._left > 0 or self._last is None:
            self._left -= 1
            start = time.perf_counter()
            output = self._engine.run()
            self.spent_ms.append((time.perf_counter() - start) * 1000)
            # weights that were never fitted may give no numbers, and the scorer would spare itself work
            self._last = GraphOutput(np.nan_to_num(output.map, posinf=0.0, neginf=0.0), output.image_score)
        return self._last


def run_trial(order: TrialOrder) -> Trial:
    """Predict one inspection, in this process.

    Raises:
        BundleError: the archive cannot be used.
        EngineError: the graph cannot be loaded, or breaks the contract.
    """
    scorer, engine = _opened(order)
    frame = _noise(order.recipe)
    engine.begin(1)
    thresholds = {part.name: scorer.valid_peak(part) for part in scorer.score(frame).regions}
    slow = engine.spent_ms[0] > _SLOW_S * 1000
    frames, batches = (_FRAMES_SLOW, _BATCHES_SLOW) if slow else (_FRAMES, _BATCHES)
    found = [_predicted(scorer, engine, frame, thresholds, batches) for _ in range(frames)]
    return Trial(
        batches=engine.calls,
        batch_ms=statistics.median(batch for batch, _ in found),
        latency_ms=statistics.median(latency for _, latency in found),
        memory_mb=peak_mb() or 0.0,
    )


def _opened(order: TrialOrder) -> tuple[Scorer, SampledEngine]:
    """Open the graph as a bundle is loaded, which is part of the peak: the file is mapped and every byte looked at."""
    with Archive(Path(order.archive)) as archive:
        for name in archive.names:
            with archive.view(name) as view:
                hashlib.sha256(view)
        with ExitStack() as views:
            graph = TileGraph(
                engine=order.engine,
                precision=order.precision,
                shape=order.recipe.graph_shape(image_score=order.has_image_score),
                files=tuple(views.enter_context(archive.view(name)) for name in order.files),
                digest="trial",
            )
            engine = SampledEngine(open_engine(graph, threads=order.threads))
        areas, backgrounds = read_valid_areas(archive, order.recipe), read_backgrounds(archive, order.recipe)
    return Scorer(order.recipe, engine, valid_areas=areas, backgrounds=backgrounds), engine


def _predicted(
    scorer: Scorer, engine: SampledEngine, frame: Frame, thresholds: Mapping[str, float], batches: int
) -> tuple[float, float]:
    """Milliseconds of one batch, and of the frame if all its batches had been run."""
    time.sleep(_IDLE_S)
    engine.begin(batches)
    start = time.perf_counter()
    scored = scorer.score(frame)  # every tile: an early REJECT is no frame's right
    for part in scored.regions:  # as for a frame with a defect in each region
        scorer.listed(part, thresholds[part.name], scored.clock)
    elapsed = (time.perf_counter() - start) * 1000
    first, *others = engine.spent_ms
    warm = (
        statistics.fmean(others) if others else first
    )  # the mean: what interrupts one batch in ten interrupts many of fifty
    return warm, elapsed - sum(engine.spent_ms) + first + (engine.calls - 1) * warm


def _noise(recipe: Recipe) -> Frame:
    """A frame of the camera's size and format that compares with nothing."""
    size, form = recipe.geometry.frame.size, recipe.geometry.file_format or recipe.geometry.pixel_format
    shape = (size.height, size.width, form.channels)
    pixels = np.random.default_rng(0).integers(0, 2**recipe.geometry.bit_depth, shape, dtype=form.dtype)
    return Frame(pixels, form)
