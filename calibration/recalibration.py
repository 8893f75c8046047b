"""Owns `takt calibrate`: new thresholds, and perhaps frames of another size, for a sealed bundle, in a new bundle. Needs no torch."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from calibration.evaluation import evaluate_rest
from calibration.golden import golden_frames
from calibration.other_frames import of_old_frames, on_frames_of
from calibration.parity import load_parity, recount
from calibration.perturb import HELD_OUT
from calibration.policies import Policy
from calibration.references import reference_frames
from calibration.samples import DataSet, Label, Sample
from calibration.sealing import REPORT, Sealed, recipe_fields, report_member, warn_of_no_guarantee
from calibration.thresholds import dump_scores, region_thresholds, score_samples
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load, open_scorer
from edge_runtime.bundle.manifest import ArtefactSpec, Manifest, RegionThresholds
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import MANIFEST, SIGNATURE, check_writable, write
from edge_runtime.engines import Precision
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Size
from edge_runtime.inspector import Inspector
from edge_runtime.scorer import Scorer

_LOG = logging.getLogger("takt")


def calibrate(
    path: Path,
    dataset: DataSet,
    out: Path,
    *,
    policy: Policy | None = None,
    frame: Size | None = None,
    threads: int | None = None,
) -> Sealed:
    """Set new thresholds from new images, for every artefact of a bundle, and write a new bundle.

    Args:
        path: a sealed bundle.
        dataset: see `calibration_samples` for which images are used.
        out: the bundle to write.
        policy: sets the thresholds; chosen by the number of good images when None.
        frame: inspect frames of this size from now on; those of the bundle when None.
        threads: CPU threads of one inference.

    Raises:
        BundleError: the bundle cannot be trusted, or the new one cannot be written.
        DataError: an image cannot be used, or none is left.
        CalibrationError: the policy cannot be met.
        ParityError: at the new thresholds an artefact decides otherwise than torch did.
        ConfigError: the model cannot look at frames of another size.
    """
    check_writable(out)
    built = load(path, threads=threads).manifest  # every step of verification, before anything is built on it
    manifest = built if frame is None else on_frames_of(built, frame)
    samples, left_out = calibration_samples(manifest, dataset, policy)
    with Archive(path) as archive:
        members = {name: archive.read(name) for name in sorted(archive.names - {MANIFEST, SIGNATURE, REPORT})}
        scorers = {
            spec.name: open_scorer(archive, manifest, spec, GraphRole.TILE, threads=threads)
            for spec in manifest.artefacts
        }
    if frame is not None:
        if any(spec.graph(GraphRole.FRAME) is not None for spec in built.artefacts):
            _LOG.warning(
                "--frame: the graph of whole frames of %s is left out: build from frames of %s for one",
                built.geometry.frame.size,
                frame,
            )
        members = {name: data for name, data in members.items() if name not in of_old_frames(built)}
        manifest, golden = _with_golden(manifest, scorers, dataset)
        members |= golden
    sets = {name: score_samples(scorer, samples, f"calibrate {name}") for name, scorer in scorers.items()}
    thresholds = {
        spec.name: region_thresholds(scorers[spec.name], sets[spec.name], policy, _shown(spec))
        for spec in manifest.artefacts
    }
    warn_of_no_guarantee(thresholds[manifest.artefacts[0].name])
    specs = _specifications(manifest, members, thresholds)
    members |= {spec.scores: dump_scores(sets[spec.name].scores) for spec in specs}
    recorded = manifest.provenance.splits.model_copy(update={"calibration": tuple(s.digest for s in samples)})
    provenance = manifest.provenance.model_copy(update={"splits": recorded})
    renewed = manifest.model_copy(
        update=recipe_fields(manifest) | {"provenance": provenance, "artefacts": specs, "members": {}}
    )
    default = scorers[specs[0].name]
    scorer = Scorer(renewed, default.engine, valid_areas=default.valid_areas, backgrounds=default.backgrounds)
    inspector = Inspector(scorer, specs[0], digest="")
    evaluation = evaluate_rest(inspector, dataset)
    members |= report_member(evaluation, inspector, members)
    renewed = renewed.model_copy(update={"report": REPORT if REPORT in members else None})
    digest = write(out, renewed, members, MANIFEST)
    inspector = Inspector(scorer, specs[0], digest)
    evaluation = None if evaluation is None else replace(evaluation, bundle=digest)
    return Sealed(
        path=out, digest=digest, manifest=renewed, evaluation=evaluation, inspector=inspector, n_left_out=left_out
    )


def _with_golden(
    manifest: Manifest, scorers: Mapping[str, Scorer], dataset: DataSet
) -> tuple[Manifest, dict[str, bytes]]:
    """The same with an image of the data set, as it is and with a painted defect, for golden frames; and their members."""
    regions = next(iter(scorers.values())).regions
    wanted = [(dataset.samples[0], variant) for variant in HELD_OUT]
    frames = list(reference_frames(manifest, regions, wanted))
    golden, members = golden_frames(frames, {(name, GraphRole.TILE): scorer for name, scorer in scorers.items()})
    return manifest.model_copy(update={"golden": golden}), members


def calibration_samples(manifest: Manifest, dataset: DataSet, policy: Policy | None) -> tuple[list[Sample], int]:
    """The images to calibrate on, and how many were left out because the model was fitted to them.

    On the data set that the bundle was built on, the recorded calibration split; elsewhere all good images, and the
    defective ones where the policy looks at them.

    Raises:
        DataError: none is left.
    """
    splits = manifest.provenance.splits
    recorded = set(splits.calibration)
    seen = {*splits.fit, *splits.validation}
    if recorded and dataset.fingerprint == manifest.provenance.dataset_fingerprint:
        return [sample for sample in dataset.samples if sample.digest in recorded], 0
    labels = {Label.GOOD, Label.DEFECTIVE} if policy is not None and policy.uses_defective else {Label.GOOD}
    usable = [sample for sample in dataset.samples if sample.label in labels]
    samples = [sample for sample in usable if sample.digest not in seen]
    if not samples and (policy is None or policy.name != "manual"):
        message = (
            f"{dataset.root}: all {len(usable)} usable images had a part in the fit: "
            "give good images that the model has not seen"
        )
        raise DataError(message)
    return samples, len(usable) - len(samples)


def _specifications(
    manifest: Manifest, members: Mapping[str, bytes], thresholds: Mapping[str, dict[str, RegionThresholds]]
) -> tuple[ArtefactSpec, ...]:
    """Artefacts with new thresholds; flips are counted again from the parity scores that the bundle keeps."""
    pairs = {spec.name: load_parity(members[spec.parity_scores], spec.parity_scores) for spec in manifest.artefacts}
    f32 = next(spec.name for spec in manifest.artefacts if spec.precision is Precision.F32)
    specs = []
    for spec in manifest.artefacts:
        own = thresholds[spec.name]
        is_f32 = spec.precision is Precision.F32
        held_against = (own, own if is_f32 else thresholds[f32], None if is_f32 else pairs[f32])
        parity = recount(spec.parity, spec.name, pairs[spec.name], *held_against)
        frame = spec.frame
        if frame is not None:
            scores = load_parity(members[frame.parity_scores], frame.parity_scores)
            counted = recount(frame.parity, f"{spec.name}, frame graph", scores, *held_against)
            frame = frame.model_copy(update={"parity": counted})
        specs.append(spec.model_copy(update={"thresholds": own, "parity": parity, "frame": frame}))
    return tuple(specs)


def _shown(spec: ArtefactSpec) -> list[tuple[float, float]]:
    """The colour range as it was, in the form that thresholds take it: median, and peak half-way up."""
    return [(t.display_low, (t.display_low + t.display_high) / 2) for t in spec.thresholds.values()]
