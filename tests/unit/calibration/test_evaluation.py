"""Evaluation: which images count, what is null where it cannot be known, and whose figures they are."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from calibration.evaluation import Evaluation, evaluate
from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.samples import DataSet, Label, Split
from calibration.sealing import Sealed
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.decision import Verdict
from edge_runtime.errors import DataError, TooFewSamplesError
from edge_runtime.imaging.frames import Frame, PixelFormat, Size, read_image
from edge_runtime.inspector import Inspector

PIXELS = ("pixel_auroc", "pixel_ap", "pixel_f1", "aupro")
IMAGES = ("image_auroc", "image_ap", "image_f1")
KEYS = {
    *PIXELS,
    *IMAGES,
    "method",
    "artefact",
    "n_good",
    "n_defective",
    "n_unmasked",
    "threshold",
    "guarantee",
    "false_reject_rate",
    "escape_rate",
    "review_rate",
    "confusion",
    "report",
}


@pytest.fixture(scope="module")
def found(inspector: Inspector, opened: DataSet) -> Evaluation:
    """The small bundle on its own test tree."""
    return evaluate(inspector, opened)


def test_every_promised_key_is_there(found: Evaluation) -> None:
    values = found.as_json(None)
    assert set(values) >= KEYS
    assert (values["n_good"], values["n_defective"], values["n_unmasked"]) == (6, 12, 0)


def test_image_figures_are_those_of_the_scores_through_the_runtime(
    found: Evaluation, inspector: Inspector, opened: DataSet
) -> None:
    tested = opened.select(split=Split.TEST)
    scores = [inspector.inspect_file(sample.path).score for sample in tested]
    truth = [sample.label is Label.DEFECTIVE for sample in tested]
    values = found.as_json(None)
    assert values["image_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert values["image_ap"] == pytest.approx(average_precision_score(truth, scores))


def test_pixel_figures_are_those_of_all_pixels_at_the_frames_resolution(
    found: Evaluation, inspector: Inspector, opened: DataSet
) -> None:
    maps, masks = [], []
    for sample in opened.select(split=Split.TEST):
        frame_map = inspector.frame_map(inspector.inspect_file(sample.path))
        assert frame_map is not None
        maps.append(frame_map.ravel())
        masks.append((sample.read_mask(Size(96, 96)) if sample.mask else np.zeros((96, 96), np.bool_)).ravel())
    values = found.as_json(None)
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(np.concatenate(masks), np.concatenate(maps)), abs=1e-4)
    assert values["pixel_ap"] == pytest.approx(
        average_precision_score(np.concatenate(masks), np.concatenate(maps)), abs=1e-3
    )


def test_rates_and_confusion_count_the_same_verdicts(found: Evaluation) -> None:
    values = found.as_json(None)
    rejects = sum(item.inspection.verdict is Verdict.REJECT for item in found.of(Label.GOOD))
    escapes = sum(item.inspection.verdict is Verdict.ACCEPT for item in found.of(Label.DEFECTIVE))
    assert values["false_reject_rate"]["value"] == rejects / 6
    assert values["escape_rate"]["value"] == escapes / 12
    assert values["review_rate"]["n"] == 18
    assert values["confusion"]["defective"]["ACCEPT"] == escapes
    assert sum(values["confusion"]["good"].values()) == 6
    assert set(values["false_reject_rate"]) == {"value", "low", "high", "n"}


def without_masks(root: Path, keep: int = 0) -> None:
    """Remove all masks but a few."""
    for mask in sorted((root / "ground_truth").rglob("*.png"))[keep:]:
        mask.unlink()


def test_a_set_without_any_mask_has_no_pixel_figures_and_all_others(
    inspector: Inspector, copied: Path, found: Evaluation
) -> None:
    without_masks(copied)
    values, whole = evaluate(inspector, open_dataset(copied)).as_json(None), found.as_json(None)
    assert [values[key] for key in PIXELS] == [None] * 4
    assert [values[key] for key in IMAGES] == [whole[key] for key in IMAGES]
    assert values["n_unmasked"] == 12


def test_unmasked_defects_among_masked_ones_are_counted_and_left_out_of_pixel_figures(
    inspector: Inspector, copied: Path, tmp_path: Path
) -> None:
    without_masks(copied, keep=5)
    some = evaluate(inspector, open_dataset(copied)).as_json(None)
    assert (some["n_unmasked"], some["n_defective"]) == (7, 12)
    dataset = open_dataset(copied)
    gone = [s.path for s in dataset.select(label=Label.DEFECTIVE) if s.mask is None]
    shutil.copytree(copied, tmp_path / "fewer")
    for path in gone:
        (tmp_path / "fewer" / path.relative_to(copied)).unlink()
    fewer = evaluate(inspector, open_dataset(tmp_path / "fewer")).as_json(None)
    assert [some[key] for key in PIXELS] == pytest.approx([fewer[key] for key in PIXELS], abs=1e-4)


def test_full_masks_counts_unmasked_defects_as_defective_all_over(inspector: Inspector, copied: Path) -> None:
    without_masks(copied)
    found = evaluate(inspector, open_dataset(copied), full_masks=True)
    values = found.as_json(None)
    maps = {True: [], False: []}
    for item in found.judged:
        frame_map = inspector.frame_map(inspector.inspect_file(item.sample.path))
        assert frame_map is not None
        maps[item.sample.label is Label.DEFECTIVE].append(frame_map.ravel())
    good, bad = np.concatenate(maps[False]), np.concatenate(maps[True])
    truth = np.repeat([0, 1], [good.size, bad.size])
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate([good, bad])), abs=1e-4)
    assert values["n_unmasked"] == 12


def test_a_set_without_defects_has_no_roc_and_everything_else(inspector: Inspector, copied: Path) -> None:
    for folder in (copied / "test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)
    values = evaluate(inspector, open_dataset(copied)).as_json(None)
    assert [values[key] for key in (*IMAGES, *PIXELS)] == [None] * 7
    assert values["escape_rate"] is None
    assert values["false_reject_rate"]["n"] == 6
    assert values["threshold"] is not None


def test_unknown_images_are_inspected_and_counted_in_nothing(
    inspector: Inspector, copied: Path, found: Evaluation
) -> None:
    unknown = copied / "test/unknown"
    unknown.mkdir()
    pixels = cv2.imread(str(copied / "test/good/000.png"))
    cv2.imwrite(str(unknown / "0.png"), pixels // 2)
    other = evaluate(inspector, open_dataset(copied))
    values, whole = other.as_json(None), found.as_json(None)
    assert sum(values["confusion"]["unknown"].values()) == 1
    counted = ("n_good", "n_defective", "false_reject_rate", "escape_rate", "review_rate", *IMAGES)
    assert [values[key] for key in counted] == [whole[key] for key in counted]
    assert [values[key] for key in PIXELS] == pytest.approx([whole[key] for key in PIXELS], abs=1e-4)


def test_without_a_test_tree_every_image_that_is_not_recorded_counts(
    inspector: Inspector, fresh: Path, opened: DataSet, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(fresh, tmp_path / "mixed"))
    for sample in opened.select(split=Split.TRAIN):
        shutil.copy(sample.path, folder / f"seen-{sample.path.name}")
    found = evaluate(inspector, open_dataset(folder))
    assert (len(found.judged), found.n_left_out) == (20, 24)
    assert not any(item.sample.path.name.startswith("seen") for item in found.judged)


def test_a_set_of_recorded_images_alone_is_refused(inspector: Inspector, copied: Path) -> None:
    shutil.rmtree(copied / "test")
    with pytest.raises(DataError, match="all 24 images had a part in the bundle"):
        evaluate(inspector, open_dataset(copied))


def test_another_policy_shows_its_threshold_on_these_images_and_changes_no_verdict(
    inspector: Inspector, opened: DataSet, found: Evaluation
) -> None:
    other = evaluate(inspector, opened, policy=parse_policy("manual:0.125"))
    values = other.as_json(None)
    assert values["policy_threshold"] == {"frame": {"threshold": 0.125, "policy": "manual:0.125", "guarantee": "none"}}
    assert values["threshold"] == found.as_json(None)["threshold"]
    assert values["confusion"] == found.as_json(None)["confusion"]


def test_another_policy_uses_the_labels_of_these_images(inspector: Inspector, opened: DataSet) -> None:
    other = evaluate(inspector, opened, policy=parse_policy("recall:1"))
    shown = other.as_json(None)["policy_threshold"]["frame"]["threshold"]
    assert shown == min(item.scores["frame"] for item in other.of(Label.DEFECTIVE))
    with pytest.raises(TooFewSamplesError, match="needs 99 good"):
        evaluate(inspector, opened, policy=parse_policy("conformal:0.01"))


def test_an_image_that_cannot_be_read_stops_the_measurement(inspector: Inspector, copied: Path) -> None:
    (copied / "test/good/001.png").write_text("no image")
    with pytest.raises(DataError, match=r"001\.png: not an image"):
        evaluate(inspector, open_dataset(copied))


def test_a_mask_of_another_size_stops_the_measurement(inspector: Inspector, copied: Path) -> None:
    mask = next((copied / "ground_truth").rglob("*.png"))
    cv2.imwrite(str(mask), np.full((48, 96), 255, np.uint8))
    with pytest.raises(DataError, match=r"mask is 96x48, its image .* is 96x96"):
        evaluate(inspector, open_dataset(copied))


def checkered_at(path: Path, box: tuple[slice, slice]) -> Frame:
    """A good part with a checkered patch in a box."""
    frame = read_image(path)
    pixels = frame.as_format(PixelFormat.RGB8).copy()
    rows, columns = np.ogrid[:96, :96]
    checkered = np.where((rows // 2 + columns // 2) % 2, 255, 0).astype(np.uint8)[:, :, np.newaxis]
    pixels[box] = checkered[box]
    return Frame(pixels, PixelFormat.RGB8)


LEFT, RIGHT, OUTSIDE = (slice(40, 56), slice(8, 24)), (slice(20, 36), slice(74, 86)), (slice(82, 96), slice(0, 40))


@pytest.mark.parametrize(("box", "deciding"), [(LEFT, "left"), (RIGHT, "right")])
def test_the_worst_region_decides_and_lends_its_threshold(
    two_regions: Sealed, opened: DataSet, box: tuple[slice, slice], deciding: str
) -> None:
    good = next(s for s in opened.select(label=Label.GOOD, split=Split.TEST))
    inspector = two_regions.inspector
    assert inspector.inspect_file(good.path).verdict is Verdict.ACCEPT
    inspection = inspector.inspect(checkered_at(good.path, box))
    assert (inspection.verdict, inspection.region) == (Verdict.REJECT, deciding)
    assert inspection.threshold == inspector.artefact.thresholds[deciding].reject
    assert {listed.name for listed in inspection.regions} == {deciding}


def test_what_lies_outside_every_region_changes_no_score(two_regions: Sealed, opened: DataSet) -> None:
    good = next(s for s in opened.select(label=Label.GOOD, split=Split.TEST))
    inspector = two_regions.inspector
    assert inspector.inspect(checkered_at(good.path, OUTSIDE)).score == inspector.inspect_file(good.path).score


def test_each_region_has_thresholds_of_its_own_scores(two_regions: Sealed, manifest: Manifest) -> None:
    for spec in two_regions.manifest.artefacts:
        left, right = (spec.thresholds[name] for name in ("left", "right"))
        assert left.reject != right.reject
        assert left.pixel != right.pixel
        assert left.n_good == right.n_good == len(manifest.provenance.splits.calibration)
        assert spec.parity.frames == 2 * left.n_good  # original and painted; both regions are on each


def test_with_several_regions_the_evaluation_gives_all_thresholds_and_ranks_on_one_scale(
    two_regions: Sealed, opened: DataSet
) -> None:
    found = evaluate(two_regions.inspector, opened)
    values = found.as_json(None)
    assert values["threshold"] is None
    assert set(values["thresholds"]) == {"left", "right"}
    assert [item.ranking for item in found.judged] == [item.inspection.score_normalized for item in found.judged]
    assert Counter(map(len, (item.scores for item in found.judged))) == {2: 18}
    assert values["pixel_auroc"] is not None
