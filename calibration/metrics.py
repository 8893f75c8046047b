"""Owns the figures that a detector is judged by: exact for images, in bounded memory for pixels."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.maps import Map

Scores: TypeAlias = NDArray[np.float64]

AUPRO_LIMIT = 0.3  # false positive rate up to which the overlap is integrated
BINS = 1 << 18


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every threshold, from the highest score down; a score at the threshold counts as positive."""

    thresholds: Scores  # (n,) falling
    true_positives: Scores  # (n,) rising
    false_positives: Scores  # (n,)

    @property
    def recall(self) -> Scores:
        """Share of positives at or above each threshold."""
        return np.asarray(self.true_positives / self.true_positives[-1])

    @property
    def false_positive_rate(self) -> Scores:
        """Share of negatives at or above each threshold."""
        return np.asarray(self.false_positives / self.false_positives[-1])

    @property
    def precision(self) -> Scores:
        """Share of positives among those at or above each threshold."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1)

    @property
    def f1(self) -> Scores:
        """Harmonic mean of precision and recall at each threshold."""
        missed = self.true_positives[-1] - self.true_positives
        return np.asarray(2 * self.true_positives / (2 * self.true_positives + self.false_positives + missed))

    def auroc(self) -> float:
        """Area under the ROC curve, ties counted half."""
        recall = np.concatenate([[0.0], self.recall])
        return float(np.trapezoid(recall, np.concatenate([[0.0], self.false_positive_rate])))

    def average_precision(self) -> float:
        """Sum of precision over steps of recall, without interpolation."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def best_f1(self) -> float:
        """Largest F1 over all thresholds."""
        return float(self.f1.max())


def curve(good: Scores, defective: Scores) -> Curve | None:
    """The curve of image scores, one point for each distinct score; None where one class is missing."""
    if good.size == 0 or defective.size == 0:
        return None
    scores = np.concatenate([good, defective])
    order = np.argsort(-scores, kind="stable")
    positive = np.concatenate([np.zeros(good.size), np.ones(defective.size)])[order]
    ordered = scores[order]
    last = np.concatenate([ordered[1:] != ordered[:-1], [True]])  # of each run of equal scores
    hits = np.cumsum(positive)
    return Curve(ordered[last], hits[last], (np.cumsum(1 - positive))[last])


class PixelHistogram:
    """Good and defective pixels of any number of frames, counted in bins of one range.

    Memory is that of the bins, whatever the number and size of the frames. The only error is that scores within one of
    the 2**18 bins count as equal.
    """

    def __init__(self, low: float, high: float) -> None:
        """Count scores from `low` to `high`; what lies outside counts in the outermost bins."""
        self._low = low
        self._scale = (BINS - 1) / (high - low) if high > low else 0.0
        self._good = np.zeros(BINS)
        self._defective = np.zeros(BINS)
        self._overlap = np.zeros(BINS)  # every defect's pixels weigh 1 together
        self._defects = 0

    def add(self, frame_map: Map, mask: NDArray[np.bool_]) -> None:
        """Count one frame.

        Args:
            frame_map: (H, W), NaN where nothing was inspected: those pixels are left out.
            mask: (H, W), true where the part is defective.
        """
        inspected = np.isfinite(frame_map)
        bins = self._bins(frame_map[inspected])
        defective = mask[inspected]
        self._good += np.bincount(bins[~defective], minlength=BINS)
        if not defective.any():
            return
        self._defective += np.bincount(bins[defective], minlength=BINS)
        self._add_overlap(frame_map, mask & inspected)

    def _add_overlap(self, frame_map: Map, mask: NDArray[np.bool_]) -> None:
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        areas = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
        weights = 1.0 / areas[labels[mask]]
        self._overlap += np.bincount(self._bins(frame_map[mask]), weights=weights, minlength=BINS)
        self._defects += count - 1

    def curve(self) -> Curve | None:
        """The curve over all pixels, one point for each bin in use; None where one class is missing."""
        if not self._good.any() or not self._defective.any():
            return None
        used = np.flatnonzero(self._good + self._defective)[::-1]
        return Curve(
            self._low + used / (self._scale or 1.0), np.cumsum(self._defective[used]), np.cumsum(self._good[used])
        )

    def aupro(self) -> float | None:
        """Mean overlap with each defect, integrated over the false positive rate up to 0.3 and divided by it.

        Bergmann et al., IJCV 129 (2021): a small defect weighs as much as a large one.
        """
        counted = self.curve()
        if counted is None:
            return None
        used = np.flatnonzero(self._good + self._defective)[::-1]
        overlap = np.concatenate([[0.0], np.cumsum(self._overlap[used]) / self._defects])
        rate = np.concatenate([[0.0], counted.false_positive_rate])
        reached = int(np.searchsorted(rate, AUPRO_LIMIT))  # what the overlap gains at the limit itself lies beyond it
        at_limit = float(np.interp(AUPRO_LIMIT, rate[: reached + 1], overlap[: reached + 1]))
        area = np.trapezoid(np.append(overlap[:reached], at_limit), np.append(rate[:reached], AUPRO_LIMIT))
        return float(area) / AUPRO_LIMIT

    def _bins(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        scaled = (scores.astype(np.float64) - self._low) * self._scale
        return np.clip(scaled, 0, BINS - 1).astype(np.intp)
