"""`takt build`, and `fit` with `seal`: from images to a bundle that runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.inspector import Inspector
from trainer.demo.product import write_dataset

Takt = Callable[..., Any]

SIZE = ("--backbone", "gabor", "--size", "64x64", "--coreset", "50", "--workers", "0")
BUILD_KEYS = {"bundle", "product", "method", "artefacts", "evaluation", "fit_s", "peak_memory_mb"}
ARTEFACT_KEYS = {"name", "engine", "precision", "parity_max_abs", "decision_flips", "latency_ms"}
EVALUATION_KEYS = {
    "method",
    "artefact",
    "n_good",
    "n_defective",
    "n_unmasked",
    "image_auroc",
    "image_ap",
    "image_f1",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1",
    "aupro",
    "threshold",
    "guarantee",
    "false_reject_rate",
    "escape_rate",
    "review_rate",
    "confusion",
    "report",
}


def thresholds(run: Takt, bundle: Path) -> list[Any]:
    """Of every artefact, as the manifest has them."""
    return [artefact["thresholds"] for artefact in json.loads(run("bundle", "show", bundle, "--json").out)["artefacts"]]


def builds_with_every_promised_key(run: Takt, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.takt"
    found = run("build", parts, "--out", out, *SIZE, "--report", tmp_path / "report", "--json")
    assert found.code == 0, found.err
    values = found.json
    assert set(values) >= BUILD_KEYS
    assert [set(artefact) >= ARTEFACT_KEYS for artefact in values["artefacts"]] == [True, True]
    assert set(values["evaluation"]) >= EVALUATION_KEYS
    assert values["evaluation"]["bundle"] == values["bundle"]
    assert values["evaluation"]["report"] == str(tmp_path / "report/index.html")
    assert (values["product"], values["method"]) == ("parts", "patchcore")
    assert values["fit_s"] > 0
    assert values["peak_memory_mb"] > 0
    assert found.err.splitlines() == [
        "takt: patchcore: the fit takes about 1 MB of memory; the bundle will be about 1 MB, the graph in use takes 1 MB at least",
        "takt: region frame: policy sigma:3 on 2 good images promises no false-reject rate (guarantee: none)",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.takt", "parts", "report"]


def test_build_gives_one_json_object_with_every_promised_key(takt_here: Takt, parts: Path, tmp_path: Path) -> None:
    builds_with_every_promised_key(takt_here, parts, tmp_path)


@pytest.mark.slow
def test_build_in_a_process_of_its_own_gives_one_json_object_and_two_notes(
    takt: Takt, parts: Path, tmp_path: Path
) -> None:
    builds_with_every_promised_key(takt, parts, tmp_path)


@pytest.mark.slow
def test_fit_and_seal_set_the_same_thresholds_as_build(takt_here: Takt, parts: Path, tmp_path: Path) -> None:
    whole, draft, sealed = (tmp_path / name for name in ("whole.takt", "part.draft", "sealed.takt"))
    flags = (*SIZE, "--calibration-split", "0.5", "--seed", "3")
    assert takt_here("build", parts, "--out", whole, *flags, "--policy", "youden").code == 0
    fitted = takt_here("fit", parts, "--out", draft, *flags, "--json")
    assert fitted.json == {"draft": str(draft), "method": "patchcore", "seed": 3}
    assert takt_here("seal", draft, parts, "--out", sealed, "--policy", "youden").code == 0
    assert thresholds(takt_here, sealed) == thresholds(takt_here, whole)


@pytest.mark.slow
def test_fit_and_seal_in_processes_of_their_own_set_the_same_thresholds_as_build(
    takt: Takt,
    parts: Path,
    tmp_path: Path,
) -> None:
    whole, draft, sealed = (tmp_path / name for name in ("whole.takt", "part.draft", "sealed.takt"))
    assert takt("build", parts, "--out", whole, *SIZE).code == 0
    assert takt("fit", parts, "--out", draft, *SIZE).code == 0
    assert takt("seal", draft, parts, "--out", sealed).code == 0
    assert thresholds(takt, sealed) == thresholds(takt, whole)


def test_a_folder_of_good_images_alone_makes_a_bundle_without_an_evaluation(
    takt_here: Takt,
    parts: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "part.takt"
    found = takt_here("build", parts / "train/good", "--out", out, *SIZE, "--json")
    assert found.code == 0, found.err
    assert found.json["evaluation"] is None
    assert Inspector.open(out).inspect_file(parts / "train/good/000.png").score is not None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build", "fit"])
def test_an_inspection_that_exceeds_its_budget_is_refused_before_the_fit(
    takt_here: Takt, parts: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "part.takt"
    found = takt_here(command, parts, "--out", out, *SIZE, "--memory-mb", "10")
    assert found.code == 2
    assert "an inspection takes " in found.err
    assert " MB, --memory-mb is 10 (predicted, with " in found.err
    assert "the fit takes" not in found.err
    assert not out.exists()


@pytest.mark.slow
def test_a_fit_predicts_its_inspections_where_there_is_no_openvino(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/openvino.py").write_text("raise ModuleNotFoundError('openvino', name='openvino')")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    flags = ("--backbone", "gabor", "--tile", "32", "--halo", "0", "--coreset", "50", "--workers", "0")
    command = [sys.executable, "-m", "edge_runtime.cli", "fit", parts, "--out", tmp_path / "part.draft", *flags]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert " MB here, with onnxruntime\n" in done.stderr


@pytest.mark.slow
def test_tiles_of_a_larger_frame_go_the_whole_way(takt_here: Takt, tmp_path: Path) -> None:
    root, out = tmp_path / "plates", tmp_path / "plate.takt"
    write_dataset(root, seed=2, train=6, test_good=1, per_defect=0, width=200, height=150)
    flags = ("--backbone", "gabor", "--tile", "64", "--halo", "32", "--coreset", "100", "--workers", "0")
    assert takt_here("build", root, "--out", out, *flags, "--policy", "quantile:1").code == 0
    pixels = cv2.imread(str(root / "test/good/000.png"))
    pixels[130:148:2, 178:198] = 255  # in the last, partial tile
    cv2.imwrite(str(tmp_path / "bad.png"), pixels)
    found = takt_here("run", out, root / "train/good", tmp_path / "bad.png", "--json", "--maps", tmp_path / "maps")
    assert found.code == 0
    *_, bad = found.lines
    assert len(found.lines) == 7
    assert bad["verdict"] == "REJECT"
    peak = max(bad["regions"], key=lambda region: region["peak"])
    assert peak["x"] + peak["width"] > 178
    assert peak["y"] + peak["height"] > 130
    frame_map = np.load(tmp_path / "maps/bad.npy")
    assert frame_map.shape == (150, 200)
    assert np.isfinite(frame_map).all()


def as_grey(root: Path, *, deep: bool) -> None:
    """Turn a data set's images grey, of 8 or of 12 bits in 16."""
    for path in [*root.glob("t*/*/*.png")]:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), pixels.astype(np.uint16) * 16 if deep else pixels)


@pytest.mark.parametrize(("deep", "expected"), [(True, ("mono12", 12)), (False, ("mono8", 8))])
def test_a_mono_data_set_goes_the_whole_way(
    takt_here: Takt,
    parts: Path,
    tmp_path: Path,
    deep: bool,  # noqa: FBT001 - a parameter of the test
    expected: tuple[str, int],
) -> None:
    as_grey(parts, deep=deep)
    out = tmp_path / "part.takt"
    built = takt_here("build", parts, "--out", out, *SIZE, "--policy", "quantile:1", "--json")
    assert built.code == 0, built.err
    assert built.json["evaluation"]["image_auroc"] is not None
    geometry = json.loads(takt_here("bundle", "show", out, "--json").out)["geometry"]
    assert (geometry["pixel_format"], geometry["bit_depth"]) == expected
    frame = cv2.imread(str(parts / "test/good/000.png"), cv2.IMREAD_UNCHANGED)
    assert frame.ndim == 2
    inspector = Inspector.open(out)
    assert inspector.inspect(frame).score == inspector.inspect_file(parts / "test/good/000.png").score
    refused = inspector.inspect(np.dstack([frame] * 3))
    assert (refused.verdict, refused.reason) == ("ERROR", "BAD_IMAGE")


@pytest.mark.slow
def test_padim_goes_the_whole_way(takt: Takt, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.takt"
    flags = ("--backbone", "gabor", "--method", "padim", "--size", "64x64", "--workers", "0")
    built = takt("build", parts, "--out", out, *flags, "--json")
    assert built.code == 0, built.err
    assert built.json["method"] == "padim"
    assert takt("run", out, parts / "test/good", "--json").code == 0
