"""The verdict, on the values where it turns."""

import math

import pytest

from edge_runtime.decision import Decision, Reason, Thresholds, Verdict, decide, worst

BAND = Thresholds(reject=2.0, review=1.0)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (-1e300, Verdict.ACCEPT),
        (math.nextafter(1.0, 0.0), Verdict.ACCEPT),
        (1.0, Verdict.REVIEW),
        (math.nextafter(2.0, 0.0), Verdict.REVIEW),
        (2.0, Verdict.REJECT),
        (1e300, Verdict.REJECT),
    ],
)
def test_a_score_at_a_threshold_is_already_on_its_far_side(score: float, verdict: Verdict) -> None:
    assert decide(score, BAND) == Decision(verdict, None)


def test_without_a_band_nothing_is_reviewed() -> None:
    plain = Thresholds(reject=2.0)
    assert decide(math.nextafter(2.0, 0.0), plain).verdict is Verdict.ACCEPT
    assert decide(2.0, plain).verdict is Verdict.REJECT


def test_an_empty_band_rejects_at_its_threshold() -> None:
    assert decide(2.0, Thresholds(reject=2.0, review=2.0)).verdict is Verdict.REJECT


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error_and_never_an_accept(score: float) -> None:
    assert decide(score, BAND) == Decision(Verdict.ERROR, Reason.NOT_FINITE)


@pytest.mark.parametrize("reject", [math.nan, math.inf, -math.inf])
def test_a_reject_threshold_that_is_no_number_is_refused(reject: float) -> None:
    with pytest.raises(ValueError, match=f"reject threshold is {reject}"):
        Thresholds(reject=reject)


@pytest.mark.parametrize("review", [math.nan, math.inf, -math.inf, math.nextafter(2.0, 3.0)])
def test_a_review_threshold_that_is_no_number_or_above_the_reject_threshold_is_refused(review: float) -> None:
    with pytest.raises(ValueError, match=f"review threshold {review}"):
        Thresholds(reject=2.0, review=review)


def test_there_is_no_worst_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        worst([], [])
