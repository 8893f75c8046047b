"""The loop of methods that are trained by gradients: losses, early stop, rates, orders."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.training_loop import SCHEDULE, Tiles, constant, network, pull, squares, weight
from torch import Tensor

from edge_runtime.errors import DataError
from trainer.models.method import FitSettings, TileBatch
from trainer.training import Schedule, train


def test_another_seed_gives_other_weights_and_the_same_seed_the_same() -> None:
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        train(model, Tiles(), squares(model), SCHEDULE, FitSettings(seed=seed))

    first, second, other = (model[0].weight for model in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_each_epoch_has_an_order_of_its_own_and_the_same_fit_the_same_orders() -> None:
    seen = []
    for _ in range(2):
        tiles, model = Tiles(), network()
        train(model, tiles, squares(model), SCHEDULE, FitSettings(seed=7))
        seen.append(tiles.orders)

    assert seen[0] == seen[1]
    assert len(seen[0]) == 3  # 12 steps of 5 batches an epoch
    assert len({tuple(order) for order in seen[0]}) == 3
    assert all(sorted(order) == list(range(9)) for order in seen[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused_with_its_step_and_leaves_the_weights_alone(value: float) -> None:
    model = weight()
    with pytest.raises(DataError, match=r"broke down at step 3: the loss is .*began at 0\.5"):
        train(model, Tiles(), constant([0.5, 0.4, value], model), SCHEDULE, FitSettings(seed=0))

    assert torch.isfinite(model.weight).all()


def test_a_loss_that_runs_away_is_refused_with_its_step() -> None:
    model = weight()
    with pytest.raises(DataError, match=r"broke down at step 2: the loss is 40000 .*began at 3"):
        train(model, Tiles(), constant([3.0, 40_000.0], model), SCHEDULE, FitSettings(seed=0))


def test_a_loss_may_fall_as_far_as_it_likes() -> None:
    model = weight()
    values = [3.0, -40_000.0]

    assert train(model, Tiles(), constant(values, model), replace(SCHEDULE, steps=2), FitSettings(seed=0)) == values


def test_a_validation_loss_that_is_no_number_is_refused_with_its_step() -> None:
    model = weight()
    schedule = replace(SCHEDULE, check_every=2)
    with pytest.raises(DataError, match=r"broke down at step 2: the loss of the validation share is nan"):
        train(model, Tiles(), pull(model), schedule, FitSettings(seed=0), validate=lambda: math.nan)


def test_the_early_stop_ends_after_looks_without_gain_and_keeps_the_best_state() -> None:
    model = weight()
    schedule = replace(SCHEDULE, steps=100, check_every=2, patience=2)
    weights: list[float] = []
    scores = iter([5.0, 3.0, 4.0, 3.0])  # equal is no gain

    def validate() -> float:
        assert not model.training
        weights.append(model.weight.item())
        return next(scores)

    losses = train(model, Tiles(), pull(model), schedule, FitSettings(seed=0), validate=validate)

    assert len(losses) == 8
    assert model.weight.item() == weights[1]
    assert len(set(weights)) == 4
    assert model.training


def test_the_last_step_is_looked_at_too() -> None:
    model = weight()
    looks: list[float] = []

    def validate() -> float:
        looks.append(model.weight.item())
        return -looks[-1]

    schedule = replace(SCHEDULE, steps=5, check_every=2)
    train(model, Tiles(), pull(model), schedule, FitSettings(seed=0), validate=validate)

    assert len(looks) == 3
    assert model.weight.item() == looks[-1]


def test_the_rate_drops_after_the_shares_of_the_steps_that_the_schedule_names() -> None:
    model = weight()
    places: list[float] = []

    def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:
        places.append(model.weight.item())
        return pull(model)(batch, generator)

    schedule = Schedule(steps=10, learning_rate=0.5, drop_at=(0.3, 0.8), drop_by=0.1)
    train(model, Tiles(), loss, schedule, FitSettings(seed=0))
    places.append(model.weight.item())

    strides = [after - before for before, after in pairwise(places)]
    # under a constant gradient each of Adam's steps is the rate
    assert strides == pytest.approx([0.5] * 3 + [0.05] * 5 + [0.005] * 2, rel=1e-3)


def test_steps_of_the_user_stand_in_for_the_schedules_and_move_the_drops_along() -> None:
    model = weight()
    schedule = Schedule(steps=1000, learning_rate=0.5, drop_at=(0.5,))

    assert len(train(model, Tiles(), pull(model), schedule, FitSettings(seed=0, steps=4))) == 4
    assert model.weight.item() == pytest.approx(2 * 0.5 + 2 * 0.05, rel=1e-3)


def test_a_rate_of_the_user_stands_in_for_the_schedules_and_drops_like_it() -> None:
    model = weight()
    settings = FitSettings(seed=0, learning_rate=0.2)
    train(model, Tiles(), pull(model), Schedule(steps=4, learning_rate=0.5, drop_at=(0.5,)), settings)
    assert model.weight.item() == pytest.approx(2 * 0.2 + 2 * 0.02, rel=1e-3)
    assert settings.history.rates == pytest.approx([0.2, 0.2, 0.02, 0.02])


def test_gradients_are_clipped_to_the_norm_given() -> None:
    norms: list[float] = []
    for clip in (None, 0.25):
        model = weight()
        train(model, Tiles(), pull(model, 100.0), replace(SCHEDULE, steps=1, clip_norm=clip), FitSettings(seed=0))
        norms.append(float(model.weight.grad.abs()))  # type: ignore[union-attr]

    assert norms == pytest.approx([100.0, 0.25], rel=1e-4)


def test_what_requires_no_gradient_stays_as_it_is() -> None:
    model = network()
    model[0].requires_grad_(requires_grad=False)
    before = model[0].weight.clone()
    train(model, Tiles(), squares(model), SCHEDULE, FitSettings(seed=0))

    assert torch.equal(model[0].weight, before)


def test_data_without_a_tile_are_refused() -> None:
    model = weight()
    with pytest.raises(DataError, match="no tile to train on"):
        train(model, Tiles(torch.empty(0, 1, 1, 1)), pull(model), SCHEDULE, FitSettings(seed=0))
