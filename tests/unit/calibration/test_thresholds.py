"""Thresholds of one artefact: what is listed where the image score counts deviations and the shown map stays raw."""

import numpy as np
import pytest
from support.toys import BrightnessEngine, make_recipe

from calibration.policies import parse_policy
from calibration.thresholds import CalibrationScore, CalibrationSet, region_thresholds
from edge_runtime.imaging.background import Background
from edge_runtime.scorer import Scorer

BACKGROUND = Background(np.zeros((6, 8), np.float32), np.ones((6, 8), np.float32))


def scorer(*, against: bool) -> Scorer:
    recipe = make_recipe()
    backgrounds = {"all": BACKGROUND} if against else {}
    return Scorer(recipe, BrightnessEngine(recipe), valid_areas={}, backgrounds=backgrounds)


def good(*peaks: float) -> CalibrationSet:
    scores = tuple(
        CalibrationScore(digest="0" * 64, name=f"{peak}", label="good", region="all", score=1.0, peak=peak, median=0.0)
        for peak in peaks
    )
    return CalibrationSet(scores=scores, masked=(), tile_peaks={})


@pytest.mark.parametrize(
    ("against", "peaks", "others", "pixel"),
    [
        (False, (120.0, 130.0), [], 3.0),  # the number is the map's, too
        (True, (120.0, 130.0), [], 130.0),
        (True, (), [(0.0, 99.0), (0.0, 90.0)], 99.0),
        (True, (), [], 3.0),  # no good map is known
    ],
)
def test_a_number_that_is_given_for_deviations_lists_nothing_of_a_good_map(
    *, against: bool, peaks: tuple[float, ...], others: list[tuple[float, float]], pixel: float
) -> None:
    found = region_thresholds(scorer(against=against), good(*peaks), parse_policy("manual:3"), others)["all"]
    assert (found.reject, found.pixel) == (3.0, pixel)
