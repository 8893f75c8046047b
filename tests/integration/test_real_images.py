"""The whole way on real photographs and real weights: what the docs' tables say, on two small sets."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calibration.layouts import open_dataset

TAKT = Path(sys.executable).with_name("takt")


def takt(*arguments: str | Path, weights: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "TAKT_WEIGHTS": str(weights)}
    return subprocess.run(
        [TAKT, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, timeout=280
    )


@pytest.fixture(scope="module")
def cookies(
    real_data: Path, real_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    bundle = tmp_path_factory.mktemp("cookies") / "cookies.takt"
    done = takt("build", real_data / "cookies", "--out", bundle, "--json", weights=real_weights)
    assert done.returncode == 0, done.stderr
    return bundle, json.loads(done.stdout)


@pytest.mark.slow
def test_patchcore_tells_broken_cookies_from_whole_ones(cookies: tuple[Path, dict[str, Any]]) -> None:
    _, built = cookies
    found = built["evaluation"]

    assert found["image_auroc"] >= 0.97
    assert found["pixel_auroc"] >= 0.95
    assert found["pixel_ap"] >= 0.28
    assert (found["n_good"], found["n_defective"], found["n_unmasked"]) == (14, 40, 8)
    assert all(artefact["decision_flips"] == 0 for artefact in built["artefacts"])
    assert all(artefact["parity_max_abs"] <= 1e-3 * artefact["parity_range"] for artefact in built["artefacts"])


@pytest.mark.slow
def test_evaluate_run_and_calibrate_agree_with_the_build(
    cookies: tuple[Path, dict[str, Any]], real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    bundle, built = cookies
    again = takt("evaluate", bundle, real_data / "cookies", "--json", weights=real_weights)
    run = takt("run", bundle, real_data / "cookies" / "test", "--json", weights=real_weights)
    calibrated = takt(
        "calibrate",
        bundle,
        real_data / "cookies",
        "--out",
        tmp_path / "new.takt",
        "--policy",
        "conformal:0.2",
        "--json",
        weights=real_weights,
    )

    assert (again.returncode, run.returncode, calibrated.returncode) == (0, 0, 0), calibrated.stderr
    figures = json.loads(again.stdout)
    for key in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        assert figures[key] == pytest.approx(built["evaluation"][key]), key
    assert figures["confusion"] == built["evaluation"]["confusion"]
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    rejected = sum(row["verdict"] == "REJECT" for row in rows)
    assert rejected == sum(counts["REJECT"] for counts in figures["confusion"].values())
    assert json.loads(calibrated.stdout)["bundle"] != built["bundle"]


@pytest.mark.slow
def test_padim_finds_impurities_in_paper(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    done = takt(
        "build",
        real_data / "paper_flr01",
        "--out",
        tmp_path / "paper.takt",
        "--method",
        "padim",
        "--json",
        weights=real_weights,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["evaluation"]
    assert found["image_auroc"] >= 0.98
    assert found["pixel_ap"] >= 0.6


@pytest.mark.parametrize("name", ["ball_screw", "ball_screw_large", "cookies", "cubes", "paper_bdp01"])
def test_every_real_set_is_read_whole(real_data: Path, name: str) -> None:
    dataset = open_dataset(real_data / name)
    files = [path for path in (real_data / name).rglob("*") if path.suffix in {".png", ".jpg"}]

    assert dataset.duplicates == 0
    assert len(dataset.samples) == sum("ground_truth" not in path.parts for path in files)
    assert sum(sample.mask is not None for sample in dataset.samples) == sum("ground_truth" in p.parts for p in files)
