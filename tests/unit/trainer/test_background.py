"""The background: what is usual at each place, and whether it is worth anything."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.toys import BrightnessEngine, make_recipe

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.bundle.store import array_from
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.scorer import Scorer
from trainer.background import MIN_FRAMES, MIN_GAIN, choose_background, estimate, worth
from trainer.config import BuildConfig
from trainer.flags import check_flags
from trainer.models.registry import find_method
from trainer.plan import validation_share
from trainer.processes import Processes

SHAPE = (12, 16)


def maps(count: int, spread: NDArray[Any], seed: int = 0) -> list[NDArray[np.float32]]:
    """Good maps around 5 with a deviation of their own at each place."""
    draw = np.random.default_rng(seed)
    return [(5 + spread * draw.standard_normal(SHAPE)).astype(np.float32) for _ in range(count)]


def restless() -> NDArray[Any]:
    """A fixed view: a twentieth of the places varies ten times as much as the rest."""
    spread = np.full(SHAPE, 0.1)
    spread.flat[::20] = 1.0
    return spread


def wandering(count: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """The same restless places, but somewhere else in every frame."""
    draw = np.random.default_rng(seed)
    found = maps(count, restless(), seed)
    return [np.roll(grid, draw.integers(0, 12, 2), axis=(0, 1)) for grid in found]


def test_the_estimate_is_mean_and_deviation_drawn_towards_the_common_one() -> None:
    known = maps(500, restless())
    found = estimate(known)
    assert np.abs(found.mean - 5).max() < 0.2
    assert np.allclose(found.spread, restless(), rtol=0.25)
    few = estimate(known[:3])
    common = np.stack(known[:3]).var(axis=0, ddof=1).mean() ** 0.5
    own = np.stack(known[:3]).std(axis=0, ddof=1)
    assert (np.abs(few.spread - common) < np.abs(own - common)).mean() > 0.9


def test_standardised_values_are_deviations_from_the_mean_of_their_place() -> None:
    mean = np.arange(192, dtype=np.float32).reshape(SHAPE)
    background = Background(mean, np.full(SHAPE, 2, np.float32))
    assert np.array_equal(background.standardise(mean + 6), np.full(SHAPE, 3, np.float32))


def test_maps_that_are_all_alike_have_a_spread_that_can_be_divided_by() -> None:
    background = estimate([np.full(SHAPE, 5, np.float32)] * 4)
    assert (background.spread > 0).all()
    assert np.array_equal(background.standardise(np.full(SHAPE, 5, np.float32)), np.zeros(SHAPE))


def test_restless_places_make_a_background_worth_having_and_wandering_ones_do_not() -> None:
    assert worth(maps(32, restless()), None, 1) > 1.5
    assert worth(wandering(32), None, 1) < MIN_GAIN
    assert worth(maps(32, np.full(SHAPE, 0.3)), None, 1) < MIN_GAIN


def test_only_valid_places_are_asked() -> None:
    calm = np.ones(SHAPE, np.bool_)
    calm.flat[::20] = False
    known = maps(32, restless())
    assert worth(known, calm, 1) < MIN_GAIN < worth(known, None, 1)


def scorer_of(tmp_path: Path, count: int, *, fixed: bool) -> tuple[Scorer, list[Path]]:
    """Frames of which one column flickers, the same or another one in each, and a scorer that sees brightness."""
    draw = np.random.default_rng(1)
    paths = []
    for index in range(count):
        pixels = draw.integers(100, 104, (48, 64), dtype=np.uint8)
        column = 8 * (3 if fixed else int(draw.integers(8)))
        pixels[:, column : column + 8] += draw.integers(0, 120, dtype=np.uint8)
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), pixels)
    recipe = make_recipe(frame=Size(64, 48))
    return Scorer(recipe, BrightnessEngine(recipe), valid_areas={}), paths


def test_a_fixed_view_gets_a_background_and_the_score_sees_what_it_hid(tmp_path: Path) -> None:
    scorer, paths = scorer_of(tmp_path, 24, fixed=True)
    chosen = choose_background(scorer, paths, always=False)
    assert chosen is not None
    assert chosen.spec.frames == 24
    assert chosen.spec.gain >= MIN_GAIN
    ((member, data),) = chosen.members.items()
    assert chosen.spec.members == {"all": member}
    assert np.array_equal(array_from(data, member)[1], chosen.backgrounds["all"].spread)
    judged = Scorer(scorer.recipe, scorer.engine, valid_areas={}, backgrounds=chosen.backgrounds)
    pixels = np.full((48, 64), 102, np.uint8)
    pixels[:, 24:32] = 160  # the column flickers, as it does
    flickers = Frame(pixels.copy(), PixelFormat.MONO8)
    pixels[:, 24:32] = 102
    pixels[8:16, 48:56] = 130  # a mark where it is always quiet
    marked = Frame(pixels, PixelFormat.MONO8)
    raw = [scorer.score(frame).regions[0].image_score for frame in (flickers, marked)]
    against = [judged.score(frame).regions[0].image_score for frame in (flickers, marked)]
    assert raw[0] > raw[1]
    assert against[0] < against[1]
    assert np.array_equal(judged.score(marked).regions[0].plane_map, scorer.score(marked).regions[0].plane_map)


def test_parts_that_lie_anywhere_get_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    scorer, paths = scorer_of(tmp_path, 24, fixed=False)
    assert choose_background(scorer, paths, always=False) is None
    assert choose_background(scorer, paths, always=True) is not None


def test_a_model_that_gives_no_numbers_gets_no_background(tmp_path: Path) -> None:
    scorer, paths = scorer_of(tmp_path, 4, fixed=True)
    engine = BrightnessEngine(scorer.recipe)
    run = engine.run

    def sick() -> Any:  # noqa: ANN401
        output = run()
        output.map[:] = np.nan
        return output

    engine.run = sick  # type: ignore[method-assign]
    assert choose_background(Scorer(scorer.recipe, engine, valid_areas={}), paths, always=True) is None


@pytest.mark.parametrize("rule", [ImageScoreRule.MAX_RAW, ImageScoreRule.POOLED_MAX, ImageScoreRule.MAX_SMOOTHED])
def test_a_background_of_zero_and_one_changes_no_score(rule: ImageScoreRule) -> None:
    recipe = make_recipe(frame=Size(64, 48), rule=rule, sigma=4.0)
    none = Background(np.zeros((6, 8), np.float32), np.ones((6, 8), np.float32))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    frame = Frame(pixels, PixelFormat.MONO8)
    engine = BrightnessEngine(recipe)
    plain = Scorer(recipe, engine, valid_areas={}).score(frame).regions[0].image_score
    assert Scorer(recipe, engine, valid_areas={}, backgrounds={"all": none}).score(frame).regions[
        0
    ].image_score == pytest.approx(plain)
    high = Background(np.full((6, 8), 50, np.float32), np.full((6, 8), 2, np.float32))
    found = Scorer(recipe, engine, valid_areas={}, backgrounds={"all": high}).score(frame).regions[0].image_score
    assert found == pytest.approx((plain - 50) / 2, rel=1e-5)


class Good:
    """A data set of so many good images."""

    def __init__(self, count: int) -> None:
        """Of `count` images, all good."""
        self.count = count

    def select(self, **_: object) -> range:
        """All of them."""
        return range(self.count)


@pytest.mark.parametrize(
    ("images", "flags", "share"),
    [
        (200, {}, 0.1),
        (200, {"background": "off"}, 0.0),
        (200, {"method": "spade"}, 0.0),
        (8 * MIN_FRAMES, {}, 0.0),
        (20, {"background": "on"}, 0.1),
        (20, {"validation": 0.3}, 0.3),
        (20, {"method": "fastflow"}, 0.1),
    ],
)
def test_images_are_set_apart_where_there_are_enough_for_a_background(
    images: int, flags: dict[str, Any], share: float
) -> None:
    config = BuildConfig(**flags)
    assert validation_share(config, find_method(config.method), Good(images)) == share  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"method": "spade", "background": "on"}, "--background on: the image score of spade comes from its graph"),
        ({"method": "spade", "validation": 0.1}, "--validation: the method spade has no use for images"),
        ({"background": "off", "validation": 0.1}, "--validation: the method patchcore has no use for images"),
    ],
)
def test_a_background_that_cannot_be_used_is_refused(flags: dict[str, Any], said: str) -> None:
    config = BuildConfig(**flags)
    with pytest.raises(ConfigError, match=said):
        check_flags(config, find_method(config.method), Processes(), resume=False)
