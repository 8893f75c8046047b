"""What holds for every score and every threshold."""

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_runtime.decision import Decision, Reason, Thresholds, Verdict, decide, worst
from edge_runtime.normalise import threshold_relative

many = settings(max_examples=300, deadline=None)
numbers = st.floats(allow_nan=False, allow_infinity=False)
near = st.floats(-3, 3)
scores = numbers | near
anything = st.floats() | near
severity = [Verdict.ACCEPT, Verdict.REVIEW, Verdict.REJECT, Verdict.ERROR]
decisions = st.sampled_from(
    [
        Decision(Verdict.ACCEPT),
        Decision(Verdict.REVIEW),
        Decision(Verdict.REJECT),
        Decision(Verdict.ERROR, Reason.NOT_FINITE),
    ]
)


@many
@given(anything, scores, scores)
def test_a_higher_threshold_never_adds_a_reject(score: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if decide(score, Thresholds(reject=high)).verdict is Verdict.REJECT:
        assert decide(score, Thresholds(reject=low)).verdict is Verdict.REJECT


@many
@given(scores, scores, scores, scores)
def test_a_higher_score_never_has_a_milder_verdict(one: float, other: float, first: float, second: float) -> None:
    review, reject = sorted((first, second))
    thresholds = Thresholds(reject=reject, review=review)
    mild, hard = (severity.index(decide(score, thresholds).verdict) for score in sorted((one, other)))
    assert mild <= hard


@many
@given(scores, scores, scores)
def test_a_band_turns_accepts_into_reviews_and_touches_no_reject(score: float, first: float, second: float) -> None:
    review, reject = sorted((first, second))
    plain = decide(score, Thresholds(reject=reject)).verdict
    banded = decide(score, Thresholds(reject=reject, review=review)).verdict
    assert banded == (Verdict.REVIEW if plain is Verdict.ACCEPT and score >= review else plain)


@many
@given(anything, scores)
@example(math.nan, 0.0)
@example(math.inf, 0.0)
@example(-math.inf, 0.0)
def test_a_verdict_is_error_exactly_where_the_score_is_no_number(score: float, threshold: float) -> None:
    decision = decide(score, Thresholds(reject=threshold, review=threshold))
    assert (decision.verdict is Verdict.ERROR) == (not math.isfinite(score))
    assert (decision.reason is Reason.NOT_FINITE) == (not math.isfinite(score))


@many
@given(st.lists(st.tuples(decisions, st.floats()), min_size=1, max_size=6))
def test_the_worst_verdict_decides_and_of_equals_the_highest_rank(parts: list[tuple[Decision, float]]) -> None:
    chosen = worst([decision for decision, _ in parts], [rank for _, rank in parts])
    verdict, rank = parts[chosen][0].verdict, parts[chosen][1]
    assert severity.index(verdict) == max(severity.index(decision.verdict) for decision, _ in parts)
    equals = [rank for decision, rank in parts if decision.verdict is verdict and not math.isnan(rank)]
    assert rank == max(equals) if equals else math.isnan(rank) or rank == -math.inf


@many
@given(scores, scores)
@example(math.nextafter(5.0, 0.0), 5.0)
@example(-5e-324, 0.0)
@example(0.0, 5e-324)
@example(-1e-323, -5e-324)
@example(1e308, -1e-308)
def test_the_displayed_score_is_on_the_verdicts_side_of_100_and_within_1000(score: float, threshold: float) -> None:
    shown = threshold_relative(score, threshold)
    assert 0.0 <= shown <= 1000.0
    assert (shown >= 100.0) == (decide(score, Thresholds(reject=threshold)).verdict is Verdict.REJECT)


@many
@given(scores, scores, scores | st.sampled_from([0.0, 5e-324, -5e-324, 1e-300]))
def test_a_higher_score_is_never_displayed_lower(one: float, other: float, threshold: float) -> None:
    low, high = sorted((one, other))
    assert threshold_relative(low, threshold) <= threshold_relative(high, threshold)
