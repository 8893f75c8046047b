"""One fit in several real processes, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import shared_fit

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.training import read_training
from edge_runtime.errors import ConfigError
from edge_runtime.inspector import Inspector
from trainer import training
from trainer.processes import Processes

TAKT = Path(sys.executable).parent / "takt"
FIT = Path(shared_fit.__file__)


def torchrun(*command: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Start so many processes that meet on the loopback interface, in bounded time."""
    paths = [str(FIT.parents[1]), str(FIT.parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr",
            "127.0.0.1",
            "--nproc-per-node",
            str(processes),
            *map(str, command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        | {"HF_HUB_OFFLINE": "1"},
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, Any] = torch.load(path)
    return dict(loaded["weights"])


def said(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What Takt said on stderr, among what torchrun says."""
    return [line for line in run.stderr.splitlines() if line.startswith("takt")]


@pytest.mark.slow
def test_two_processes_give_the_weights_and_the_losses_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    shared_fit.fit("fastflow", one, Processes())
    run = torchrun(FIT, "fastflow", two)

    assert run.returncode == 0, run.stderr
    expected = weights(one)
    for name, values in weights(two).items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-4)
    assert torch.load(two)["losses"] == pytest.approx(torch.load(one)["losses"], rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pt", "two.pt"]


@pytest.mark.slow
def test_three_processes_are_in_one_state_running_means_included_and_leave_alone_what_no_loss_reaches(
    tmp_path: Path,
) -> None:
    run = torchrun(FIT, "toy", tmp_path / "x.pt", processes=3)

    assert run.returncode == 0, run.stderr
    states = [weights(tmp_path / f"x.pt.{rank}") for rank in range(3)]
    for name, values in states[0].items():
        assert torch.equal(values, states[1][name]), name
        assert torch.equal(values, states[2][name]), name
    torch.manual_seed(0)
    fresh = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.Linear(2, 2)])
    assert torch.equal(states[0]["unseen.weight"], fresh[1].weight)  # weight decay has not touched it
    assert not torch.equal(states[0]["seen.0.weight"], fresh[0].weight)
    assert not torch.equal(states[0]["seen.1.running_mean"], torch.zeros(4))


@pytest.mark.slow
def test_a_fit_of_two_of_which_one_was_killed_goes_on_as_an_unbroken_one_and_with_two_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CFLOW draws patches in its loss, each process its own: their generators must be in the checkpoint."""
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    assert torchrun(FIT, "cflow", whole).returncode == 0
    killed = torchrun(FIT, "cflow", broken, "--kill", 1, 4)

    assert killed.returncode != 0
    assert not broken.exists()
    assert len(said(killed)) <= 1  # torchrun may end the other before it can say that one is gone
    state = torch.load(tmp_path / "broken.pt.checkpoint")
    assert state["progress"]["step"] == 3
    first, second = state["generators"]
    assert not torch.equal(first, second)
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    with pytest.raises(ConfigError, match="of processes 2 where this one has 1"):
        shared_fit.fit("cflow", broken, Processes(), resume=True)
    resumed = torchrun(FIT, "cflow", broken, "--resume")

    assert resumed.returncode == 0, resumed.stderr
    expected = weights(whole)
    assert all(torch.equal(values, expected[name]) for name, values in weights(broken).items())
    assert torch.load(broken)["losses"] == torch.load(whole)["losses"]


@pytest.mark.slow
def test_a_failure_of_one_ends_all_with_its_message_alone(tmp_path: Path) -> None:
    run = torchrun(FIT, "fastflow", tmp_path / "x.pt", "--fail", 1, 3)

    assert run.returncode != 0
    assert said(run) == ["takt: the lamp went out"]
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.slow
def test_what_is_fitted_in_one_pass_is_refused_in_several_processes_once(tmp_path: Path, parts: Path) -> None:
    run = torchrun(TAKT, "fit", parts, "--out", tmp_path / "x.draft", "--backbone", "gabor")

    assert run.returncode != 0
    (line,) = said(run)
    assert line.startswith("takt fit: --method patchcore is fitted in one pass")
    assert not (tmp_path / "x.draft").exists()


@pytest.mark.slow
def test_build_in_two_processes_fits_in_both_and_seals_in_one(tmp_path: Path, parts: Path) -> None:
    out = tmp_path / "out/part.takt"
    out.parent.mkdir()
    flags = ("--method", "fastflow", "--backbone", "gabor", "--size", "64x64", "--workers", "0", "--steps", "4")
    run = torchrun(TAKT, "build", parts, "--out", out, *flags, "--json")

    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 1
    assert [path.name for path in out.parent.iterdir()] == ["part.takt"]
    assert Inspector.open(out).inspect_file(parts / "test/good/000.png").score is not None
    with Archive(out) as archive:
        record = read_training(archive)
    assert record is not None
    assert record.steps_made == 4
