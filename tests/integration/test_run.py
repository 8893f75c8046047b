"""`takt run`, `evaluate`, `calibrate` and `bundle` on a small bundle: what is on stdout, on stderr and on disk."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Takt = Callable[..., Any]

RUN_KEYS = {
    "path",
    "verdict",
    "reason",
    "score",
    "threshold",
    "score_normalized",
    "regions",
    "complete",
    "bundle",
    "artefact",
    "timings_ms",
    "stages_ms",
}
EVALUATE_KEYS = {
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


@pytest.fixture
def frames(dataset: Path, tmp_path: Path) -> Path:
    """A good part, a spoiled one, a hidden file, something that is no image, and a folder below."""
    folder = tmp_path / "frames"
    (folder / "night").mkdir(parents=True)
    shutil.copy(dataset / "test/good/000.png", folder / "good.png")
    pixels = cv2.imread(str(dataset / "test/good/000.png"))
    pixels[30:50:2, 30:50] = 255
    cv2.imwrite(str(folder / "night/10.31.42.bad.PNG"), pixels)
    shutil.copy(dataset / "test/good/001.png", folder / ".hidden.png")
    (folder / "notes.txt").write_text("none of these")
    return folder


def test_run_gives_one_json_object_a_line_with_every_promised_key(
    takt: Takt, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    outputs = {name: tmp_path / "made" / name for name in ("overlays", "maps", "masks")}
    flags = [part for name, folder in outputs.items() for part in (f"--{name}", folder)]
    found = takt("run", bundle, frames, "--json", "--csv", tmp_path / "table.csv", *flags)
    assert (found.code, found.err) == (0, "")
    good, bad = found.lines
    for line in (good, bad):
        assert set(line) >= RUN_KEYS
        assert set(line["timings_ms"]) == {"decode", "preprocess", "infer", "postprocess", "total"}
        assert line["timings_ms"]["total"] > 0
    assert (good["path"], good["verdict"], good["reason"]) == (str(frames / "good.png"), "ACCEPT", None)
    assert (bad["path"], bad["verdict"]) == (str(frames / "night/10.31.42.bad.PNG"), "REJECT")
    assert bad["score"] >= bad["threshold"] > good["score"]
    assert bad["score_normalized"] >= 100 > good["score_normalized"]
    assert good["bundle"] == bad["bundle"]
    assert set(bad["regions"][0]) == {"name", "x", "y", "width", "height", "area_px", "peak"}
    assert 20 <= bad["regions"][0]["x"] <= 50
    made = {name: sorted(path.name for path in folder.iterdir()) for name, folder in outputs.items()}
    stems = ["good", "night_10.31.42.bad"]
    assert made == {
        "overlays": [f"{stem}.png" for stem in stems],
        "maps": [f"{stem}.npy" for stem in stems],
        "masks": [f"{stem}.png" for stem in stems],
    }
    frame_map = np.load(outputs["maps"] / "night_10.31.42.bad.npy")
    assert (frame_map.shape, frame_map.dtype) == ((96, 96), np.float32)
    assert frame_map.max() == pytest.approx(max(region["peak"] for region in bad["regions"]), rel=1e-5)
    mask = cv2.imread(str(outputs["masks"] / "night_10.31.42.bad.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == sum(region["area_px"] for region in bad["regions"])
    assert cv2.imread(str(outputs["overlays"] / "good.png")).shape == (96, 96, 3)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["ACCEPT", "REJECT"]
    assert [float(row["score"]) for row in rows] == [good["score"], bad["score"]]
    assert rows[1]["regions"] == str(len(bad["regions"]))


def test_only_wrong_prints_and_writes_what_was_not_accepted(
    takt_here: Takt, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    found = takt_here("run", bundle, frames, "--json", "--only-wrong", "--maps", tmp_path / "maps")
    assert [line["verdict"] for line in found.lines] == ["REJECT"]
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["night_10.31.42.bad.npy"]


def test_without_json_verdicts_are_on_stdout_and_the_summary_on_stderr(
    takt_here: Takt, bundle: Path, frames: Path
) -> None:
    found = takt_here("run", bundle, frames)
    assert [line.split()[0] for line in found.out.splitlines()] == ["ACCEPT", "REJECT"]
    assert found.err == "2 image(s): 1 ACCEPT, 1 REJECT\n"


def test_equal_names_of_several_folders_do_not_overwrite_each_other(
    takt_here: Takt, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    paths = [dataset / "test/good/000.png", dataset / "train/good/000.png"]
    takt_here("run", bundle, *paths, "--masks", tmp_path / "masks")
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["000-2.png", "000.png"]


def spoiled(frames: Path, kind: str) -> Path:
    whole = (frames / "good.png").read_bytes()
    path = frames / f"{kind}.png"
    pixels = cv2.imread(str(frames / "good.png"))
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "text":
            path.write_text("I am a text file.")
        case "empty":
            path.touch()
        case "alpha":
            cv2.imwrite(str(path), np.dstack([pixels, pixels[:, :, 0]]))
        case "larger":
            cv2.imwrite(str(path), cv2.resize(pixels, (128, 96)))
        case "deeper":
            cv2.imwrite(str(path), pixels.astype(np.uint16) * 256)
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "alpha", "larger", "deeper"])
def test_a_file_that_cannot_be_inspected_is_an_error_and_the_others_are_inspected(
    takt_here: Takt, bundle: Path, frames: Path, kind: str
) -> None:
    path = spoiled(frames, kind)
    found = takt_here("run", bundle, path, frames / "good.png", "--json")
    assert found.code == 5
    bad, good = found.lines
    assert (bad["verdict"], bad["reason"], bad["score"], bad["regions"]) == ("ERROR", "BAD_IMAGE", None, [])
    assert bad["detail"]
    assert good["verdict"] == "ACCEPT"


def test_a_truncated_file_given_to_a_process_of_its_own_leaves_no_traceback(
    takt: Takt, bundle: Path, frames: Path
) -> None:
    found = takt("run", bundle, spoiled(frames, "truncated"))
    assert found.code == 5
    assert found.out.startswith("ERROR   BAD_IMAGE")
    assert "Traceback" not in found.err


def test_evaluate_gives_one_json_object_with_every_promised_key_and_the_files_asked_for(
    takt: Takt, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    flags = (
        "--maps",
        tmp_path / "maps",
        "--masks",
        tmp_path / "masks",
        "--only-wrong",
        "--report",
        tmp_path / "report",
    )
    found = takt("evaluate", bundle, dataset, "--json", "--policy", "sigma:2", *flags)
    assert (found.code, found.err) == (0, "")
    values = found.json
    assert set(values) >= EVALUATE_KEYS
    assert values["report"] == str(tmp_path / "report/index.html")
    assert Path(values["report"]).stat().st_size > 0
    wrong = values["confusion"]["good"]["REJECT"] + values["confusion"]["defective"]["ACCEPT"]
    assert len(list((tmp_path / "maps").rglob("*.npy"))) == len(list((tmp_path / "masks").rglob("*.png"))) == wrong
    assert values["policy_threshold"]["frame"]["policy"] == "sigma:2"


def test_evaluate_says_its_figures_to_a_person(takt_here: Takt, bundle: Path, dataset: Path) -> None:
    found = takt_here("evaluate", bundle, dataset)
    assert found.out.startswith("6 good, 12 defective (0 without mask)\n")
    assert "false rejects: " in found.out
    assert "95 % interval" in found.out
    assert "image AUROC" in found.out


def test_calibrate_says_how_many_images_it_left_out_on_stderr(
    takt_here: Takt, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.takt"
    found = takt_here("calibrate", bundle, dataset / "train", "--out", out, "--json", "--policy", "quantile:1")
    assert found.code == 0, found.err
    assert "14 image(s) left out: the model was fitted to them" in found.err
    assert "guarantee: none" in found.err
    assert found.json["evaluation"] is None
    assert takt_here("bundle", "verify", out, "--json").json["bundle"] == found.json["bundle"]


def test_bundle_show_prints_the_manifest_and_writes_the_report(takt_here: Takt, bundle: Path, tmp_path: Path) -> None:
    found = takt_here("bundle", "show", bundle, "--json", "--report", tmp_path / "report.html")
    assert json.loads(found.out)["provenance"]["method"] == "patchcore"
    assert b"<html" in (tmp_path / "report.html").read_bytes()


def test_a_report_that_the_bundle_does_not_hold_is_said_so(
    takt_here: Takt, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.takt"
    assert takt_here("calibrate", bundle, dataset / "train", "--out", out).code == 0
    found = takt_here("bundle", "show", out, "--report", tmp_path / "report.html")
    assert found.code == 2
    assert "holds no report: `takt evaluate --report DIR`" in found.err
