"""Owns the way from a sealed bundle and a frame to an `Inspection`: the runtime's front door."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.load import load
from edge_runtime.bundle.manifest import ArtefactSpec
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.decision import Decision, Reason, Thresholds, Verdict, decide, worst
from edge_runtime.errors import ConfigError, DataError, OutOfTimeError
from edge_runtime.imaging.frames import Frame, PixelFormat, read_image
from edge_runtime.imaging.maps import ListedRegion, Map
from edge_runtime.imaging.overlay import overlay
from edge_runtime.normalise import threshold_relative
from edge_runtime.proof import EarlyStop
from edge_runtime.scorer import FrameScore, RegionScore, Scorer
from edge_runtime.stages import StageTimes


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Milliseconds by stage; 0 for stages that did not run."""

    decode: float = 0.0
    preprocess: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0
    stages: StageTimes = field(default_factory=StageTimes)  # the same time but for decoding, in finer parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What Takt says of one frame. Score and threshold belong to the region that decided."""

    verdict: Verdict
    reason: Reason | None
    detail: str  # for people: what went wrong; empty unless the verdict is ERROR
    region: str | None
    score: float | None
    threshold: float | None
    score_normalized: float | None
    regions: tuple[ListedRegion, ...]
    timings_ms: Timings
    complete: bool  # every tile that counts was scored; False after some ERRORs, and for a REJECT that needed no more
    bundle: str  # digest
    artefact: str
    scored: FrameScore | None = field(repr=False)  # for maps on demand


class Inspector:
    """A sealed bundle that inspects frames: one at a time, every frame gets an Inspection, none an exception."""

    def __init__(self, scorer: Scorer, artefact: ArtefactSpec, digest: str, *, early_reject: bool = False) -> None:
        """Join a scorer with the thresholds of its artefact; `Inspector.open` does so from a bundle file.

        Args:
            scorer: the artefact's scorer.
            artefact: whose thresholds decide.
            digest: of the bundle, repeated in every Inspection.
            early_reject: score the riskiest tiles first, and answer REJECT as soon as it is certain.
        """
        self.scorer = scorer
        self.artefact = artefact
        self.digest = digest
        orders = {name: found.tile_order for name, found in artefact.thresholds.items()}
        self._early = EarlyStop(settles=self._rejects, orders=orders) if early_reject else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        artefact: str | None = None,
        graph: str = GraphRole.TILE,
        threads: int | None = None,
        cache_dir: Path | None = None,
        early_reject: bool = False,
    ) -> "Inspector":
        """Verify and load a bundle; see `edge_runtime.bundle.load.load` for the steps and what they raise.

        Args:
            path: the bundle.
            artefact: which to run; the bundle's default when None.
            graph: `tile`, or `frame`: the whole frame at once, where the bundle has such a graph.
            threads: CPU threads of one inspection; all when None.
            cache_dir: folder for compiled models; nothing is written when None.
            early_reject: stop at a frame's first tiles that make its REJECT certain.
        """
        if graph not in set(GraphRole):
            message = f"graph {graph!r}: there are {', '.join(GraphRole)}"
            raise ConfigError(message)
        bundle = load(Path(path), artefact=artefact, graph=GraphRole(graph), threads=threads, cache_dir=cache_dir)
        return cls(bundle.scorer, bundle.artefact, bundle.digest, early_reject=early_reject)

    def inspect(self, frame: Frame | NDArray[np.uint8 | np.uint16], *, until: float | None = None) -> Inspection:
        """Inspect one frame.

        Args:
            frame: a `Frame`, or pixels (H, W) or (H, W, 3) in the bundle's own format (colour as RGB). Pixels of 16 bits
                alone promise no depth; a `Frame` of mono12 does.
            until: seconds on the clock of `time.monotonic`; what is not decided then, or cannot be, is verdict ERROR,
                reason TIMEOUT. It is looked at between batches of tiles. None for no limit.

        Returns:
            An Inspection; whatever fails is verdict ERROR with a reason.
        """
        return self._inspect(lambda: self._framed(frame), decode_ms=0.0, until=until)

    def inspect_file(self, path: Path) -> Inspection:
        """Decode and inspect one image file, read as the images were that the bundle was built from.

        A file that cannot be read is verdict ERROR, reason BAD_IMAGE.
        """
        return self._inspect(lambda: read_image(path, self.file_format), decode_ms=None, until=None)

    def frame_map(self, inspection: Inspection) -> Map | None:
        """(H, W) float32 raw anomaly map of the frame, NaN where nothing is inspected; None after an ERROR."""
        return None if inspection.scored is None else self.scorer.frame_map(inspection.scored)

    @property
    def file_format(self) -> PixelFormat | None:
        """What image files hold that cannot tell it themselves; None where they are taken as they decode."""
        return self.scorer.recipe.geometry.file_format

    @property
    def display_range(self) -> tuple[float, float]:
        """Raw map values at the lower and upper end of the heatmap's colours, the same for all images."""
        shown = list(self.artefact.thresholds.values())
        return min(part.display_low for part in shown), max(part.display_high for part in shown)

    def overlay(self, frame: Frame, inspection: Inspection) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB picture of the frame under its heatmap; None after an ERROR."""
        frame_map = self.frame_map(inspection)
        if frame_map is None:
            return None
        low, high = self.display_range
        listed, inspected = inspection.regions, self.scorer.regions
        return overlay(frame, frame_map, low=low, high=high, regions=listed, inspected=inspected)

    def defect_mask(self, inspection: Inspection) -> NDArray[np.uint8] | None:
        """(H, W) uint8, 255 where a region's map is at or above its pixel threshold; None after an ERROR."""
        if inspection.scored is None:
            return None
        size = self.scorer.recipe.geometry.frame.size
        mask = np.zeros((size.height, size.width), dtype=np.uint8)
        for part in inspection.scored.regions:
            threshold = self.artefact.thresholds[part.name].pixel
            if threshold is None:
                continue
            region_map = self.scorer.region_map(part)
            x, y = self.scorer.origin(part.name)
            window = mask[y : y + region_map.shape[0], x : x + region_map.shape[1]]
            window[np.nan_to_num(region_map, nan=-np.inf) >= threshold] = 255
        return mask

    def _framed(self, frame: Frame | NDArray[np.uint8 | np.uint16]) -> Frame:
        if isinstance(frame, Frame):
            return frame
        wanted = self.scorer.recipe.geometry.pixel_format
        return Frame(frame, wanted if wanted.dtype == np.uint8 else wanted.of_depth(16))

    def _inspect(self, get_frame: Callable[[], Frame], *, decode_ms: float | None, until: float | None) -> Inspection:
        start = time.perf_counter()
        try:
            frame = get_frame()
            if decode_ms is None:
                decode_ms = (time.perf_counter() - start) * 1000
            scored = self.scorer.score(frame, until=until, early=self._early)
            return self._judged(scored, decode_ms, start)
        except OutOfTimeError as error:
            return self._failed(Reason.TIMEOUT, error, start)
        except DataError as error:
            return self._failed(Reason.BAD_IMAGE, error, start)
        except Exception as error:  # noqa: BLE001 - whatever breaks, the part gets an answer, and it is never ACCEPT
            return self._failed(Reason.ENGINE, error, start)

    def _judged(self, scored: FrameScore, decode_ms: float, start: float) -> Inspection:
        decisions = [decide(part.image_score, self._thresholds(part)) for part in scored.regions]
        ranks = [threshold_relative(part.image_score, self._thresholds(part).reject) for part in scored.regions]
        deciding = worst(decisions, ranks)
        part, decision = scored.regions[deciding], decisions[deciding]
        listed = self._listed(scored, part, decision) if decision.verdict is not Verdict.ERROR else ()
        stages = scored.times_ms
        times = Timings(
            decode=decode_ms,
            preprocess=stages.preprocess,
            infer=stages.infer,
            postprocess=stages.postprocess,
            total=(time.perf_counter() - start) * 1000,
            stages=stages,
        )
        return self._answer(part, decision, listed, times, scored)

    def _answer(
        self,
        part: RegionScore,
        decision: Decision,
        listed: tuple[ListedRegion, ...],
        times: Timings,
        scored: FrameScore,
    ) -> Inspection:
        threshold = self._thresholds(part).reject
        finite = math.isfinite(part.image_score)
        return Inspection(
            verdict=decision.verdict,
            reason=decision.reason,
            detail="" if finite else f"region {part.name}: the engine gave a map that is not finite",
            region=part.name,
            score=part.image_score if finite else None,
            threshold=threshold,
            score_normalized=threshold_relative(part.image_score, threshold) if finite else None,
            regions=listed,
            timings_ms=times,
            complete=scored.complete,
            bundle=self.digest,
            artefact=self.artefact.name,
            scored=scored if finite else None,
        )

    def _failed(self, reason: Reason, error: Exception, start: float) -> Inspection:
        return Inspection(
            verdict=Verdict.ERROR,
            reason=reason,
            detail=str(error) or type(error).__name__,
            region=None,
            score=None,
            threshold=None,
            score_normalized=None,
            regions=(),
            timings_ms=Timings(total=(time.perf_counter() - start) * 1000),
            complete=False,
            bundle=self.digest,
            artefact=self.artefact.name,
            scored=None,
        )

    def _thresholds(self, part: RegionScore) -> Thresholds:
        return self.artefact.thresholds[part.name].image

    def _rejects(self, name: str, score: float) -> bool:
        return decide(score, self.artefact.thresholds[name].image).verdict is Verdict.REJECT

    def _listed(self, scored: FrameScore, deciding: RegionScore, decision: Decision) -> tuple[ListedRegion, ...]:
        """What lies at or above the pixel thresholds; of a part that is not accepted, at least the place that decided."""
        listed: list[ListedRegion] = []
        for part in scored.regions:
            threshold = self.artefact.thresholds[part.name].pixel
            if threshold is None:
                continue
            found = self.scorer.listed(part, threshold, scored.clock)
            if part is deciding and decision.verdict is not Verdict.ACCEPT and not found:
                place = None if self.scorer.reaches(part, threshold) else self.scorer.deciding_place(part)
                found = () if place is None else (place,)  # what is there and too small to be listed stays unlisted
            listed.extend(found)
        return tuple(sorted(listed, key=lambda region: -region.peak))


__all__ = ["Frame", "Inspection", "Inspector", "PixelFormat", "Timings"]
