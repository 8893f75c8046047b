"""Owns the judgement of a bundle on labelled images: every figure of `takt evaluate`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import Curve, PixelHistogram, curve
from calibration.policies import Policy, Threshold, threshold
from calibration.progress import progress
from calibration.rates import Rate, rate
from calibration.samples import DataSet, Label, Sample, Split
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import DataError, EngineError
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.maps import Map
from edge_runtime.inspector import Inspection, Inspector
from edge_runtime.scorer import FrameScore, RegionScore


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One image with what the bundle said of it."""

    sample: Sample
    inspection: Inspection  # without its maps: those of one data set would fill the memory
    scores: dict[str, float]  # raw image score by region
    ranking: float  # what ROC and PR curves order by
    grids: dict[str, Map]  # stitched maps by region, small; empty where no pixel figure needs them


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFigures:
    """Figures over all inspected pixels of good images and of defective ones with a mask."""

    auroc: float
    average_precision: float
    f1: float
    aupro: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a bundle does on a data set."""

    method: str
    artefact: str
    bundle: str
    dataset: str
    judged: tuple[Judged, ...]
    n_left_out: int  # images that had a part in the bundle
    n_unmasked: int  # defective images without a mask
    full_masks: bool  # whether those count as defective all over
    image_curve: Curve | None  # None without defective or without good images
    pixels: PixelFigures | None  # None without masks
    thresholds: dict[str, float]  # raw reject threshold by region
    guarantee: str
    false_reject_rate: Rate | None  # good images rejected or in error; REVIEW is apart
    escape_rate: Rate | None  # defective images accepted
    review_rate: Rate | None
    policy_threshold: dict[str, Threshold] | None  # what another policy would set on these images, by region

    def of(self, label: Label) -> tuple[Judged, ...]:
        """Judged images of one label."""
        return tuple(item for item in self.judged if item.sample.label is label)

    def confusion(self) -> dict[str, dict[str, int]]:
        """Counts by label and verdict."""
        return {
            label.value: {
                verdict.value: sum(item.inspection.verdict is verdict for item in self.of(label)) for verdict in Verdict
            }
            for label in (Label.GOOD, Label.DEFECTIVE, Label.UNKNOWN)
        }

    def as_json(self, report: str | None) -> dict[str, Any]:
        """The keys that scripts read; null where a figure cannot be computed."""
        image, pixels = self.image_curve, self.pixels
        return {
            "method": self.method,
            "artefact": self.artefact,
            "bundle": self.bundle,
            "n_good": len(self.of(Label.GOOD)),
            "n_defective": len(self.of(Label.DEFECTIVE)),
            "n_unmasked": self.n_unmasked,
            "n_left_out": self.n_left_out,
            "image_auroc": None if image is None else image.auroc(),
            "image_ap": None if image is None else image.average_precision(),
            "image_f1": None if image is None else image.best_f1(),
            "pixel_auroc": None if pixels is None else pixels.auroc,
            "pixel_ap": None if pixels is None else pixels.average_precision,
            "pixel_f1": None if pixels is None else pixels.f1,
            "aupro": None if pixels is None else pixels.aupro,
            "threshold": next(iter(self.thresholds.values())) if len(self.thresholds) == 1 else None,
            "thresholds": self.thresholds,
            "guarantee": self.guarantee,
            "false_reject_rate": _json(self.false_reject_rate),
            "escape_rate": _json(self.escape_rate),
            "review_rate": _json(self.review_rate),
            "confusion": self.confusion(),
            "policy_threshold": None
            if self.policy_threshold is None
            else {
                name: {"threshold": found.value, "policy": found.policy, "guarantee": found.guarantee}
                for name, found in self.policy_threshold.items()
            },
            "report": report,
        }


def evaluate(
    inspector: Inspector, dataset: DataSet, *, full_masks: bool = False, policy: Policy | None = None
) -> Evaluation:
    """Inspect every image that had no part in the bundle and measure what came out.

    Args:
        inspector: the bundle.
        dataset: its test tree, or where it has none, all of it.
        full_masks: count a defective image without a mask as defective in every pixel.
        policy: also compute the threshold that this policy would set on these images.

    Raises:
        DataError: an image or a mask cannot be used, or no image is left to evaluate.
        EngineError: the engine failed.
        CalibrationError: `policy` cannot be met on these images.
    """
    samples, left_out = to_evaluate(inspector, dataset)
    defective = [sample for sample in samples if sample.label is Label.DEFECTIVE]
    unmasked = sum(sample.mask is None for sample in defective)
    measures_pixels = bool(defective) and (full_masks or unmasked < len(defective))
    judged = [judge(inspector, sample, keep_maps=measures_pixels) for sample in progress(samples, "evaluate")]
    recipe = inspector.scorer.recipe
    good = [item for item in judged if item.sample.label is Label.GOOD]
    bad = [item for item in judged if item.sample.label is Label.DEFECTIVE]
    thresholds = inspector.artefact.thresholds
    return Evaluation(
        method=recipe.provenance.method,
        artefact=inspector.artefact.name,
        bundle=inspector.digest,
        dataset=dataset.root.name,
        judged=tuple(judged),
        n_left_out=left_out,
        n_unmasked=unmasked,
        full_masks=full_masks,
        image_curve=curve(_rankings(good), _rankings(bad)),
        pixels=_pixel_figures(inspector, judged, full_masks=full_masks) if measures_pixels else None,
        thresholds={name: part.reject for name, part in thresholds.items()},
        guarantee=next(iter(thresholds.values())).guarantee,
        false_reject_rate=_rate(good, {Verdict.REJECT, Verdict.ERROR}),
        escape_rate=_rate(bad, {Verdict.ACCEPT}),
        review_rate=_rate(good + bad, {Verdict.REVIEW}),
        policy_threshold=None if policy is None else _policy_threshold(policy, inspector, good, bad),
    )


def evaluate_rest(inspector: Inspector, dataset: DataSet, *, full_masks: bool = False) -> Evaluation | None:
    """`evaluate` on the test tree; None where there is none, or where calibration used all of it.

    Raises:
        DataError: an image or a mask cannot be used.
        EngineError: the engine failed.
    """
    known = _recorded(inspector)
    if all(sample.digest in known for sample in dataset.select(split=Split.TEST)):
        return None
    return evaluate(inspector, dataset, full_masks=full_masks)


def _recorded(inspector: Inspector) -> set[str]:
    """Digests of all images that had a part in the bundle."""
    splits = inspector.scorer.recipe.provenance.splits
    return {*splits.fit, *splits.validation, *splits.calibration}


def to_evaluate(inspector: Inspector, dataset: DataSet) -> tuple[list[Sample], int]:
    """The samples to evaluate on, and how many were left out because the bundle was made with them.

    Raises:
        DataError: none is left.
    """
    known = _recorded(inspector)
    chosen = dataset.select(split=Split.TEST) if dataset.has_test_tree else dataset.samples
    samples = [sample for sample in chosen if sample.digest not in known]
    if not samples:
        message = f"{dataset.root}: all {len(chosen)} images had a part in the bundle: give images that it has not seen"
        raise DataError(message)
    return samples, len(chosen) - len(samples)


def judge(inspector: Inspector, sample: Sample, *, keep_maps: bool) -> Judged:
    """Inspect one labelled image.

    Raises:
        DataError: the image cannot be used: a figure must not be measured on fewer images than it says.
        EngineError: the engine failed.
    """
    inspection = inspector.inspect_file(sample.path)
    if inspection.reason is Reason.BAD_IMAGE:
        raise DataError(inspection.detail)
    if inspection.reason is Reason.ENGINE:
        raise EngineError(inspection.detail)
    parts = () if inspection.scored is None else inspection.scored.regions
    return Judged(
        sample=sample,
        inspection=replace(inspection, scored=None),
        scores={part.name: part.image_score for part in parts},
        ranking=_ranking(inspection, len(parts)),
        grids={part.name: part.grid for part in parts} if keep_maps else {},
    )


def _ranking(inspection: Inspection, regions: int) -> float:
    """The raw score where there is one region; with several, which have scales of their own, the normalised one."""
    if inspection.score is None or inspection.score_normalized is None:
        return float("inf")  # an ERROR is rejected, whatever the threshold
    return inspection.score if regions == 1 else inspection.score_normalized


def _rankings(items: Sequence[Judged]) -> NDArray[np.float64]:
    return np.array([item.ranking for item in items], dtype=np.float64)


def _rate(items: Sequence[Judged], verdicts: set[Verdict]) -> Rate | None:
    return rate(sum(item.inspection.verdict in verdicts for item in items), len(items))


def _json(found: Rate | None) -> dict[str, float | int] | None:
    return None if found is None else found.as_json()


def _pixel_figures(inspector: Inspector, judged: Iterable[Judged], *, full_masks: bool) -> PixelFigures | None:
    counted = [item for item in judged if _has_truth(item.sample, full_masks=full_masks) and item.grids]
    if not any(grid.min() < grid.max() for item in counted for grid in item.grids.values()):
        return None  # nothing counts, or no map tells one place from another: its method judges images only
    low, high = _range(inspector, counted)
    histogram = PixelHistogram(low, high)
    for item in progress(counted, "pixel figures"):
        frame_map = frame_map_of(inspector, item.grids)
        histogram.add(frame_map, truth(item.sample, frame_map, full_masks=full_masks))
    found = histogram.curve()
    aupro = histogram.aupro()
    if found is None or aupro is None:
        return None
    return PixelFigures(
        auroc=found.auroc(), average_precision=found.average_precision(), f1=found.best_f1(), aupro=aupro
    )


def _has_truth(sample: Sample, *, full_masks: bool) -> bool:
    return sample.label is Label.GOOD or (sample.label is Label.DEFECTIVE and (full_masks or sample.mask is not None))


def truth(sample: Sample, frame_map: Map, *, full_masks: bool) -> NDArray[np.bool_]:
    """(H, W): which pixels of an image are defective.

    Raises:
        DataError: the mask cannot be used.
    """
    height, width = frame_map.shape
    if sample.label is Label.GOOD:
        return np.zeros((height, width), dtype=np.bool_)
    if sample.mask is None and full_masks:
        return np.ones((height, width), dtype=np.bool_)
    return sample.read_mask(Size(width, height))


def frame_map_of(inspector: Inspector, grids: dict[str, Map]) -> Map:
    """The frame's map from its stitched maps."""
    scorer = inspector.scorer
    parts = tuple(RegionScore(name, 0.0, grid, scorer.plane_map(name, grid)) for name, grid in grids.items())
    return scorer.frame_map(FrameScore(parts))


def _range(inspector: Inspector, judged: Iterable[Judged]) -> tuple[float, float]:
    """Bounds of all maps: bilinear sampling leaves the bounds of the plane's map, so the frame's need not be made."""
    planes = (inspector.scorer.plane_map(name, grid) for item in judged for name, grid in item.grids.items())
    bounds = [(float(plane.min()), float(plane.max())) for plane in planes]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _policy_threshold(
    policy: Policy, inspector: Inspector, good: Sequence[Judged], bad: Sequence[Judged]
) -> dict[str, Threshold]:
    def scores(items: Sequence[Judged], name: str) -> NDArray[np.float64]:
        return np.array([item.scores[name] for item in items if name in item.scores])

    return {name: threshold(policy, scores(good, name), scores(bad, name)) for name in inspector.artefact.thresholds}
