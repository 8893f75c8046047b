"""Sealing: thresholds of the artefact's own scores, parity or no bundle, nothing left behind."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.draft import open_draft
from calibration.layouts import open_dataset
from calibration.policies import default_policy, parse_policy, threshold
from calibration.samples import DataSet, Label, Split
from calibration.sealing import Sealed, seal
from calibration.thresholds import CalibrationScore, load_scores
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.manifest import DraftManifest, Manifest
from edge_runtime.bundle.store import DRAFT, array_bytes, array_from, read_draft_manifest, read_manifest, write
from edge_runtime.engines import Precision
from edge_runtime.errors import BundleError, DataError, ParityError, TooFewSamplesError
from edge_runtime.imaging.frames import Size, read_image
from edge_runtime.inspector import Inspector

Change = Callable[[DraftManifest, dict[str, bytes]], DraftManifest]


def stored_scores(path: Path, manifest: Manifest) -> dict[str, tuple[CalibrationScore, ...]]:
    """Calibration scores by artefact, from the bundle's members."""
    with Archive(path) as archive:
        return {spec.name: load_scores(archive.read(spec.scores), spec.scores) for spec in manifest.artefacts}


def rewritten(draft: Path, to: Path, change: Change) -> Path:
    """The draft with something changed in it and every digest right again."""
    with Archive(draft) as archive:
        manifest = read_draft_manifest(archive)
        members = {name: archive.read(name) for name in archive.names - {DRAFT}}
    changed = change(manifest, members)
    write(to, changed.model_copy(update={"members": {}}), members, DRAFT)
    return to


def test_the_thresholds_of_each_artefact_come_from_its_own_scores(bundle: Path, manifest: Manifest) -> None:
    scores = stored_scores(bundle, manifest)
    assert len(scores) == 2
    kept = {name: [part.score for part in parts] for name, parts in scores.items()}
    assert kept["openvino-f32"] != kept["onnxruntime-f32"]  # two engines never agree to the last bit
    for spec in manifest.artefacts:
        own = np.array(kept[spec.name])
        assert spec.thresholds["frame"].reject == threshold(default_policy(own.size), own, own[:0]).value
        peaks = np.array([part.peak for part in scores[spec.name]])
        assert spec.thresholds["frame"].pixel == threshold(default_policy(own.size), peaks, own[:0]).value
        assert spec.thresholds["frame"].n_good == own.size


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_the_stored_scores_are_what_the_sealed_artefact_gives_through_the_runtime(
    bundle: Path, manifest: Manifest, opened: DataSet, artefact: str
) -> None:
    inspector = Inspector.open(bundle, artefact=artefact)
    paths = {sample.digest: sample.path for sample in opened.samples}
    for part in stored_scores(bundle, manifest)[artefact]:
        (found,) = inspector.scorer.score(read_image(paths[part.digest])).regions
        assert found.image_score == pytest.approx(part.score, abs=1e-6)
        assert inspector.scorer.valid_peak(found) == pytest.approx(part.peak, abs=1e-6)


def test_no_image_of_the_fit_has_a_part_in_the_thresholds(bundle: Path, manifest: Manifest, opened: DataSet) -> None:
    splits = manifest.provenance.splits
    trained = {s.digest for s in opened.select(label=Label.GOOD, split=Split.TRAIN)}
    assert {*splits.fit, *splits.calibration} == trained
    assert not {*splits.fit} & {*splits.calibration}
    for parts in stored_scores(bundle, manifest).values():
        assert [part.digest for part in parts] == list(splits.calibration)


def test_the_bundle_states_what_parity_was_measured_on(manifest: Manifest) -> None:
    held_out = len(manifest.provenance.splits.calibration)
    for spec in manifest.artefacts:
        assert spec.parity.kinds == {"original": held_out, "painted": held_out}
        assert spec.parity.map_max_abs <= 1e-3 * spec.parity.map_range
        assert spec.parity.decision_flips == 0


def test_the_golden_frames_are_a_good_one_and_a_painted_one_for_each_artefact(manifest: Manifest) -> None:
    assert ["painted" in golden.name for golden in manifest.golden] == [False, True]
    for golden in manifest.golden:
        assert {expected.artefact for expected in golden.expected} == {spec.name for spec in manifest.artefacts}


def test_torchs_frames_are_held_out_frames_and_never_those_of_the_fit(draft: Path) -> None:
    manifest = open_draft(draft).manifest
    assert manifest.references
    assert {spec.digest for spec in manifest.references} == {*manifest.provenance.splits.calibration}


def off_by_one_percent(manifest: DraftManifest, members: dict[str, bytes]) -> DraftManifest:
    """One cell of one of torch's maps, by ten times the tolerance."""
    name = manifest.references[5].map
    grid = array_from(members[name], name)
    everything = [array_from(members[spec.map], spec.map) for spec in manifest.references]
    grid[0, 0] += 0.01 * (max(m.max() for m in everything) - min(m.min() for m in everything))
    members[name] = array_bytes(grid)
    return manifest


def not_a_number(manifest: DraftManifest, members: dict[str, bytes]) -> DraftManifest:
    """One cell of one of torch's maps is not a number."""
    name = manifest.references[7].map
    grid = array_from(members[name], name)
    grid[1, 1] = np.nan
    members[name] = array_bytes(grid)
    return manifest


def another_score(manifest: DraftManifest, members: dict[str, bytes]) -> DraftManifest:  # noqa: ARG001
    """One of torch's image scores."""
    references = list(manifest.references)
    references[3] = references[3].model_copy(update={"score": references[3].score + 0.1})
    return manifest.model_copy(update={"references": tuple(references)})


def no_references(manifest: DraftManifest, members: dict[str, bytes]) -> DraftManifest:
    """Nothing to compare with."""
    for spec in manifest.references:
        del members[spec.map]
    return manifest.model_copy(update={"references": ()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (off_by_one_percent, "openvino-f32 does not compute what torch computed"),
        (not_a_number, "openvino-f32 does not compute what torch computed"),
        (another_score, "openvino-f32 does not compute what torch computed"),
        (no_references, "no references; fit it again"),
    ],
)
def test_an_export_that_does_not_compute_what_torch_computed_makes_no_bundle(
    draft: Path, opened: DataSet, tmp_path: Path, change: Change, said: str
) -> None:
    altered = rewritten(draft, tmp_path / "altered.draft", change)
    with pytest.raises(ParityError, match=said) as caught:
        seal(altered, opened, tmp_path / "part.takt")
    assert caught.value.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["altered.draft"]


def test_a_draft_rewritten_without_a_change_seals_to_the_same_thresholds(
    draft: Path, manifest: Manifest, opened: DataSet, tmp_path: Path
) -> None:
    same = rewritten(draft, tmp_path / "same.draft", lambda manifest, _: manifest)
    sealed = seal(same, opened, tmp_path / "part.takt")
    assert [a.thresholds for a in sealed.manifest.artefacts] == [a.thresholds for a in manifest.artefacts]
    assert load(tmp_path / "part.takt").digest == sealed.digest
    assert sealed.evaluation is not None
    assert sealed.evaluation.bundle == sealed.digest


def test_a_frame_that_decodes_to_other_pixels_than_where_it_was_fitted_is_refused(
    draft: Path, opened: DataSet, tmp_path: Path
) -> None:
    def other_pixels(manifest: DraftManifest, _: dict[str, bytes]) -> DraftManifest:
        references = [spec.model_copy(update={"pixels": "0" * 64}) for spec in manifest.references]
        return manifest.model_copy(update={"references": tuple(references)})

    with pytest.raises(DataError, match="decodes to other pixels here"):
        seal(rewritten(draft, tmp_path / "altered.draft", other_pixels), opened, tmp_path / "part.takt")
    assert not (tmp_path / "part.takt").exists()


def test_a_draft_of_random_weights_is_refused(draft: Path, opened: DataSet, tmp_path: Path) -> None:
    def unsealable(manifest: DraftManifest, _: dict[str, bytes]) -> DraftManifest:
        return manifest.model_copy(update={"sealable": False})

    with pytest.raises(BundleError, match=r"fitted with random weights.*cannot be sealed") as caught:
        seal(rewritten(draft, tmp_path / "altered.draft", unsealable), opened, tmp_path / "part.takt")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "part.takt").exists()


def test_another_data_set_than_the_drafts_is_refused(draft: Path, fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no image of digest .* give the data set that it was fitted to"):
        seal(draft, open_dataset(fresh), tmp_path / "part.takt")


def test_an_explicit_promise_on_too_few_images_makes_no_bundle(draft: Path, opened: DataSet, tmp_path: Path) -> None:
    with pytest.raises(TooFewSamplesError, match="needs 99 good calibration images, there are 10"):
        seal(draft, opened, tmp_path / "part.takt", policy=parse_policy("conformal:0.01"))
    assert not any(tmp_path.iterdir())


def test_a_bundle_is_no_draft(bundle: Path, opened: DataSet, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is sealed already"):
        seal(bundle, opened, tmp_path / "part.takt")


def test_no_guarantee_is_said_aloud(
    draft: Path, opened: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = seal(draft, opened, tmp_path / "part.takt")
    assert sealed.manifest.artefacts[0].thresholds["frame"].guarantee == "none"
    assert "policy sigma:3 on 10 good images promises no false-reject rate (guarantee: none)" in caplog.text


def test_manual_sets_image_and_pixel_threshold_to_the_number(draft: Path, opened: DataSet, tmp_path: Path) -> None:
    sealed = seal(draft, opened, tmp_path / "part.takt", policy=parse_policy("manual:0.4375"))
    for spec in sealed.manifest.artefacts:
        found = spec.thresholds["frame"]
        assert (found.reject, found.pixel, found.policy, found.guarantee) == (0.4375, 0.4375, "manual:0.4375", "none")


def test_a_calibration_split_gives_defects_to_the_policy_and_masks_to_the_pixel_threshold(
    borrowed: Sealed, opened: DataSet
) -> None:
    found = borrowed.manifest.artefacts[0].thresholds["frame"]
    known = {*borrowed.manifest.provenance.splits.calibration}
    lent = [s for s in opened.select(split=Split.TEST) if s.digest in known]
    labels = defaultdict(list)
    for part in stored_scores(borrowed.path, borrowed.manifest)["openvino-f32"]:
        labels[part.label].append(part)
    assert (found.n_good, found.n_defective) == (len(labels["good"]), len(labels["defective"]))
    assert len(labels["defective"]) == sum(s.label is Label.DEFECTIVE for s in lent) > 0
    scores = {label: np.array([part.score for part in parts]) for label, parts in labels.items()}
    peaks = {label: np.array([part.peak for part in parts]) for label, parts in labels.items()}
    f1 = parse_policy("f1")
    assert found.reject == threshold(f1, scores["good"], scores["defective"]).value
    assert found.pixel != threshold(f1, peaks["good"], peaks["defective"]).value  # pixels set it, not peaks
    assert found.pixel == pytest.approx(slow_pixel_threshold(borrowed, opened), abs=1e-4)


def slow_pixel_threshold(sealed: Sealed, opened: DataSet) -> float:
    """The threshold of the largest F1 over every pixel of the calibration images, by sorting them all."""
    values, truth = [], []
    for sample in opened.samples:
        if sample.digest in sealed.manifest.provenance.splits.calibration:
            frame_map = sealed.inspector.frame_map(sealed.inspector.inspect_file(sample.path))
            assert frame_map is not None
            values.append(frame_map.ravel())
            truth.append((sample.read_mask(Size(96, 96)) if sample.mask else np.zeros((96, 96), np.bool_)).ravel())
    joined, positive = np.concatenate(values), np.concatenate(truth)
    order = np.argsort(-joined, kind="stable")
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, hits.size + 1) + positive.sum())
    return float(joined[order][int(np.argmax(f1))])


@pytest.mark.slow
def test_a_bundle_of_two_precisions_has_thresholds_of_its_own_for_each(
    draft: Path, opened: DataSet, tmp_path: Path
) -> None:
    policy = parse_policy("sigma:1000")  # so high that the small bundle's frames do not flip in bf16
    sealed = seal(draft, opened, tmp_path / "part.takt", policy=policy, precisions=(Precision.BF16, Precision.F32))
    names = [spec.name for spec in sealed.manifest.artefacts]
    assert names == ["openvino-bf16", "openvino-f32", "onnxruntime-f32"]
    scores = stored_scores(sealed.path, sealed.manifest)
    for spec in sealed.manifest.artefacts:
        own = np.array([part.score for part in scores[spec.name]])
        assert spec.thresholds["frame"].reject == threshold(policy, own, own[:0]).value
    with Archive(sealed.path) as archive:
        assert read_manifest(archive).golden_tolerance > 1e-3
