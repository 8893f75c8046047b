"""Threshold policies: what is written, what is refused, and what each promises."""

import math

import numpy as np
import pytest

from calibration.policies import Policy, conformal_needs, default_policy, parse_policy, threshold
from edge_runtime.errors import CalibrationError, ConfigError, TooFewSamplesError

SPECIFICATIONS = [
    "f1",
    "youden",
    "manual:0.5",
    "manual:-3",
    "manual:123456.789",
    "manual:1e-300",
    "quantile:0.995",
    "quantile:1",
    "sigma:3",
    "sigma:0",
    "conformal:0.01",
    "conformal:0.0123456789",
    "cost:100,1,0.01",
    "recall:0.99",
    "recall:1",
]
NONE = np.array([], dtype=np.float64)


def good(n: int) -> np.ndarray:
    """Scores of n good images: 1 to n."""
    return np.arange(1, n + 1, dtype=np.float64)


@pytest.mark.parametrize("text", SPECIFICATIONS)
def test_a_policy_prints_as_it_was_written_and_parses_back_to_itself(text: str) -> None:
    policy = parse_policy(text)
    assert str(policy) == text
    assert parse_policy(str(policy)) == policy


def test_the_threshold_records_the_policy_with_all_its_digits() -> None:
    found = threshold(parse_policy("manual:123456.789"), NONE, NONE)
    assert (found.value, found.policy, found.guarantee) == (123456.789, "manual:123456.789", "none")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "there are f1, youden, manual"),
        ("f2", "no such policy"),
        ("F1", "no such policy"),
        ("f1:0.5", "expected f1"),
        ("youden:1,2", "expected youden"),
        ("manual", "manual:RAW"),
        ("manual:nan", "manual:RAW with RAW, a finite number"),
        ("manual:inf", "manual:RAW"),
        ("manual:high", "must be numbers, expected manual:RAW"),
        ("quantile:0", "quantile:Q with Q, above 0 and up to 1"),
        ("quantile:1.01", "quantile:Q"),
        ("sigma:-1", "sigma:K with K, 0 or more"),
        ("sigma:inf", "sigma:K"),
        ("conformal", "conformal:ALPHA"),
        ("conformal:0", "conformal:ALPHA with ALPHA, between 0 and 1"),
        ("conformal:1", "conformal:ALPHA"),
        ("conformal:1e-310", "conformal:ALPHA"),  # 1 / alpha is infinite: no number of images would do
        ("conformal:0.05,0.1", "expected conformal:ALPHA"),
        ("cost:100,1", "cost:ESCAPE,REJECT,PRIOR"),
        ("cost:0,1,0.1", "ESCAPE, above 0"),
        ("cost:1,0,0.1", "REJECT, above 0"),
        ("cost:1,1,1", "PRIOR, between 0 and 1"),
        ("recall:0", "recall:R with R, above 0 and up to 1"),
        ("recall:", "recall:R"),
    ],
)
def test_a_bad_policy_is_refused_with_the_form_that_it_should_have(text: str, form: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policy(text)
    assert repr(text) in str(caught.value)
    assert form in str(caught.value)


@pytest.mark.parametrize(
    ("n", "name"), [(2, "sigma:3"), (18, "sigma:3"), (19, "conformal:0.05"), (400, "conformal:0.05")]
)
def test_the_default_promises_five_percent_from_19_good_images_on(n: int, name: str) -> None:
    assert str(default_policy(n)) == name
    assert (threshold(default_policy(n), good(n), NONE).guarantee == "none") == (n < 19)


@pytest.mark.parametrize(("alpha", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3), (0.001, 999)])
def test_conformal_with_one_image_too_few_is_refused_with_the_number_needed(alpha: float, needed: int) -> None:
    policy = Policy(name="conformal", arguments=(alpha,))
    assert conformal_needs(alpha) == needed
    assert threshold(policy, good(needed), NONE).n_good == needed
    with pytest.raises(
        TooFewSamplesError, match=f"needs {max(needed, 1)} good calibration images, there are {needed - 1}"
    ):
        threshold(policy, good(needed - 1), NONE)


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (99, 0.01, 99), (100, 0.1, 91), (9, 0.1, 9), (199, 0.005, 199)],
)
def test_conformal_sits_a_hair_above_the_kth_smallest_score(n: int, alpha: float, k: int) -> None:
    scores = np.random.default_rng(n).permutation(good(n))
    found = threshold(Policy(name="conformal", arguments=(alpha,)), scores, NONE)
    assert found.value == math.nextafter(float(k), math.inf)
    assert f"at most {alpha:g} of good parts" in found.guarantee
    assert str(n) in found.guarantee


def test_sigma_is_the_mean_and_so_many_unbiased_deviations() -> None:
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    found = threshold(parse_policy("sigma:2.5"), scores, NONE)
    assert found.value == pytest.approx(4.0 + 2.5 * np.std(scores, ddof=1))
    assert found.guarantee == "none"


@pytest.mark.parametrize("text", ["sigma:0", "sigma:3", "quantile:1", "quantile:0.5", "conformal:0.5"])
def test_good_parts_that_all_score_the_same_are_all_accepted(text: str) -> None:
    scores = np.full(30, 0.1)
    assert threshold(parse_policy(text), scores, NONE).value > 0.1


def test_the_quantile_of_one_accepts_every_good_calibration_image() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    assert threshold(parse_policy("quantile:1"), scores, NONE).value == math.nextafter(scores.max(), math.inf)


def test_the_quantile_rejects_the_share_above_it() -> None:
    scores = np.random.default_rng(0).permutation(good(1000))
    value = threshold(parse_policy("quantile:0.99"), scores, NONE).value
    assert value == pytest.approx(np.quantile(scores, 0.99))
    assert int((scores >= value).sum()) == 10


@pytest.mark.parametrize(("share", "missed"), [(1.0, 0), (0.99, 0), (0.9, 1), (0.75, 2), (0.1, 9)])
def test_recall_rejects_the_share_of_the_defective_and_no_more_than_it_must(share: float, missed: int) -> None:
    defective = np.random.default_rng(3).normal(size=10)
    found = threshold(Policy(name="recall", arguments=(share,)), NONE, defective)
    assert int((defective < found.value).sum()) == missed
    assert found.value in defective
    assert (found.n_good, found.n_defective) == (0, 10)


@pytest.mark.parametrize("sick", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["manual:1", "sigma:3", "f1", "recall:0.5"])
def test_a_score_that_is_not_finite_is_refused_whatever_the_policy(text: str, sick: float) -> None:
    policy, whole = parse_policy(text), good(5)
    with pytest.raises(CalibrationError, match="not finite"):
        threshold(policy, np.append(whole, sick), whole)
    with pytest.raises(CalibrationError, match="not finite"):
        threshold(policy, whole, np.append(whole, sick))


@pytest.mark.parametrize("text", ["f1", "youden", "cost:10,1,0.1", "recall:0.9"])
def test_a_policy_of_defects_without_any_names_the_flag_that_gives_some(text: str) -> None:
    with pytest.raises(TooFewSamplesError, match=r"needs 1 defective .* there are 0: .*--calibration-split"):
        threshold(parse_policy(text), good(50), NONE)


@pytest.mark.parametrize(("text", "found", "needed"), [("sigma:3", 1, 2), ("quantile:0.9", 0, 1), ("f1", 0, 1)])
def test_too_few_good_images_are_refused_with_the_number_needed(text: str, found: int, needed: int) -> None:
    with pytest.raises(TooFewSamplesError, match=f"needs {needed} good calibration images, there are {found}"):
        threshold(parse_policy(text), good(found), good(3))


def test_manual_needs_no_image_at_all() -> None:
    assert threshold(parse_policy("manual:-7.25"), NONE, NONE).value == -7.25


def test_where_a_defect_costs_next_to_nothing_every_part_is_accepted() -> None:
    bad = np.array([2.5, 9.0])
    found = threshold(parse_policy("cost:0.001,1,0.001"), good(10), bad)
    assert found.value > 10.0
    assert np.isfinite(found.value)
