"""The displayed score, worked out by hand."""

import math

import pytest

from edge_runtime.normalise import threshold_relative


@pytest.mark.parametrize(
    ("score", "threshold", "shown"),
    [
        (2.0, 2.0, 100.0),
        (1.0, 2.0, 50.0),
        (3.0, 2.0, 150.0),
        (0.0, 2.0, 0.0),
        (-5.0, 2.0, 0.0),
        (20.0, 2.0, 1000.0),
        (21.0, 2.0, 1000.0),
        (0.0, 0.0, 100.0),
        (-0.5, 0.0, 50.0),
        (0.5, 0.0, 150.0),
        (-2.0, 0.0, 0.0),
        (-2.0, -2.0, 100.0),
        (-3.0, -2.0, 50.0),
        (-1.0, -2.0, 150.0),
        (-5.0, -2.0, 0.0),
        (17.0, -2.0, 1000.0),
    ],
)
def test_the_threshold_is_shown_as_100_and_the_rest_in_proportion(score: float, threshold: float, shown: float) -> None:
    assert threshold_relative(score, threshold) == shown


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_shown_as_none(score: float) -> None:
    assert math.isnan(threshold_relative(score, 2.0))


@pytest.mark.parametrize("threshold", [5.0, 0.0, -5.0, 1e-300, 5e-324, -5e-324, 1e300])
def test_the_nearest_score_below_the_threshold_is_shown_below_100(threshold: float) -> None:
    assert threshold_relative(math.nextafter(threshold, -math.inf), threshold) < 100.0
    assert threshold_relative(threshold, threshold) >= 100.0
    assert threshold_relative(math.nextafter(threshold, math.inf), threshold) >= 100.0
