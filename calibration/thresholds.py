"""Owns the thresholds of one artefact: from scored calibration images to image and pixel thresholds by region."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import PixelHistogram, Scores
from calibration.policies import Policy, default_policy, threshold
from calibration.progress import progress
from calibration.samples import Label, Sample
from edge_runtime.bundle.manifest import RegionThresholds
from edge_runtime.bundle.store import json_bytes
from edge_runtime.errors import BundleError, CalibrationError
from edge_runtime.imaging.frames import read_image
from edge_runtime.imaging.maps import Map
from edge_runtime.scorer import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationScore:
    """One region of one calibration image as the artefact scored it: enough to set any threshold again."""

    digest: str
    name: str
    label: str
    region: str
    score: float
    peak: float  # largest value of the smoothed map on the valid area
    median: float  # of the smoothed map on the valid area


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """Scores of all calibration images, and their maps where masks make pixel thresholds possible."""

    scores: tuple[CalibrationScore, ...]
    masked: tuple[tuple[Sample, str, Map], ...]  # sample, region, stitched map
    tile_peaks: Mapping[str, tuple[NDArray[np.float64], ...]]  # by region, of each good image, see `Scorer.tile_peaks`


def score_samples(scorer: Scorer, samples: Sequence[Sample], what: str) -> CalibrationSet:
    """Score calibration images through the runtime's own path.

    Raises:
        DataError: an image cannot be used.
        CalibrationError: a score is not finite.
        EngineError: the engine failed.
    """
    scores: list[CalibrationScore] = []
    masked: list[tuple[Sample, str, Map]] = []
    tile_peaks: dict[str, list[NDArray[np.float64]]] = {}
    has_masks = any(sample.mask is not None for sample in samples)
    for sample in progress(samples, what):
        for part in scorer.score(read_image(sample.path, scorer.recipe.geometry.file_format)).regions:
            if not np.isfinite(part.image_score):
                message = f"{sample.path}: the model gives a score that is not finite: it is broken, fit it again"
                raise CalibrationError(message)
            scores.append(
                CalibrationScore(
                    digest=sample.digest,
                    name=sample.name,
                    label=sample.label.value,
                    region=part.name,
                    score=part.image_score,
                    peak=scorer.valid_peak(part),
                    median=scorer.valid_median(part),
                )
            )
            if sample.label is Label.GOOD:
                tile_peaks.setdefault(part.name, []).append(scorer.tile_peaks(part))
            if has_masks and (sample.label is Label.GOOD or sample.mask is not None):
                masked.append((sample, part.name, part.grid))
    peaks = {name: tuple(found) for name, found in tile_peaks.items()}
    return CalibrationSet(scores=tuple(scores), masked=tuple(masked), tile_peaks=peaks)


def region_thresholds(
    scorer: Scorer, calibration: CalibrationSet, policy: Policy | None, display: Sequence[tuple[float, float]] = ()
) -> dict[str, RegionThresholds]:
    """Thresholds by region.

    Args:
        scorer: made the scores.
        calibration: what it scored.
        policy: sets the image threshold; the default for so many good images when None.
        display: (median, peak) of other good maps, for the colour range, and for what is listed under a policy of manual against a
            background, where no good image is in the calibration set.

    Raises:
        TooFewSamplesError: the policy needs more images.
        CalibrationError: the policy gives no usable threshold.
    """
    found = {}
    for spec in scorer.recipe.geometry.regions:
        parts = [part for part in calibration.scores if part.region == spec.name]
        good = [part for part in parts if part.label == Label.GOOD]
        bad = [part for part in parts if part.label == Label.DEFECTIVE]
        chosen = policy or default_policy(len(good))
        image = threshold(chosen, _array(good, "score"), _array(bad, "score"))
        low, high = _display_range([(part.median, part.peak) for part in good] or list(display))
        found[spec.name] = RegionThresholds(
            reject=image.value,
            review=None,
            pixel=_pixel_threshold(scorer, calibration, spec.name, chosen, [peak for _, peak in display]),
            policy=image.policy,
            guarantee=image.guarantee,
            n_good=image.n_good,
            n_defective=image.n_defective,
            display_low=low,
            display_high=high,
            tile_order=tile_order(calibration.tile_peaks.get(spec.name, ())),
        )
    return found


def tile_order(peaks: Sequence[NDArray[np.float64]]) -> tuple[int, ...]:
    """The tiles of a plan by the mean of their peaks over good images, highest first; empty without images.

    A defect adds to what a good part shows at its place: where that is high already, the least defect reaches the
    threshold, and so does what the thresholds were set to let pass. It is a guess at where a reject is met soonest:
    it decides how long a frame takes, never what becomes of it.
    """
    if not peaks:
        return ()
    return tuple(int(tile) for tile in np.argsort(-np.mean(peaks, axis=0), kind="stable"))


def _pixel_threshold(
    scorer: Scorer, calibration: CalibrationSet, region: str, policy: Policy, other_peaks: Sequence[float]
) -> float:
    """On the shown map, which stays raw where the image score counts deviations: a number given for these says nothing there."""
    parts = [part for part in calibration.scores if part.region == region]
    if policy.name in {"f1", "youden"}:
        on_pixels = _threshold_on_pixels(scorer, calibration, region, policy)
        if on_pixels is not None:
            return on_pixels
    good = _array([part for part in parts if part.label == Label.GOOD], "peak")
    bad = _array([part for part in parts if part.label == Label.DEFECTIVE], "peak")
    if policy.name == "manual" and region in scorer.backgrounds and (len(good) or other_peaks):
        return float(good.max()) if len(good) else max(other_peaks)
    return threshold(policy, good, bad).value


def _threshold_on_pixels(scorer: Scorer, calibration: CalibrationSet, region: str, policy: Policy) -> float | None:
    """The policy applied to pixels; None where calibration has no masks."""
    frames = [(sample, grid) for sample, name, grid in calibration.masked if name == region]
    if not any(sample.mask is not None for sample, _ in frames):
        return None
    planes = [scorer.plane_map(region, grid) for _, grid in frames]
    histogram = PixelHistogram(min(float(p.min()) for p in planes), max(float(p.max()) for p in planes))
    x, y = scorer.origin(region)
    size = scorer.recipe.geometry.frame.size
    for (sample, _), plane in zip(frames, planes, strict=True):
        region_map = scorer.crop_map(region, plane)
        height, width = region_map.shape
        whole = np.zeros((size.height, size.width), dtype=np.bool_) if sample.mask is None else sample.read_mask(size)
        histogram.add(region_map, whole[y : y + height, x : x + width])
    counted = histogram.curve()
    if counted is None:
        return None
    merit = counted.f1 if policy.name == "f1" else counted.recall - counted.false_positive_rate
    return float(counted.thresholds[int(np.argmax(merit))])


def _display_range(maps: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Colours run from what good maps lie at to as far beyond their highest peak again: a good part stays below half."""
    if not maps:
        return 0.0, 1.0
    low = float(np.median([median for median, _ in maps]))
    peak = max(peak for _, peak in maps)
    return low, low + 2 * max(peak - low, 1e-6)


def _array(parts: Sequence[CalibrationScore], what: str) -> Scores:
    return np.array([getattr(part, what) for part in parts], dtype=np.float64)


def dump_scores(scores: Sequence[CalibrationScore]) -> bytes:
    """Calibration scores as a JSON member."""
    return json_bytes([asdict(score) for score in scores])


def load_scores(data: bytes, name: str) -> tuple[CalibrationScore, ...]:
    """Calibration scores from a JSON member.

    Raises:
        BundleError: the member is of another form.
    """
    try:
        return tuple(CalibrationScore(**row) for row in json.loads(data))
    except (ValueError, TypeError) as error:
        message = f"member {name} holds no calibration scores ({error}): rebuild the bundle"
        raise BundleError(message) from error
