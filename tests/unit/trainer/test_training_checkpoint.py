"""Checkpoints of the training loop: what is resumed, how they are written, and which are refused."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from support.training_loop import SCHEDULE, PowerCut, Tiles, cut_after, network, pull, saving_always, squares, weight
from torch import nn

from edge_runtime.errors import ConfigError
from trainer import training
from trainer.models.method import FitSettings
from trainer.training import Schedule, train


@pytest.mark.parametrize("done", [1, 4, 5, 6, 11])
def test_a_fit_that_is_broken_off_and_resumed_gives_the_weights_of_an_unbroken_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    saving_always(monkeypatch)
    schedule = replace(SCHEDULE, drop_at=(0.5,), check_every=3, patience=100)
    settings = FitSettings(seed=1, checkpoint=tmp_path / "x.checkpoint")

    def look(model: nn.Module) -> Callable[[], float]:
        return lambda: float(model(torch.ones(1, 1)).abs())

    whole, broken, resumed = network(), network(), network()
    expected = train(whole, Tiles(), squares(whole), schedule, settings, validate=look(whole))
    with pytest.raises(PowerCut):
        train(broken, Tiles(), cut_after(done, squares(broken)), schedule, settings, validate=look(broken))
    again = replace(settings, resume=True)
    found = train(resumed, Tiles(), squares(resumed), schedule, again, validate=look(resumed))

    assert found == expected[done:]
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert list(tmp_path.iterdir()) == []  # a fit that is done leaves no checkpoint


def broken_off(path: Path, schedule: Schedule = SCHEDULE, tiles: Tiles | None = None) -> None:
    """Leave the checkpoint of a fit with seed 1 that lost power in its fifth step."""
    model = network()
    with pytest.raises(PowerCut):
        train(
            model,
            tiles or Tiles(),
            cut_after(4, squares(model)),
            schedule,
            FitSettings(seed=1, checkpoint=path),
        )


def resume(path: Path, *, seed: int = 1, steps: int | None = None, schedule: Schedule = SCHEDULE) -> None:
    model = network()
    settings = FitSettings(seed=seed, steps=steps, checkpoint=path, resume=True)
    train(model, Tiles(), squares(model), schedule, settings)


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving_always(monkeypatch)
    path = tmp_path / "x.checkpoint"
    broken_off(path)
    before = path.read_bytes()
    save = torch.save

    def half(state: object, file: object) -> None:
        save(state, file)
        file.truncate(100)  # type: ignore[attr-defined]
        raise PowerCut

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(PowerCut):
        resume(path)

    assert path.read_bytes() == before
    monkeypatch.setattr(torch, "save", save)
    resume(path)


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_olds_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving_always(monkeypatch)
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        order.append("fsync")
        sync(descriptor)

    def noted_rename(source: Path, target: Path) -> Path:
        order.append("rename")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    broken_off(tmp_path / "x.checkpoint")

    assert order == ["fsync", "rename"] * 4


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_half_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    saving_always(monkeypatch)
    path = tmp_path / "x.checkpoint"
    broken_off(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(ConfigError, match="is not a checkpoint of this fit"):
        resume(path)


@pytest.mark.parametrize(
    "content",
    [b"a text", b"\x80\x04.", b"PK\x03\x04", b"cos\nsystem\n(S'true'\ntR."],
    ids=["text", "pickle", "zip", "code"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.checkpoint"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="is not a checkpoint of this fit"):
        resume(path)


@pytest.mark.parametrize("state", [torch.zeros(3), {}, {"identity": 3}, [1, 2]], ids=["tensor", "empty", "odd", "list"])
def test_tensors_that_are_no_checkpoint_are_refused(tmp_path: Path, state: object) -> None:
    path = tmp_path / "x.checkpoint"
    torch.save(state, path)

    with pytest.raises(ConfigError, match="is not a checkpoint of this fit"):
        resume(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving_always(monkeypatch)
    path = tmp_path / "x.checkpoint"
    broken_off(path)
    model = weight()

    with pytest.raises(ConfigError, match="is not a checkpoint of this fit"):
        train(model, Tiles(), pull(model), SCHEDULE, FitSettings(seed=1, checkpoint=path, resume=True))


def test_a_checkpoint_of_another_fit_is_refused_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving_always(monkeypatch)
    path = tmp_path / "x.checkpoint"
    broken_off(path)

    with pytest.raises(ConfigError, match="of seed 1 where this one has 2"):
        resume(path, seed=2)
    with pytest.raises(ConfigError, match="of steps 12 where this one has 20"):
        resume(path, steps=20)
    with pytest.raises(ConfigError, match=r"of learning rate 0\.05 where this one has 0\.1"):
        resume(path, schedule=replace(SCHEDULE, learning_rate=0.1))
    broken_off(path, tiles=Tiles(torch.arange(1, 10, dtype=torch.uint8).reshape(9, 1, 1, 1)))
    with pytest.raises(ConfigError, match="of other images"):
        resume(path)


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        resume(tmp_path / "x.checkpoint")


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), RuntimeError("enforce fail\nat inline_container")]
)
def test_a_checkpoint_that_cannot_be_written_ends_no_fit_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    saving_always(monkeypatch)
    settings = FitSettings(seed=1, checkpoint=tmp_path / "x.checkpoint")
    plain, short = network(), network()
    expected = train(plain, Tiles(), squares(plain), SCHEDULE, settings)

    def full(state: object, file: BinaryIO) -> None:  # noqa: ARG001 - as torch's
        file.write(b"half of it")
        raise fault

    monkeypatch.setattr(torch, "save", full)
    assert train(short, Tiles(), squares(short), SCHEDULE, settings) == expected
    assert "cannot be written" in caplog.text
    assert "inline_container" not in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_settings_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving_always(monkeypatch)
    path = tmp_path / "x.checkpoint"
    model = network()
    settings = FitSettings(seed=1, checkpoint=path, identity={"method": "draem", "--width": "0.5"})
    with pytest.raises(PowerCut):
        train(model, Tiles(), cut_after(4, squares(model)), SCHEDULE, settings)
    for other, message in (
        ({"method": "fastflow", "--width": "0.5"}, "of method draem where this one has fastflow"),
        ({"method": "draem", "--width": "0.25"}, "of --width 0.5 where this one has 0.25"),
        ({"method": "draem", "--width": "0.5", "pictures": "ab"}, "of pictures None where this one has ab"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(model, Tiles(), squares(model), SCHEDULE, replace(settings, identity=other, resume=True))


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = FitSettings(seed=1, checkpoint=tmp_path / "x.checkpoint")
    whole, stopped, resumed = network(), network(), network()
    expected = train(whole, Tiles(), squares(whole), SCHEDULE, settings)

    @contextmanager
    def pressed_in_the_fifth_step(*, alone: bool) -> Iterator[Callable[[], bool]]:
        steps = itertools.count(1)
        yield lambda: alone and next(steps) == 5

    monkeypatch.setattr(training, "_interrupts", pressed_in_the_fifth_step)
    with caplog.at_level(logging.INFO, logger="takt"), pytest.raises(KeyboardInterrupt):
        train(stopped, Tiles(), squares(stopped), SCHEDULE, settings)
    monkeypatch.undo()

    assert "stopped after step 5 of 12: the same command with --resume goes on" in caplog.text
    assert train(resumed, Tiles(), squares(resumed), SCHEDULE, replace(settings, resume=True)) == expected[5:]


def test_where_no_bar_is_shown_a_line_a_minute_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training, "_TELL_EVERY_S", -1.0)
    model = network()
    with caplog.at_level(logging.INFO, logger="takt"):
        train(model, Tiles(), squares(model), SCHEDULE, FitSettings(seed=1))
    assert "train: step 12 of 12, loss " in caplog.text
