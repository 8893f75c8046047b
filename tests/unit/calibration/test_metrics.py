"""Figures: what a class missing, one score for all, and a long run of frames do to them."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from calibration.metrics import PixelHistogram, curve

NONE = np.array([], dtype=np.float64)
SOME = np.array([1.0, 2.0, 2.0])


@pytest.mark.parametrize(("good", "bad"), [(NONE, SOME), (SOME, NONE), (NONE, NONE)])
def test_without_one_of_the_classes_there_is_no_curve(good: np.ndarray, bad: np.ndarray) -> None:
    assert curve(good, bad) is None


def test_an_error_ranks_above_every_score_and_errors_tie_among_themselves() -> None:
    found = curve(np.array([1.0, np.inf]), np.array([2.0, np.inf]))
    assert found is not None
    assert found.auroc() == pytest.approx(roc_auc_score([0, 0, 1, 1], [1, 9, 2, 9]))


def test_a_score_at_the_threshold_counts_as_positive() -> None:
    found = curve(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    assert found is not None
    assert found.thresholds.tolist() == [3.0, 2.0, 1.0]
    assert found.true_positives.tolist() == [1, 2, 2]
    assert found.false_positives.tolist() == [0, 1, 2]


def test_pixels_that_all_score_the_same_tell_nothing_apart() -> None:
    histogram = PixelHistogram(0.5, 0.5)
    histogram.add(np.full((4, 4), 0.5, np.float32), np.eye(4, dtype=np.bool_))
    found = histogram.curve()
    assert found is not None
    assert found.auroc() == 0.5
    assert found.thresholds.tolist() == [0.5]
    assert histogram.aupro() == pytest.approx(0.15)  # the diagonal's area up to 0.3, over 0.3


def test_bins_are_fine_enough_for_scores_that_are_close() -> None:
    draw = np.random.default_rng(1)
    frame_map = (1.0 + 1e-3 * draw.standard_normal((200, 200))).astype(np.float32)
    mask = frame_map + 1e-3 * draw.standard_normal((200, 200)) > 1.001
    histogram = PixelHistogram(float(frame_map.min()), float(frame_map.max()))
    histogram.add(frame_map, mask)
    found = histogram.curve()
    assert found is not None
    assert found.auroc() == pytest.approx(roc_auc_score(mask.ravel(), frame_map.ravel()), abs=1e-5)
    assert found.average_precision() == pytest.approx(
        average_precision_score(mask.ravel(), frame_map.ravel()), abs=1e-4
    )


def test_a_small_defect_weighs_as_much_as_a_large_one() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[0:10, 0:10] = True
    mask[15, 15] = True
    frame_map = np.zeros((20, 20), np.float32)
    frame_map[0:10, 0:10] = 1.0  # the large one is found, the small one is not
    histogram = PixelHistogram(0.0, 1.0)
    histogram.add(frame_map, mask)
    # from half the overlap at no false positive, straight to all of both at all of them
    assert histogram.aupro() == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_what_is_found_at_the_limit_itself_adds_no_area() -> None:
    """Ten good pixels: three of them rise first, then the whole defect, then the rest."""
    frame_map = np.array([[9, 8, 7, 5, 5, 5, 5, 5, 5, 5, 6]], np.float32)
    mask = np.arange(11)[np.newaxis] == 10
    histogram = PixelHistogram(5.0, 9.0)
    histogram.add(frame_map, mask)
    assert histogram.aupro() == 0.0


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    draw = np.random.default_rng(0)
    frame_map = draw.random((64, 64), dtype=np.float32)
    mask = frame_map > 0.9
    histogram = PixelHistogram(0.0, 1.0)
    histogram.add(frame_map, mask)
    tracemalloc.start()
    try:
        for _ in range(3):
            histogram.add(frame_map, mask)
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for _ in range(60):
            histogram.add(frame_map, mask)
        assert tracemalloc.get_traced_memory()[1] < few + 2 * frame_map.nbytes
    finally:
        tracemalloc.stop()
