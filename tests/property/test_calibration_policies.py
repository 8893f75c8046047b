"""Threshold policies against their definitions, whatever the scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from calibration.policies import Policy, conformal_needs, parse_policy, threshold

Scores = NDArray[np.float64]

NONE = np.array([], dtype=np.float64)


def arrays(least: int, most: int = 60) -> st.SearchStrategy[Scores]:
    """Scores with many ties, or with none."""
    values = st.integers(-6, 6).map(float) | st.floats(-1e6, 1e6)
    return st.lists(values, min_size=least, max_size=most).map(lambda found: np.array(found, dtype=np.float64))


def candidates(good: Scores, bad: Scores) -> list[float]:
    """One threshold for every way to part the scores, accepting all among them."""
    return [*np.unique([*good, *bad]).tolist(), math.inf]


def labels(good: Scores, bad: Scores, value: float) -> tuple[Scores, Scores]:
    """Truth and verdict of every image at a threshold."""
    return np.repeat([0, 1], [good.size, bad.size]), (np.concatenate([good, bad]) >= value).astype(int)


@settings(deadline=None)
@given(st.sampled_from(["manual", "sigma"]), st.floats(0, 1e300))
def test_every_number_survives_being_printed(name: str, value: float) -> None:
    policy = Policy(name=name, arguments=(value,))
    assert parse_policy(str(policy)) == policy


@settings(deadline=None)
@given(arrays(1), st.floats(0.02, 0.98))
def test_conformal_rejects_at_most_n_minus_k_of_its_own_images(scores: Scores, alpha: float) -> None:
    """K = ceil((n + 1)(1 - alpha)), threshold = nextafter(score_k, +inf)."""
    n = scores.size
    if n < conformal_needs(alpha):
        return
    value = threshold(Policy(name="conformal", arguments=(alpha,)), scores, NONE).value
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    assert int((scores < value).sum()) >= k
    assert math.nextafter(value, -math.inf) in scores
    assert int((scores < math.nextafter(value, -math.inf)).sum()) < k


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (39, 0.05), (30, 0.1), (9, 0.1), (25, 0.25)])
def test_a_new_good_part_is_rejected_no_oftener_than_conformal_promises(n: int, alpha: float) -> None:
    """Exchangeable scores: P(reject) is at most alpha, and above alpha - 1 / (n + 1): no threshold is needlessly high."""
    trials, draw = 20_000, np.random.default_rng(n)
    policy = Policy(name="conformal", arguments=(alpha,))
    scores = draw.standard_gamma(2.0, size=(trials, n + 1))
    rejected = sum(row[n] >= threshold(policy, row[:n], NONE).value for row in scores)
    noise = 4 * math.sqrt(alpha * (1 - alpha) / trials)
    assert alpha - 1 / (n + 1) - noise < rejected / trials <= alpha + noise


@settings(deadline=None)
@given(arrays(1), arrays(1))
def test_f1_finds_the_largest_f1_that_any_threshold_has(good: Scores, bad: Scores) -> None:
    found = threshold(parse_policy("f1"), good, bad).value
    best = max(f1_score(*labels(good, bad, value), zero_division=0) for value in candidates(good, bad))
    assert f1_score(*labels(good, bad, found), zero_division=0) == pytest.approx(best)


@settings(deadline=None)
@given(arrays(1), arrays(1))
def test_youden_finds_the_largest_sum_of_sensitivity_and_specificity(good: Scores, bad: Scores) -> None:
    found = threshold(parse_policy("youden"), good, bad).value
    best = max(balanced_accuracy_score(*labels(good, bad, value)) for value in candidates(good, bad))
    assert balanced_accuracy_score(*labels(good, bad, found)) == pytest.approx(best)


@settings(deadline=None)
@given(arrays(1), arrays(1), st.floats(0.01, 1000), st.floats(0.01, 1000), st.floats(0.001, 0.999))
def test_cost_is_least_over_all_thresholds_accepting_every_part_included(
    good: Scores, bad: Scores, escape: float, reject: float, prior: float
) -> None:
    def cost(value: float) -> float:
        return escape * prior * float((bad < value).mean()) + reject * (1 - prior) * float((good >= value).mean())

    found = threshold(Policy(name="cost", arguments=(escape, reject, prior)), good, bad).value
    assert cost(found) == pytest.approx(min(map(cost, candidates(good, bad))))


@settings(deadline=None)
@given(arrays(1), arrays(1), st.sampled_from(["f1", "youden"]))
def test_a_threshold_between_the_classes_sits_on_no_image_where_there_is_room(
    good: Scores, bad: Scores, name: str
) -> None:
    value = threshold(parse_policy(name), good, bad).value
    every = np.unique([*good, *bad])
    below = every[every < value]
    if below.size and (every == value).any():  # only neighbouring floats leave no room
        assert (below[-1] + value) / 2 in {below[-1], value}


@settings(deadline=None)
@given(arrays(1), st.floats(0.01, 1.0))
def test_recall_catches_the_share_and_the_next_higher_threshold_would_not(bad: Scores, share: float) -> None:
    found = threshold(Policy(name="recall", arguments=(share,)), NONE, bad).value
    assert (bad >= found).mean() >= share - 1e-9
    assert (bad > found).mean() < share


@settings(deadline=None)
@given(arrays(2), st.floats(0, 10))
def test_sigma_is_the_formula_or_a_hair_above_the_mean(scores: Scores, sigmas: float) -> None:
    value = threshold(Policy(name="sigma", arguments=(sigmas,)), scores, NONE).value
    assert value > scores.mean()
    assert value == pytest.approx(scores.mean() + sigmas * scores.std(ddof=1), rel=1e-9, abs=1e-9)
