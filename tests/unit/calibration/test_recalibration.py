"""New thresholds from new images: which images are used, what is recorded, what stays as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.evaluation import evaluate
from calibration.layouts import open_dataset
from calibration.policies import parse_policy, threshold
from calibration.recalibration import calibrate
from calibration.samples import DataSet, Label, Split
from calibration.sealing import Sealed
from calibration.thresholds import load_scores
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import BundleError, DataError, TooFewSamplesError
from edge_runtime.inspector import Inspector


@pytest.fixture
def mixed(fresh: Path, opened: DataSet, manifest: Manifest, tmp_path: Path) -> Path:
    """New good images, and among them five that the model was fitted to."""
    folder = Path(shutil.copytree(fresh, tmp_path / "mixed"))
    fitted = [s for s in opened.samples if s.digest in manifest.provenance.splits.fit]
    for index, sample in enumerate(fitted[:5]):
        shutil.copy(sample.path, folder / f"seen-{index}.png")
    return folder


@pytest.fixture
def seen(opened: DataSet, manifest: Manifest, tmp_path: Path) -> Path:
    """Nothing but images that the model was fitted to."""
    folder = tmp_path / "seen"
    folder.mkdir()
    for sample in opened.samples:
        if sample.digest in manifest.provenance.splits.fit:
            shutil.copy(sample.path, folder)
    return folder


def test_on_the_bundles_own_data_set_the_recorded_split_gives_the_same_thresholds(
    bundle: Path, manifest: Manifest, opened: DataSet, tmp_path: Path
) -> None:
    again = calibrate(bundle, opened, tmp_path / "again.takt")
    assert [spec.thresholds for spec in again.manifest.artefacts] == [spec.thresholds for spec in manifest.artefacts]
    assert [spec.parity for spec in again.manifest.artefacts] == [spec.parity for spec in manifest.artefacts]
    assert again.manifest.provenance.splits == manifest.provenance.splits
    assert again.n_left_out == 0
    assert again.evaluation is not None
    assert again.evaluation.bundle == again.digest == load(tmp_path / "again.takt").digest


def test_new_good_images_are_all_used_but_those_of_the_fit_and_recorded(
    bundle: Path, manifest: Manifest, fresh: Path, mixed: Path, tmp_path: Path
) -> None:
    renewed = calibrate(bundle, open_dataset(mixed), tmp_path / "new.takt")
    new = {s.digest for s in open_dataset(fresh).samples}
    assert renewed.n_left_out == 5
    assert {*renewed.manifest.provenance.splits.calibration} == new
    assert renewed.manifest.provenance.splits.fit == manifest.provenance.splits.fit
    assert renewed.evaluation is None
    with Archive(tmp_path / "new.takt") as archive:
        for spec in renewed.manifest.artefacts:
            own = load_scores(archive.read(spec.scores), spec.scores)
            assert {part.digest for part in own} == new
            scores = np.array([part.score for part in own])
            found = spec.thresholds["frame"]
            assert found.reject == threshold(parse_policy("conformal:0.05"), scores, scores[:0]).value
            assert (found.policy, found.n_good) == ("conformal:0.05", 20)
            assert "at most 0.05" in found.guarantee


def test_the_old_bundle_is_left_alone_and_the_new_one_decides_by_its_own_threshold(
    bundle: Path, opened: DataSet, tmp_path: Path
) -> None:
    before = bundle.read_bytes()
    calibrate(bundle, opened, tmp_path / "new.takt", policy=parse_policy("manual:0.01"))
    assert bundle.read_bytes() == before
    path = opened.samples[0].path
    assert Inspector.open(tmp_path / "new.takt").inspect_file(path).threshold == 0.01
    assert Inspector.open(bundle).inspect_file(path).threshold != 0.01


def test_an_explicit_promise_on_too_few_images_is_refused_with_the_number(
    bundle: Path, fresh: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooFewSamplesError, match="needs 99 good calibration images, there are 20") as caught:
        calibrate(bundle, open_dataset(fresh), tmp_path / "new.takt", policy=parse_policy("conformal:0.01"))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "new.takt").exists()


def test_images_of_the_fit_alone_are_refused(bundle: Path, seen: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 14 usable images had a part in the fit"):
        calibrate(bundle, open_dataset(seen), tmp_path / "new.takt")


def test_manual_needs_no_image(bundle: Path, seen: Path, manifest: Manifest, tmp_path: Path) -> None:
    renewed = calibrate(bundle, open_dataset(seen), tmp_path / "new.takt", policy=parse_policy("manual:1.5"))
    before, after = (m.artefacts[0].thresholds["frame"] for m in (manifest, renewed.manifest))
    assert (after.reject, after.n_good, renewed.n_left_out) == (1.5, 0, 14)
    assert (after.display_low, after.display_high) == pytest.approx((before.display_low, before.display_high))


def test_defective_images_are_used_only_where_the_policy_looks_at_them(
    bundle: Path, copied: Path, tmp_path: Path
) -> None:
    (copied / "test/good/000.png").unlink()  # another data set than the bundle's: no recorded split
    dataset = open_dataset(copied)
    sigma = calibrate(bundle, dataset, tmp_path / "sigma.takt", policy=parse_policy("sigma:2"))
    youden = calibrate(bundle, dataset, tmp_path / "youden.takt", policy=parse_policy("youden"))
    defective = {s.digest for s in dataset.select(label=Label.DEFECTIVE)}
    assert not defective & {*sigma.manifest.provenance.splits.calibration}
    assert defective <= {*youden.manifest.provenance.splits.calibration}
    assert youden.manifest.artefacts[0].thresholds["frame"].n_defective == len(defective)
    assert youden.evaluation is None  # every test image set the threshold: none is left to measure on
    assert sigma.evaluation is not None
    assert sigma.evaluation.n_left_out == 5  # the good test images now set the threshold


def test_test_images_that_set_the_threshold_are_left_out_of_every_figure(borrowed: Sealed, opened: DataSet) -> None:
    used = {*borrowed.manifest.provenance.splits.calibration}
    tested = opened.select(split=Split.TEST)
    lent = [s for s in tested if s.digest in used]
    found = evaluate(borrowed.inspector, opened)
    assert 0 < len(lent) < len(tested)
    assert found.n_left_out == len(lent)
    assert {item.sample.digest for item in found.judged} == {s.digest for s in tested} - used


def test_a_damaged_bundle_is_not_built_upon(bundle: Path, opened: DataSet, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.takt"
    damaged.write_bytes(data)
    with pytest.raises(BundleError):
        calibrate(damaged, opened, tmp_path / "new.takt")
    assert not (tmp_path / "new.takt").exists()
