"""What is written down of a training: thinned, whole after a resumption, and what the bundle holds of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.training_loop import (
    SCHEDULE,
    PowerCut,
    Tiles,
    constant,
    cut_after,
    network,
    pull,
    saving_always,
    squares,
    weight,
)

from edge_runtime.bundle.training import dump_training, parse_training
from edge_runtime.errors import ManifestError
from trainer import history
from trainer.history import History
from trainer.models.method import FitSettings
from trainer.training import train


def test_every_loss_is_kept_with_its_step_and_rate_while_they_are_few() -> None:
    settings = FitSettings(seed=0)
    schedule = replace(SCHEDULE, steps=4, learning_rate=0.5, drop_at=(0.5,))
    model = weight()
    losses = train(model, Tiles(), pull(model), schedule, settings)
    record = settings.history.record()

    assert record is not None
    assert (record.steps_asked, record.steps_made, record.kept_step, record.ended_early) == (4, 4, 4, False)
    assert record.step == (1, 2, 3, 4)
    assert list(record.loss) == losses
    assert record.learning_rate == pytest.approx((0.5, 0.5, 0.05, 0.05))
    assert record.validation_step == ()


@pytest.mark.parametrize("steps", [10, 11, 20, 21, 37, 160])
def test_a_long_training_is_thinned_to_means_of_spans_of_one_length(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "POINTS", 10)
    kept = History(asked=steps)
    for step in range(1, steps + 1):
        kept.add(float(step), 1 / step)
    record = kept.record()

    assert record is not None
    assert 5 <= len(record.loss) <= 10
    starts = (0, *record.step[:-1])
    assert record.step[-1] == steps
    assert {stop - start for start, stop in zip(starts[:-1], record.step[:-1], strict=True)} == {kept.span}
    means = [(start + 1 + stop) / 2 for start, stop in zip(starts, record.step, strict=True)]
    assert record.loss == pytest.approx(means)
    assert record.learning_rate == pytest.approx([1 / step for step in record.step])


def test_looks_are_thinned_too_and_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "POINTS", 10)
    kept = History(asked=25)
    for step in range(1, 26):
        kept.look(step, float(step), best=step == 7)
    record = kept.record()

    assert record is not None
    assert record.validation_step == (1, 4, 7, 10, 13, 16, 19, 22, 25)
    assert record.validation_loss == record.validation_step
    assert record.kept_step == 7


def test_an_early_stop_is_told_with_the_step_whose_state_was_kept() -> None:
    settings, model = FitSettings(seed=0), weight()
    scores = iter([5.0, 3.0, 4.0, 3.0])
    schedule = replace(SCHEDULE, steps=100, check_every=2, patience=2)
    train(model, Tiles(), pull(model), schedule, settings, validate=lambda: next(scores))
    record = settings.history.record()

    assert record is not None
    assert (record.steps_asked, record.steps_made, record.kept_step, record.ended_early) == (100, 8, 4, True)
    assert record.validation_step == (2, 4, 6, 8)
    assert record.validation_loss == (5.0, 3.0, 4.0, 3.0)
    assert record.in_words().startswith("8 of 100 steps, ended early, state of step 4 kept; last loss ")


def test_a_resumed_training_has_the_whole_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving_always(monkeypatch)
    monkeypatch.setattr(history, "POINTS", 4)
    schedule = replace(SCHEDULE, check_every=3, patience=100)
    found = []
    for cut in (None, 7):
        settings, model = FitSettings(seed=1, checkpoint=tmp_path / "x.checkpoint"), network()
        if cut is not None:
            with pytest.raises(PowerCut):
                train(model, Tiles(), cut_after(cut, squares(model)), schedule, settings, validate=lambda: 1.0)
            settings, model = replace(settings, resume=True, history=History()), network()
        train(model, Tiles(), squares(model), schedule, settings, validate=lambda: 1.0)
        found.append(settings.history.record())

    assert found[0] == found[1]
    assert found[0] is not None
    assert found[0].steps_made == 12


def test_a_second_training_with_the_same_settings_begins_a_history_of_its_own() -> None:
    settings = FitSettings(seed=0, steps=2)
    for values in ([3.0, 2.0], [1.0, 0.5]):
        model = weight()
        train(model, Tiles(), constant(values, model), SCHEDULE, settings)

    record = settings.history.record()
    assert record is not None
    assert record.loss == (1.0, 0.5)


def test_a_record_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() -> None:
    kept = History(asked=3)
    kept.add(2.5, 1e-3)
    record = kept.record()
    assert record is not None
    data = dump_training(record)

    assert parse_training(data, "part.takt") == record
    for spoilt in (
        b"",
        b"[]",
        data.replace(b"2.5", b'"2.5"'),
        data.replace(b"2.5", b"2.5, 3.5"),
        data.replace(b'"loss"', b'"lost"'),
    ):
        with pytest.raises(ManifestError, match=r"part\.takt: training\.json: .*rebuild the bundle"):
            parse_training(spoilt, "part.takt")


def test_what_was_fitted_in_one_pass_has_no_record() -> None:
    assert FitSettings(seed=0).history.record() is None
