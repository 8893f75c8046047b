"""A user's mistake ends with one clear line, the right exit code, no traceback and nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.bundle.recipe import ImageScoreRule
from trainer.models.registry import METHODS

Takt = Callable[..., Any]
SIZE = ("--backbone", "gabor", "--size", "64x64", "--coreset", "50", "--workers", "0")

USAGE = [
    (("--colour", "red"), "unrecognized arguments: --colour red"),
    (("--policy", "best"), "policy 'best': no such policy; there are f1"),
    (("--policy", "conformal:2"), "expected conformal:ALPHA"),
    (("--size", "64"), "'64' is not of the form WxH"),
    (("--size", "64x64", "--tile", "64"), "give one of them"),
    (("--size", "64x64", "--halo", "16"), "--halo and --scale belong to --tile"),
    (("--coreset", "many"), "neither a share such as 0.01 nor a number"),
    (("--precision", "int8"), "--precision int8"),
    (("--holdout", "1.5"), "holdout"),
    (("--learning-rate", "0"), "learning_rate: Input should be greater than 0"),
    (("--width", "1.5"), "width: Input should be less than or equal to 1"),
    (("--crop", "1,2,3"), "X1,Y1,X2,Y2"),
    (("--resume",), "--resume: patchcore is fitted in one pass"),
    (("--config", "nothere.toml"), "--config nothere.toml: cannot be read"),
]

SETTINGS = [
    (("--method", "nosuch"), "--method nosuch: there are patchcore, padim, spade"),
    (("--method", "padim", "--coreset", "50"), "--coreset: the method padim keeps no memory bank"),
    (("--width", "0.5"), "--width: the method patchcore has no networks whose width is free"),
    (("--method", "padim", "--learning-rate", "0.1"), "--learning-rate: the method padim is fitted in one pass"),
    (("--weights", "random"), "the backbone gabor is fixed and takes no weights"),
    (("--layers", "layer9"), "gabor has layer1, layer2, layer3"),
    (("--size", "100x100"), "must be multiples of the stride 16: nearest core 96x96"),
    (("--crop", "0,0,65,64"), "leaves the frame 64x64"),
]


def clean(found: Any, code: int, said: str, *outputs: Path) -> None:  # noqa: ANN401 - what the fixture gives
    """One message on stderr, nothing on stdout, no file and no temporary one."""
    assert found.code == code, found.err
    assert said in found.err
    assert found.err.splitlines()[-1]
    assert "Traceback" not in found.err
    assert found.out == ""
    for out in outputs:
        assert not out.exists()
        if out.parent.is_dir():
            assert not [path for path in out.parent.iterdir() if path.name.endswith((".tmp", ".probe"))]


@pytest.mark.parametrize(
    ("flags", "said"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_fault_of_usage_is_refused_before_anything_is_read(
    takt_here: Takt, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    found = takt_here("build", tmp_path / "nothere", "--out", tmp_path / "part.takt", *flags)
    clean(found, 2, said, tmp_path / "part.takt")


@pytest.mark.parametrize(
    ("flags", "said"), SETTINGS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_settings_that_cannot_be_met_are_refused_before_the_fit(
    takt_here: Takt,
    parts: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    said: str,
) -> None:
    out = tmp_path / "part.takt"
    base = SIZE if "--coreset" not in flags and "padim" not in flags else SIZE[:4]
    clean(takt_here("build", parts, "--out", out, *base, *flags), 2, said, out)


@pytest.mark.parametrize(
    "method", [method.name for method in METHODS.values() if method.image_score is ImageScoreRule.GRAPH]
)
def test_a_method_whose_graph_gives_the_image_score_refuses_tiles_before_the_fit(
    takt_here: Takt, parts: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "part.draft"
    flags = ("--backbone", "gabor", "--method", method, "--tile", "64", "--halo", "0", "--scale", "2")
    found = takt_here("fit", parts, "--out", out, *flags)
    clean(found, 2, f"--method {method} gives one score for all that its graph sees", out)
    assert "4 tiles" in found.err
    assert "use --size, or --method patchcore" in found.err


def test_a_valid_area_of_another_size_is_refused_with_both_sizes(takt_here: Takt, parts: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full((32, 64), 255, np.uint8))
    out = tmp_path / "part.takt"
    found = takt_here("build", parts, "--out", out, *SIZE, "--valid-area", mask)
    clean(found, 2, "is 64x32, the frame 64x64: draw it on a frame of the camera", out)


@pytest.mark.parametrize("out", ["nowhere/part.takt", "a file/part.takt", ""])
def test_an_output_that_cannot_be_written_is_refused_before_the_data_set_is_read(
    takt_here: Takt, tmp_path: Path, out: str
) -> None:
    (tmp_path / "a file").touch()
    found = takt_here("build", tmp_path / "nothere", "--out", tmp_path / out, *SIZE)
    assert (found.code, found.out) == (2, "")
    assert f"--out {tmp_path / out}" in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("I am a text file.")


def with_alpha(path: Path) -> None:
    pixels = cv2.imread(str(path))
    cv2.imwrite(str(path), np.dstack([pixels, pixels[:, :, 0]]))


def larger(path: Path) -> None:
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (80, 64)))


def deeper(path: Path) -> None:
    cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 256)


def smaller_mask(path: Path) -> None:
    mask = path.parents[2] / "ground_truth/scratch" / f"{path.stem}_mask.png"
    cv2.imwrite(str(mask), np.full((32, 64), 255, np.uint8))


TRAIN, TEST, SCRATCH = "train/good/003.png", "test/good/001.png", "test/scratch/1.png"
SPOILED: list[tuple[str, Callable[[Path], None], str]] = [
    (TRAIN, truncated, "003.png: not an image, or truncated"),
    (TEST, truncated, "001.png: not an image, or truncated"),
    (TRAIN, text, "003.png: not an image, or truncated (17 bytes)"),
    (TEST, text, "001.png: not an image"),
    (TRAIN, with_alpha, "save the image without its alpha channel"),
    (TEST, with_alpha, "save the image without its alpha channel"),
    (TRAIN, larger, "80x64"),
    (TEST, larger, "frame is 80x64, the bundle inspects 64x64"),
    (TRAIN, deeper, "16"),
    (SCRATCH, smaller_mask, "mask is 64x32, its image 1.png is 64x64"),
]
each_spoiled = pytest.mark.parametrize(
    ("name", "spoil", "said"), SPOILED, ids=[f"{spoil.__name__} {name}" for name, spoil, _ in SPOILED]
)


def refuses_a_spoiled_image(run: Takt, root: Path, name: str, spoil: Callable[[Path], None], said: str) -> None:
    out = root.parent / "part.takt"
    spoil(root / name)
    clean(run("build", root, "--out", out, *SIZE), 5, said, out)


@each_spoiled
def test_a_data_set_with_one_bad_file_makes_no_bundle(
    takt_here: Takt,
    parts: Path,
    name: str,
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    refuses_a_spoiled_image(takt_here, parts, name, spoil, said)


@pytest.mark.slow
@each_spoiled
def test_a_data_set_with_one_bad_file_makes_no_bundle_in_a_process_of_its_own(
    takt: Takt,
    parts: Path,
    name: str,
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    refuses_a_spoiled_image(takt, parts, name, spoil, said)


def of_one_value(root: Path) -> None:
    """Black images whose files differ."""
    black = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()
    for index, path in enumerate(sorted((root / "train/good").iterdir())):
        path.write_bytes(black + bytes([index]))


def of_one_image(root: Path) -> None:
    for path in sorted((root / "train/good").iterdir())[1:]:
        path.unlink()


def of_copies(root: Path) -> None:
    first, *others = sorted((root / "train/good").iterdir())
    for path in others:
        shutil.copy(first, path)


def of_nothing(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def in_train_and_test(root: Path) -> None:
    shutil.copy(root / "train/good/000.png", root / "test/good/000.png")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_one_value, "the good images do not vary"),
        (of_one_image, "1 good image(s) to train on, needs 4 at least"),
        (of_copies, "1 good image(s) to train on, needs 4 at least"),
        (of_nothing, "holds no image"),
        (in_train_and_test, "test/good/000.png and train/good/000.png are the same image"),
    ],
)
def test_a_data_set_that_cannot_be_learnt_from_makes_no_bundle(
    takt_here: Takt,
    parts: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    spoil(parts)
    out = tmp_path / "part.takt"
    clean(takt_here("build", parts, "--out", out, *SIZE), 5, said, out)


@pytest.mark.slow
def test_black_images_in_a_process_of_their_own_are_no_traceback_either(
    takt: Takt,
    parts: Path,
    tmp_path: Path,
) -> None:
    of_one_value(parts)
    out = tmp_path / "part.takt"
    found = takt("build", parts, "--out", out, *SIZE)
    clean(found, 5, "the good images do not vary", out)
    assert len(found.err.splitlines()) == 1


@pytest.mark.slow
def test_missing_weights_name_all_three_ways_to_get_them(takt: Takt, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.takt"
    found = takt("build", parts, "--out", out, "--backbone", "resnet18", "--size", "64x64", without="TAKT_WEIGHTS")
    clean(found, 2, "no weights for resnet18", out)
    for way in ("--weights FILE", "TAKT_WEIGHTS", "hub", "--backbone gabor needs none"):
        assert way in found.err


@pytest.mark.slow
def test_a_draft_of_random_weights_can_be_made_and_cannot_be_sealed(takt: Takt, parts: Path, tmp_path: Path) -> None:
    draft, out = tmp_path / "part.draft", tmp_path / "part.takt"
    flags = ("--backbone", "resnet18", "--weights", "random", "--size", "64x64", "--coreset", "20", "--workers", "0")
    assert takt("fit", parts, "--out", draft, *flags).code == 0
    clean(takt("seal", draft, parts, "--out", out), 3, "cannot be sealed", out)


def test_a_flag_of_another_command_is_refused_in_a_process_of_its_own(takt: Takt, bundle: Path, dataset: Path) -> None:
    found = takt("evaluate", bundle, dataset, "--overlays", "x")
    clean(found, 2, "unrecognized arguments: --overlays x")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "BUNDLE", "nowhere.png"), 5, "nowhere.png: does not exist"),
        (("run", "BUNDLE", "EMPTY"), 5, "holds no image"),
        (("run", "nowhere.takt", "DATASET"), 3, "nowhere.takt: cannot be opened"),
        (("run", "DRAFT", "DATASET"), 3, "is a draft, which has no thresholds yet: run `takt seal`"),
        (("run", "BUNDLE", "DATASET", "--artefact", "int8"), 2, "has no artefact 'int8'; it has openvino-f32"),
        (("run", "BUNDLE", "DATASET", "--threads", "0"), 2, "'0' is not a whole number of 1 or more"),
        (("run", "BUNDLE", "DATASET", "--maps", "BUNDLE"), 2, "cannot be written to"),
        (("evaluate", "BUNDLE", "EMPTY"), 5, "holds no image"),
        (("evaluate", "BUNDLE", "DATASET", "--limit", "-1"), 2, "argument --limit"),
        (("evaluate", "BUNDLE", "DATASET", "--policy", "f9"), 2, "no such policy"),
        (("calibrate", "BUNDLE", "DATASET", "--out", "OUT", "--policy", "conformal:0.01"), 4, "needs 99 good"),
        (("calibrate", "BUNDLE", "DATASET", "--out", "OUT", "--policy", "f1"), 4, "needs 1 defective"),
        (("seal", "DRAFT", "DATASET", "--out", "OUT", "--policy", "conformal:0.001"), 4, "needs 999 good"),
        (("seal", "BUNDLE", "DATASET", "--out", "OUT"), 3, "is sealed already"),
        (("bundle", "verify", "DRAFT"), 3, "is a draft"),
        (("audit", "DATASET"), 2, "no such command; there are build"),
    ],
)
def test_a_fault_after_the_build_has_its_own_exit_code(  # noqa: PLR0917 - all are fixtures or parameters
    takt_here: Takt,
    bundle: Path,
    draft: Path,
    dataset: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    names = {
        "BUNDLE": bundle,
        "DRAFT": draft,
        "DATASET": dataset,
        "EMPTY": tmp_path / "empty",
        "OUT": tmp_path / "out.takt",
    }
    found = takt_here(*(names.get(argument, argument) for argument in arguments))
    clean(found, code, said, tmp_path / "out.takt")
