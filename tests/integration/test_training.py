"""Commands that train: what they leave of the training, the batch they choose, and how they go on after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.training import TrainingRecord, read_training
from trainer import devices, training

Takt = Callable[..., Any]

FLAGS = ("--method", "fastflow", "--backbone", "gabor", "--size", "64x64", "--workers", "0")
# the command itself, with a checkpoint after every step instead of every minute
SAVING_ALWAYS = (
    "import sys; from edge_runtime.cli import main; from trainer import training; "
    "training._SAVE_EVERY_S = -1.0; sys.exit(main(sys.argv[1:]))"
)


def record(path: Path) -> TrainingRecord:
    with Archive(path) as archive:
        found = read_training(archive)
    assert found is not None
    return found


def config(path: Path) -> dict[str, Any]:
    """The settings that a draft records."""
    with Archive(path) as archive:
        values: dict[str, Any] = json.loads(archive.read("draft.json"))["provenance"]["config"]
    return values


def scores(takt_here: Takt, bundle: Path, parts: Path) -> dict[str, float]:
    rows = takt_here("run", bundle, parts / "test", parts / "train", "--json").lines
    assert len(rows) == 15
    return {row["path"]: row["score"] for row in rows}


def ended_in_training(
    command: list[str], checkpoint: Path, environment: dict[str, str], end: signal.Signals = signal.SIGKILL
) -> tuple[int, str]:
    """Run a command until it has saved its state, and end it; its exit code and what it said."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    limit = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(end)
    _, said = process.communicate(timeout=100)
    return process.returncode, said


def test_ctrl_c_ends_a_fit_after_its_step_and_says_how_to_go_on(parts: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.draft.checkpoint"
    arguments = ["fit", str(parts), *FLAGS, "--steps", "100000", "--out", str(tmp_path / "x.draft")]
    code, said = ended_in_training(
        [sys.executable, "-c", SAVING_ALWAYS, *arguments], checkpoint, dict(os.environ), signal.SIGINT
    )

    assert code == 130
    assert "of 100000: the same command with --resume goes on" in said
    assert checkpoint.is_file()


@pytest.mark.slow
def test_a_build_that_was_killed_and_resumed_scores_as_an_unbroken_one(
    takt: Takt, takt_here: Takt, parts: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.takt", tmp_path / "out/part.takt"
    out.parent.mkdir()
    checkpoint = out.with_name("part.takt.checkpoint")
    arguments = ["build", str(parts), *FLAGS, "--steps", "40", "--out"]
    assert takt("build", parts, *FLAGS, "--steps", "40", "--out", whole).code == 0
    (tmp_path / "temporary").mkdir()
    code, said = ended_in_training(
        [sys.executable, "-c", SAVING_ALWAYS, *arguments, str(out)],
        checkpoint,
        os.environ | {"TMPDIR": str(tmp_path / "temporary"), "HF_HUB_OFFLINE": "1"},
    )

    assert code == -signal.SIGKILL, said
    assert not out.exists()
    assert 0 < torch.load(checkpoint)["progress"]["step"] < 40
    resumed = takt("build", parts, *FLAGS, "--steps", "40", "--resume", "--out", out)
    assert resumed.code == 0, resumed.err
    assert list(out.parent.iterdir()) == [out]
    assert record(out) == record(whole)
    assert scores(takt_here, out, parts) == pytest.approx(scores(takt_here, whole, parts), rel=1e-6, abs=1e-6)


def test_a_bundle_tells_of_its_training_in_a_line_and_in_its_reports(
    takt_here: Takt, parts: Path, tmp_path: Path
) -> None:
    out, again = tmp_path / "part.takt", tmp_path / "again.takt"
    built = takt_here("build", parts, *FLAGS, "--steps", "3", "--out", out, "--report", tmp_path / "built", "--json")
    assert built.code == 0, built.err

    found = record(out)
    assert (found.steps_asked, found.steps_made, found.step, found.validation_step) == (3, 3, (1, 2, 3), (3,))
    shown = takt_here("bundle", "show", out).out
    assert f"training     3 of 3 steps, to the end, state of step 3 kept; last loss {found.loss[-1]:.4g}\n" in shown
    assert takt_here("evaluate", out, parts, "--report", tmp_path / "evaluated").code == 0
    assert takt_here("bundle", "show", out, "--report", tmp_path / "sealed.html").code == 0
    for page in (tmp_path / "built/index.html", tmp_path / "evaluated/index.html", tmp_path / "sealed.html"):
        text = page.read_text(encoding="utf-8")
        assert '<a href="#training">' in text
        assert re.search(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="Loss by step: 3 of 3 steps', text)
    assert takt_here("calibrate", out, parts, "--out", again, "--policy", "quantile:1").code == 0
    assert record(again) == found


def test_a_bundle_fitted_in_one_pass_tells_of_no_training(takt_here: Takt, small: Any, tmp_path: Path) -> None:  # noqa: ANN401
    with Archive(small.bundle) as archive:
        assert read_training(archive) is None
    assert "training" not in takt_here("bundle", "show", small.bundle).out
    assert takt_here("bundle", "show", small.bundle, "--report", tmp_path / "x.html").code == 0
    assert "training" not in (tmp_path / "x.html").read_text(encoding="utf-8").partition("<main")[2]


def test_the_batch_that_auto_chose_is_said_and_recorded_and_fits_the_same_model(
    takt_here: Takt, parts: Path, tmp_path: Path
) -> None:
    drafts = {batch: tmp_path / f"{batch}.draft" for batch in ("auto", "4")}
    said = {}
    for batch, draft in drafts.items():
        ran = takt_here("fit", parts, *FLAGS, "--steps", "2", "--batch", batch, "--out", draft)
        assert ran.code == 0, ran.err
        said[batch] = ran.err.splitlines()

    assert said["auto"][0] == "takt: --batch auto: 4 tiles in a batch"  # of the 7 that are left to fit to
    assert said["auto"][1:] == said["4"]
    assert config(drafts["auto"]) == config(drafts["4"])
    with Archive(drafts["auto"]) as auto, Archive(drafts["4"]) as four:
        assert auto.read("graphs/tile.onnx") == four.read("graphs/tile.onnx")


def test_auto_takes_the_batch_of_the_fit_that_it_resumes(
    takt_here: Takt, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.draft", tmp_path / "x.draft"
    assert takt_here("fit", parts, *FLAGS, "--steps", "4", "--batch", "2", "--out", whole).code == 0
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    check = training._check  # noqa: SLF001 - the one place that knows the step

    def cut(value: float, progress: Any, schedule: training.Schedule) -> None:  # noqa: ANN401
        check(value, progress, schedule)
        if progress.step == 3:
            raise KeyboardInterrupt

    flags = (*FLAGS, "--steps", "4", "--batch", "auto", "--out", out)
    monkeypatch.setattr(training, "_check", cut)
    monkeypatch.setattr(devices, "MAX_BATCH", 2)
    assert takt_here("fit", parts, *flags).code == 130
    monkeypatch.setattr(training, "_check", check)
    monkeypatch.setattr(devices, "MAX_BATCH", 64)
    other = takt_here("fit", parts, *flags[:-3], "4", "--out", out, "--resume")
    assert other.code == 2
    assert "of batch 2 where this one has 4" in other.err
    resumed = takt_here("fit", parts, *flags, "--resume")

    assert resumed.code == 0, resumed.err
    chosen, needs = resumed.err.splitlines()
    assert chosen == "takt: --batch auto: 2 tiles in a batch"
    assert needs.startswith("takt: fastflow: the fit takes about ")
    with Archive(whole) as expected, Archive(out) as found:
        assert found.read("graphs/tile.onnx") == expected.read("graphs/tile.onnx")
    nothing = takt_here("fit", parts, *flags, "--resume")
    assert nothing.code == 2
    assert "does not exist" in nothing.err


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_another_batch_is_a_fault_of_usage(takt_here: Takt, parts: Path, tmp_path: Path, value: str) -> None:
    ran = takt_here("fit", parts, "--batch", value, "--out", tmp_path / "x.draft")

    assert ran.code == 2
    assert "batch" in ran.err


def test_a_gpu_that_is_full_after_all_is_a_message_and_no_traceback(
    takt_here: Takt, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("trainer.models.frozen.train", full)
    ran = takt_here("fit", parts, *FLAGS, "--out", tmp_path / "x.draft")

    assert ran.code == 2
    assert ran.err.splitlines()[-1] == (
        "takt fit: --method fastflow: the GPU's memory is full at batches of 8: give --batch auto, or a smaller one"
    )
