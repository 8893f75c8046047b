"""Figures against scikit-learn's and against slow computations by definition."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from calibration.metrics import PixelHistogram, curve

Scores = NDArray[np.float64]

SHAPE = (12, 10)
maps = arrays(np.float32, SHAPE, elements=st.integers(0, 30).map(lambda level: level / 32))
masks = arrays(np.bool_, SHAPE)
frames = st.lists(st.tuples(maps, masks), min_size=1, max_size=4)


def scores(*extra: float) -> st.SearchStrategy[Scores]:
    """Image scores with ties."""
    values = st.integers(-5, 5).map(float) | st.floats(-1e3, 1e3) | st.sampled_from(extra or (0.0,))
    return st.lists(values, min_size=1, max_size=50).map(lambda found: np.array(found, dtype=np.float64))


def ranks(*groups: Scores) -> tuple[Scores, Scores]:
    """Truth and finite scores of the same order: scikit-learn takes no infinities, and ranks are all that matters."""
    whole = np.concatenate(groups)
    return np.repeat([0, 1], [group.size for group in groups]), np.unique(whole, return_inverse=True)[1]


def best_f1(truth: Scores, values: Scores) -> float:
    """The largest F1 on scikit-learn's precision-recall curve."""
    precision, recall, _ = precision_recall_curve(truth, values)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


@settings(deadline=None)
@given(scores(np.inf, -np.inf), scores(np.inf, -np.inf))
def test_image_figures_are_scikit_learns_with_ties_and_infinities(good: Scores, bad: Scores) -> None:
    found = curve(good, bad)
    truth, rank = ranks(good, bad)
    assert found is not None
    assert found.auroc() == pytest.approx(roc_auc_score(truth, rank))
    assert found.average_precision() == pytest.approx(average_precision_score(truth, rank))
    assert found.best_f1() == pytest.approx(best_f1(truth, rank))


@settings(deadline=None)
@given(frames)
def test_pixel_figures_are_scikit_learns_on_all_pixels_at_once(drawn: list[tuple[NDArray, NDArray]]) -> None:
    histogram = PixelHistogram(0.0, 1.0)
    for frame_map, mask in drawn:
        histogram.add(frame_map, mask)
    values = np.concatenate([frame_map.ravel() for frame_map, _ in drawn])
    truth = np.concatenate([mask.ravel() for _, mask in drawn])
    found = histogram.curve()
    if truth.all() or not truth.any():
        assert found is None
        assert histogram.aupro() is None
        return
    assert found is not None
    assert found.auroc() == pytest.approx(roc_auc_score(truth, values))
    assert found.average_precision() == pytest.approx(average_precision_score(truth, values))
    assert found.best_f1() == pytest.approx(best_f1(truth, values))


def slow_aupro(drawn: list[tuple[NDArray, NDArray]], limit: float = 0.3) -> float:
    """By definition: at every threshold the mean overlap over all defects and the share of good pixels, then the area."""
    points = [(0.0, 0.0)]
    for value in np.unique(np.concatenate([frame_map.ravel() for frame_map, _ in drawn]))[::-1]:
        overlaps, false, good = [], 0, 0
        for frame_map, mask in drawn:
            count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            overlaps += [float((frame_map[labels == label] >= value).mean()) for label in range(1, count)]
            false += int((frame_map[~mask] >= value).sum())
            good += int((~mask).sum())
        points.append((false / good, float(np.mean(overlaps))))
    area = 0.0
    for (x1, y1), (x2, y2) in pairwise(points):
        if x1 >= limit or x2 == x1:
            continue
        stop = min(x2, limit)
        area += (stop - x1) * (y1 + y1 + (y2 - y1) * (stop - x1) / (x2 - x1)) / 2
    return area / limit


@settings(max_examples=60, deadline=None)
@given(frames)
def test_aupro_is_the_area_under_mean_overlap_up_to_a_false_positive_rate_of_0_3(
    drawn: list[tuple[NDArray, NDArray]],
) -> None:
    truth = np.concatenate([mask.ravel() for _, mask in drawn])
    if truth.all() or not truth.any():
        return
    histogram = PixelHistogram(0.0, 1.0)
    for frame_map, mask in drawn:
        histogram.add(frame_map, mask)
    assert histogram.aupro() == pytest.approx(slow_aupro(drawn))


@settings(deadline=None)
@given(maps, masks, arrays(np.bool_, SHAPE))
def test_pixels_that_were_not_inspected_count_in_nothing(frame_map: NDArray, mask: NDArray, outside: NDArray) -> None:
    cut = np.where(outside, np.float32(np.nan), frame_map)
    histogram = PixelHistogram(0.0, 1.0)
    histogram.add(cut, mask)
    found, truth = histogram.curve(), mask[~outside]
    if not truth.size or truth.all() or not truth.any():
        assert found is None
        return
    assert found is not None
    assert found.true_positives[-1] + found.false_positives[-1] == (~outside).sum()
    assert found.auroc() == pytest.approx(roc_auc_score(truth, frame_map[~outside]))
