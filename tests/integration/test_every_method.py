"""Every registered method goes the whole way through its files, and inspects where no torch is.

fit -> ONNX and IR -> parity -> calibration -> sealed bundle -> `takt run` -> `takt serve`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.line import TAKT, serving
from support.methods import SIDE, TEACHERS, narrow
from support.raw import wires
from support.without_torch import ABSENT, WithoutTorch

from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.sealing import Sealed, seal
from trainer.config import make_config
from trainer.demo.product import write_dataset
from trainer.fitting import fit
from trainer.models.registry import METHODS

pytestmark = pytest.mark.slow

POLICY = "conformal:0.1"  # which needs nine good images
TRIGGERED = 4


@dataclass(frozen=True, slots=True)
class Bundles:
    """A bundle of every method, and pictures that none of them was fitted to."""

    sealed: dict[str, Sealed]
    pictures: Path

    def path(self, method: str) -> Path:
        """The bundle's file."""
        return self.sealed[method].path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    folder = tmp_path_factory.mktemp("every")
    parts, pictures = folder / "parts", folder / "pictures"
    write_dataset(parts, seed=3, train=24, test_good=2, per_defect=1, width=SIDE, height=SIDE)
    pictures.mkdir()
    for group in ("good", *sorted(path.name for path in (parts / "test").iterdir() if path.name != "good")):
        for image in sorted((parts / "test" / group).iterdir())[:1]:
            image.rename(pictures / f"{'good' if group == 'good' else 'spoilt'}-{group}.png")
    sealed = {}
    with narrow(folder):
        for name, method in METHODS.items():
            flags: dict[str, Any] = {"method": name, "size": [SIDE, SIDE], "holdout": 0.4, "workers": 0}
            flags |= {"backbone": "gabor"} if "backbone" in method.settings else {}
            flags |= {"steps": 3} if "steps" in method.settings else {}
            flags |= {"teacher": str(TEACHERS[name])} if "teacher" in method.settings else {}
            draft = folder / f"{name}.draft"
            fit(make_config(flags, None), parts, draft)
            sealed[name] = seal(
                draft, open_dataset(parts), folder / f"{name}.takt", policy=parse_policy(POLICY), with_report=False
            )
    return Bundles(sealed, pictures)


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> WithoutTorch:
    return WithoutTorch(tmp_path_factory.mktemp("without") / "torch")


@pytest.fixture(scope="module")
def ran(bundles: Bundles, without_torch: WithoutTorch) -> dict[str, dict[str, dict[str, Any]]]:
    """What `takt run` says, by method and picture, in processes that have no torch."""
    found = {}
    for method in METHODS:
        done = subprocess.run(
            [*TAKT, "run", bundles.path(method), bundles.pictures, "--json"],
            env=without_torch.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found[method] = {Path(line["path"]).name: line for line in lines}
    return found


@pytest.mark.parametrize("name", ABSENT)
def test_the_processes_of_these_tests_have_no_torch(tmp_path: Path, name: str) -> None:
    """Else the tests below would show nothing."""
    without_torch = WithoutTorch(tmp_path / "torch")
    code = f"try:\n    import {name}\nexcept ModuleNotFoundError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_torch.env,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"No module named '{name}'\n"
    assert without_torch.asked == [name]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_becomes_a_bundle_of_both_engines_with_a_promise(bundles: Bundles, method: str) -> None:
    manifest = bundles.sealed[method].manifest
    assert [artefact.name for artefact in manifest.artefacts] == ["openvino-f32", "onnxruntime-f32"]
    for artefact in manifest.artefacts:
        parity = artefact.parity
        assert parity.kinds["original"] == parity.kinds["painted"] >= 9
        assert parity.map_max_abs <= 1e-3 * parity.map_range
        assert parity.score_max_abs <= 1e-3 * parity.score_range
        assert parity.decision_flips == 0
        for thresholds in artefact.thresholds.values():
            assert (thresholds.policy, thresholds.n_good) == (POLICY, 10)
            assert thresholds.guarantee != "none"
    assert manifest.provenance.method == method


@pytest.mark.parametrize("method", METHODS)
def test_takt_run_inspects_with_it_where_no_torch_is(
    bundles: Bundles, ran: dict[str, dict[str, dict[str, Any]]], method: str
) -> None:
    manifest, digest = bundles.sealed[method].manifest, bundles.sealed[method].digest
    found = ran[method]
    assert sorted(found) == sorted(path.name for path in bundles.pictures.iterdir())
    threshold = manifest.artefacts[0].thresholds["frame"].reject
    for line in found.values():
        assert (line["bundle"], line["artefact"], line["reason"]) == (digest, "openvino-f32", None)
        assert line["threshold"] == threshold
        assert line["verdict"] == ("REJECT" if line["score"] >= threshold else "ACCEPT")
    assert len({line["score"] for line in found.values()}) == len(found)


def test_one_service_inspects_with_all_of_them_and_says_what_takt_run_says(
    bundles: Bundles, ran: dict[str, dict[str, dict[str, Any]]], without_torch: WithoutTorch, tmp_path: Path
) -> None:
    cameras = [
        {"name": m, "bundle": str(bundles.path(m)), "source": f"folder:{bundles.pictures}", "deadline_ms": 30_000}
        for m in METHODS
    ]
    assert {line["verdict"] for found in ran.values() for line in found.values()} == {"ACCEPT", "REJECT"}
    with serving(tmp_path, *cameras, env=without_torch.env) as line, wires(line.port) as bench:
        client = bench.client()
        for method in METHODS:
            answers = [client.inspect(method) for _ in range(TRIGGERED)]
            assert len({answer.label for answer in answers}) == TRIGGERED
            for answer in answers:
                wanted = ran[method][str(answer.label)]
                said = (answer.verdict, answer.reason, answer.bundle, answer.artefact)
                assert said == (wanted["verdict"], None, wanted["bundle"], wanted["artefact"]), (method, answer.label)
                assert answer.score == pytest.approx(wanted["score"], rel=1e-4), (method, answer.label)
                assert answer.threshold == wanted["threshold"]
    assert without_torch.asked == []  # nor did one of all these processes try and forgive
