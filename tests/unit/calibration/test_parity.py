"""Parity: what counts as the same, what counts as a flip, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.parity import (
    TOLERANCE,
    ParityMeasurement,
    ParityScore,
    ReferenceScore,
    dump_parity,
    evidence,
    load_parity,
    measure,
    recount,
    require,
)
from edge_runtime.bundle.manifest import RegionThresholds
from edge_runtime.engines import Precision
from edge_runtime.errors import BundleError, ParityError
from edge_runtime.imaging.maps import Map

REGIONS = ("left", "right")


def reference(frame: str, score: float, values: tuple[float, float], region: str = "left") -> ReferenceScore:
    return ReferenceScore(frame, "original", region, score, np.array([values], np.float32))


REFERENCES = [reference("a", 1.0, (0.0, 10.0)), reference("b", 5.0, (2.0, 4.0)), reference("c", 3.0, (1.0, 1.0))]


def found(*offsets: float, score: float = 0.0) -> list[tuple[float, Map]]:
    """What an artefact gave: torch's maps, each off by so much, and scores off by `score`."""
    return [(r.score + score, r.map + np.float32(off)) for r, off in zip(REFERENCES, offsets, strict=True)]


def thresholds(**reject: float) -> dict[str, RegionThresholds]:
    return {
        name: RegionThresholds(
            reject=value,
            review=None,
            pixel=None,
            policy="manual",
            guarantee="none",
            n_good=0,
            n_defective=0,
            display_low=0.0,
            display_high=1.0,
        )
        for name, value in reject.items()
    }


def scored(*pairs: tuple[float, float], region: str = "left") -> tuple[ParityScore, ...]:
    """Torch's and the artefact's score of so many frames."""
    return tuple(ParityScore(f"f{i}", "original", region, a, b) for i, (a, b) in enumerate(pairs))


def measured(scores: tuple[ParityScore, ...], precision: Precision = Precision.F32) -> ParityMeasurement:
    """A measurement whose scores reach over a range of 10: 0.01 is too near to tell."""
    return ParityMeasurement(
        precision=precision,
        scores=scores,
        map_range=10.0,
        map_max_abs=0.0,
        score_range=10.0,
        score_max_abs=0.0,
        worst="f0",
    )


def test_ranges_and_differences_are_over_all_frames_and_the_worst_frame_is_named() -> None:
    result = measure(Precision.F32, REFERENCES, found(0.001, -0.5, 0.002, score=0.25))
    assert (result.map_range, result.score_range) == (10.0, 4.0)
    assert result.map_max_abs == pytest.approx(0.5)
    assert result.score_max_abs == pytest.approx(0.25)
    assert result.worst == "b (original), region left"
    assert result.scores[1] == ParityScore("b", "original", "left", 5.0, 5.25)


def test_where_all_scores_are_one_the_magnitude_stands_for_the_range() -> None:
    one = [reference("a", -4.0, (2.0, 2.0))]
    result = measure(Precision.F32, one, [(-4.0, one[0].map)])
    assert (result.map_range, result.score_range) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("map_off", "score_off", "within"),
    [
        (0.0, 0.0, True),
        (0.9 * TOLERANCE * 10, 0.9 * TOLERANCE * 4, True),
        (1.1 * TOLERANCE * 10, 0.0, False),
        (0.0, 1.1 * TOLERANCE * 4, False),
    ],
)
def test_maps_and_scores_must_both_lie_within_a_thousandth_of_their_range(
    map_off: float,
    score_off: float,
    within: bool,  # noqa: FBT001
) -> None:
    result = measure(Precision.F32, REFERENCES, found(0.0, map_off, 0.0, score=score_off))
    assert result.within is within
    if within:
        require(result, "openvino-f32")
        return
    with pytest.raises(ParityError, match=r"openvino-f32 does not compute .*No bundle is made") as caught:
        require(result, "openvino-f32")
    assert result.worst in str(caught.value)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_map_that_is_not_a_number_is_never_within_wherever_it_stands(place: int) -> None:
    offsets = [math.nan if index == place else 0.0 for index in range(3)]
    result = measure(Precision.F32, REFERENCES, found(*offsets))
    assert math.isnan(result.map_max_abs)
    assert not result.within
    assert result.worst.startswith("abc"[place])
    with pytest.raises(ParityError):
        require(result, "openvino-f32")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_score_that_is_not_a_number_is_never_within_wherever_it_stands(place: int) -> None:
    results = found(0, 0, 0)
    results[place] = (math.nan, results[place][1])
    assert not measure(Precision.F32, REFERENCES, results).within


def test_a_lower_precision_is_judged_by_its_flips_and_not_by_its_maps() -> None:
    require(measure(Precision.BF16, REFERENCES, found(3.0, 3.0, 3.0)), "openvino-bf16")


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ParityError, match="no references; fit it again"):
        measure(Precision.F32, [], [])


def test_a_verdict_that_differs_from_torchs_is_a_flip_and_f32_may_have_none() -> None:
    pairs = scored((1.0, 1.0), (4.0, 6.0))
    with pytest.raises(ParityError, match="artefact x: 1 of 2 verdicts flip, allowed are 0"):
        evidence(measured(pairs), "x", thresholds(left=5.0), thresholds(left=5.0), None)
    kept = evidence(measured(pairs), "x", thresholds(left=7.0), thresholds(left=7.0), None)
    assert (kept.decision_flips, kept.near_threshold, kept.frames) == (0, (), 2)


@pytest.mark.parametrize("pair", [(4.995, 6.0), (4.0, 5.005), (5.0, 4.0)])
def test_a_frame_closer_to_the_threshold_than_the_tolerance_is_listed_and_not_counted(
    pair: tuple[float, float],
) -> None:
    kept = evidence(measured(scored((1.0, 1.0), pair)), "x", thresholds(left=5.0), thresholds(left=5.0), None)
    assert kept.decision_flips == 0
    assert kept.near_threshold == ("f1 (original), region left",)


def test_a_frame_just_beyond_the_tolerance_is_counted() -> None:
    with pytest.raises(ParityError, match="1 of 1"):
        evidence(measured(scored((4.98, 5.02))), "x", thresholds(left=5.0), thresholds(left=5.0), None)


def test_each_region_is_judged_at_its_own_threshold() -> None:
    pairs = (*scored((4.0, 6.0), region="left"), *scored((4.0, 6.0), region="right"))
    own = thresholds(left=8.0, right=2.0)
    assert evidence(measured(pairs), "x", own, own, None).decision_flips == 0
    with pytest.raises(ParityError, match="1 of 2"):
        evidence(measured(pairs), "x", own | thresholds(right=5.0), own | thresholds(right=5.0), None)


def test_a_lower_precision_is_held_against_f32s_scores_at_f32s_threshold() -> None:
    own = scored((0.0, 6.0), (0.0, 1.0))  # torch's scores do not matter here
    f32 = scored((9.0, 3.0), (9.0, 0.5))
    kept = evidence(measured(own, Precision.BF16), "b", thresholds(left=5.0), thresholds(left=2.0), f32)
    assert kept.decision_flips == 0
    with pytest.raises(ParityError, match="1 of 2"):
        evidence(measured(own, Precision.BF16), "b", thresholds(left=5.0), thresholds(left=4.0), f32)


@pytest.mark.parametrize(("flips", "allowed"), [(2, True), (3, False)])
def test_bf16_may_flip_two_of_a_hundred_verdicts(flips: int, allowed: bool) -> None:  # noqa: FBT001
    pairs = scored(*[(4.0, 6.0 if index < flips else 4.0) for index in range(100)])
    limits = thresholds(left=5.0)
    if not allowed:
        with pytest.raises(ParityError, match="3 of 100 verdicts flip, allowed are 2"):
            evidence(measured(pairs, Precision.BF16), "b", limits, limits, None)
        return
    kept = evidence(measured(pairs, Precision.BF16), "b", limits, limits, None)
    assert (kept.decision_flips, kept.flip_limit) == (2, 2)


def test_the_evidence_keeps_what_was_measured_and_on_how_many_frames_of_each_kind() -> None:
    pairs = (*scored((1.0, 1.0), (2.0, 2.0)), replace(scored((3.0, 3.0))[0], variant="painted"))
    result = replace(measured(pairs), map_max_abs=0.25, score_max_abs=0.125)
    kept = evidence(result, "x", thresholds(left=9.0), thresholds(left=9.0), None)
    assert kept.kinds == {"original": 2, "painted": 1}
    assert (kept.map_range, kept.map_max_abs, kept.score_max_abs, kept.tolerance) == (10.0, 0.25, 0.125, TOLERANCE)


def test_flips_are_counted_anew_at_other_thresholds_from_stored_scores_alone() -> None:
    pairs = scored((4.0, 6.0), (1.0, 1.0))
    first = evidence(measured(pairs), "x", thresholds(left=8.0), thresholds(left=8.0), None)
    stored = load_parity(dump_parity(pairs), "member")
    assert stored == pairs
    again = recount(first, "x", stored, thresholds(left=6.0), thresholds(left=6.0), None)
    assert again.near_threshold == ("f0 (original), region left",)
    with pytest.raises(ParityError):
        recount(first, "x", stored, thresholds(left=5.0), thresholds(left=5.0), None)


@pytest.mark.parametrize("data", [b"", b"3", b"[{}]", b'[{"frame": "a"}]'])
def test_a_member_of_another_form_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"calibration/x\.json holds no parity scores"):
        load_parity(data, "calibration/x.json")
