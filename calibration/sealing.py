"""Owns the way from a draft to a sealed bundle.

1. graphs       IR from ONNX; one candidate artefact for each engine and precision
2. parity       every candidate scores the frames that torch scored
3. calibration  every candidate scores the calibration images; its thresholds come from its own scores
4. flips        verdicts against torch's, and against f32's
5. golden       frames that every machine must reproduce
6. evaluation   on the test tree, where there is one
7. sealing      one file, written at once
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration.candidates import Candidate, make_candidates
from calibration.draft import Draft, open_draft
from calibration.evaluation import Evaluation, evaluate_rest
from calibration.golden import TOLERANCE, golden_frames
from calibration.parity import ParityMeasurement, ReferenceScore, dump_parity, evidence, measure, require
from calibration.perturb import Variant
from calibration.policies import Policy
from calibration.progress import progress
from calibration.references import ReferenceFrame, reference_frames
from calibration.samples import DataSet, Sample
from calibration.thresholds import CalibrationSet, dump_scores, region_thresholds, score_samples
from edge_runtime.bundle.manifest import ArtefactSpec, FrameEvidence, Manifest, RegionThresholds
from edge_runtime.bundle.recipe import GraphRole, Recipe
from edge_runtime.bundle.store import MANIFEST, check_writable, write
from edge_runtime.bundle.training import TRAINING, parse_training
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Frame
from edge_runtime.imaging.maps import Map
from edge_runtime.inspector import Inspector
from edge_runtime.scorer import Scorer

REPORT = "report/index.html"
LICENCES = "LICENCES.json"
_LATENCY_RUNS = 9
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A bundle as it was just written."""

    path: Path
    digest: str
    manifest: Manifest
    evaluation: Evaluation | None  # None where no test image is left
    inspector: Inspector  # of the default artefact
    n_left_out: int = 0  # images that calibration did not use because the model was fitted to them


@dataclass(frozen=True, kw_only=True, slots=True)
class _ParityRun:
    """What came of scoring torch's frames with every candidate."""

    measured: dict[str, ParityMeasurement]  # of tile graphs
    whole: dict[str, ParityMeasurement]  # of frame graphs, against torch's maps of tiles
    good_maps: dict[str, list[tuple[float, float]]]  # median and peak of unpainted frames, by candidate and region
    kept: list[ReferenceFrame]  # two frames for the golden set


def seal(
    draft_path: Path,
    dataset: DataSet,
    out: Path,
    *,
    policy: Policy | None = None,
    precisions: Sequence[Precision] = (Precision.F32,),
    full_masks: bool = False,
    frame_graph: bool = False,
    threads: int | None = None,
    with_report: bool = True,
) -> Sealed:
    """Seal a draft; the module's docstring lists the steps.

    Args:
        draft_path: what `takt fit` made.
        dataset: the data set that it was fitted to; calibration images are found in it by their digests.
        out: the bundle to write.
        policy: sets the thresholds; chosen by the number of good calibration images when None.
        precisions: of the OpenVINO artefacts, the default artefact first.
        full_masks: see `evaluate`.
        frame_graph: refuse a draft without a frame graph; one that has it is sealed with it in any case.
        threads: CPU threads of one inference.
        with_report: draw the report that goes into the bundle.

    Raises:
        ConfigError: a frame graph is asked for and the draft has none.
        BundleError: the draft cannot be used, or the bundle cannot be written.
        DataError: an image is missing or cannot be used.
        ParityError: an artefact does not compute what torch computed, or decides otherwise too often.
        CalibrationError: the policy cannot be met.
    """
    check_writable(out)
    draft = open_draft(draft_path)
    if frame_graph and GraphRole.FRAME not in draft.graphs:
        message = f"--frame-graph: {draft_path} holds no frame graph, and sealing cannot make one: give the flag to `takt fit`"
        raise ConfigError(message)
    candidates = make_candidates(draft, precisions, threads)
    parity = _parity(draft, dataset, candidates)
    calibrations = _calibrate(draft, dataset, candidates)
    thresholds = {
        c.name: region_thresholds(c.scorer, calibrations[c.name], policy, parity.good_maps[c.name]) for c in candidates
    }
    warn_of_no_guarantee(thresholds[candidates[0].name])
    specs, members = _specifications(candidates, parity, calibrations, thresholds)
    every = {(c.name, role): scorer for c in candidates for role, scorer in c.scorers.items()}
    golden, golden_members = golden_frames(parity.kept, every)
    inspector = Inspector(candidates[0].scorer, specs[0], digest="")
    evaluation = evaluate_rest(inspector, dataset, full_masks=full_masks)
    members |= golden_members | draft.members
    members |= report_member(evaluation if with_report else None, inspector, members)
    manifest = Manifest(
        format_version=1,
        **recipe_fields(draft.manifest),
        artefacts=specs,
        has_image_score=draft.manifest.has_image_score,
        normalisation="threshold_relative",
        golden=golden,
        golden_tolerance=TOLERANCE[all(spec.precision is Precision.F32 for spec in specs)],
        licences=LICENCES,
        report=REPORT if REPORT in members else None,
        members={},
    )
    digest = write(out, manifest, members, MANIFEST)
    inspector = Inspector(candidates[0].scorer, specs[0], digest)
    evaluation = None if evaluation is None else replace(evaluation, bundle=digest)
    return Sealed(path=out, digest=digest, manifest=manifest, evaluation=evaluation, inspector=inspector)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields for the next file made of it, dated now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {name: getattr(recipe, name) for name in Recipe.model_fields} | {"created": now}


def report_member(
    evaluation: Evaluation | None, inspector: Inspector, members: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The report as a member beside the others; none without an evaluation or without the packages that draw it."""
    if evaluation is None:
        return {}
    from calibration.report import render  # noqa: PLC0415 - needs packages that a factory PC may lack

    training = parse_training(members[TRAINING], "the draft") if TRAINING in members else None
    try:
        return {REPORT: render(evaluation, inspector, training=training).encode()}
    except ConfigError as error:
        _LOG.warning("the bundle gets no report: %s", error)
        return {}


def _parity(draft: Draft, dataset: DataSet, candidates: Sequence[Candidate]) -> _ParityRun:
    """Step 2: score torch's frames with every candidate and compare."""
    by_digest = {sample.digest: sample for sample in dataset.samples}
    expected = {(spec.digest, spec.variant, spec.region): (spec, grid) for spec, grid in draft.references}
    wanted = list(dict.fromkeys((spec.digest, spec.variant) for spec, _ in draft.references))
    frames = [(_find(digest, by_digest, dataset), Variant(variant)) for digest, variant in wanted]
    references: list[ReferenceScore] = []
    found: dict[tuple[str, GraphRole], list[tuple[float, Map]]] = {
        (c.name, role): [] for c in candidates for role in c.scorers
    }
    good_maps: dict[str, list[tuple[float, float]]] = {c.name: [] for c in candidates}
    kept: dict[bool, ReferenceFrame] = {}
    made = reference_frames(draft.manifest, candidates[0].scorer.regions, progress(frames, "parity"))
    for reference in made:
        painted = reference.variant is Variant.PAINTED
        kept.setdefault(painted, reference)
        for part in candidates[0].scorer.regions:
            spec, grid = expected[reference.sample.digest, reference.variant, part.name]
            _check_pixels(reference, spec.pixels)
            references.append(ReferenceScore(reference.sample.name, reference.variant, part.name, spec.score, grid))
        for candidate in candidates:
            for role, scorer in candidate.scorers.items():
                parts = scorer.score(reference.frame).regions
                found[candidate.name, role] += [(part.image_score, part.grid) for part in parts]
                if role is GraphRole.TILE and not painted:
                    good_maps[candidate.name] += [
                        (scorer.valid_median(part), scorer.valid_peak(part)) for part in parts
                    ]
    measured = {
        (c.name, role): measure(c.precision, references, found[c.name, role]) for c in candidates for role in c.scorers
    }
    for (name, role), measurement in measured.items():
        require(measurement, name if role is GraphRole.TILE else f"{name}, frame graph")
    return _ParityRun(
        measured={name: one for (name, role), one in measured.items() if role is GraphRole.TILE},
        whole={name: one for (name, role), one in measured.items() if role is GraphRole.FRAME},
        good_maps=good_maps,
        kept=list(kept.values()),
    )


def _check_pixels(reference: ReferenceFrame, expected: str) -> None:
    if reference.pixels_digest != expected:
        message = (
            f"{reference.label}: decodes to other pixels here than where the draft was fitted: "
            "the machines have different image decoders; seal where you fitted, or use lossless images"
        )
        raise DataError(message)


def _find(digest: str, by_digest: Mapping[str, Sample], dataset: DataSet) -> Sample:
    if digest not in by_digest:
        message = f"{dataset.root}: has no image of digest {digest[:12]}, which the draft needs: give the data set that it was fitted to"
        raise DataError(message)
    return by_digest[digest]


def _calibrate(draft: Draft, dataset: DataSet, candidates: Sequence[Candidate]) -> dict[str, CalibrationSet]:
    """Step 3: score the calibration images with every candidate."""
    by_digest = {sample.digest: sample for sample in dataset.samples}
    samples = [_find(digest, by_digest, dataset) for digest in draft.manifest.provenance.splits.calibration]
    return {c.name: score_samples(c.scorer, samples, f"calibrate {c.name}") for c in candidates}


def _specifications(
    candidates: Sequence[Candidate],
    parity: _ParityRun,
    calibrations: Mapping[str, CalibrationSet],
    thresholds: Mapping[str, dict[str, RegionThresholds]],
) -> tuple[tuple[ArtefactSpec, ...], dict[str, bytes]]:
    """Step 4, and the artefacts' part of manifest and members."""
    f32 = next(c.name for c in candidates if c.precision is Precision.F32)
    specs: list[ArtefactSpec] = []
    members: dict[str, bytes] = {}
    for candidate in candidates:
        name, is_f32 = candidate.name, candidate.precision is Precision.F32
        held_against = (
            thresholds[name] if is_f32 else thresholds[f32],
            None if is_f32 else parity.measured[f32].scores,
        )
        scores, parity_scores = f"calibration/{name}.json", f"calibration/{name}-parity.json"
        members |= candidate.files
        members[scores] = dump_scores(calibrations[name].scores)
        members[parity_scores] = dump_parity(parity.measured[name].scores)
        whole = None
        if name in parity.whole:
            member = f"calibration/{name}-frame-parity.json"
            members[member] = dump_parity(parity.whole[name].scores)
            whole = FrameEvidence(
                parity=evidence(parity.whole[name], f"{name}, frame graph", thresholds[name], *held_against),
                parity_scores=member,
                latency_ms=_latency(candidate.scorers[GraphRole.FRAME], parity.kept[0].frame),
            )
        specs.append(
            ArtefactSpec(
                name=name,
                engine=candidate.engine,
                precision=candidate.precision,
                graphs=candidate.graphs,
                parity=evidence(parity.measured[name], name, thresholds[name], *held_against),
                thresholds=thresholds[name],
                scores=scores,
                parity_scores=parity_scores,
                latency_ms=_latency(candidate.scorer, parity.kept[0].frame),
                frame=whole,
            )
        )
    return tuple(specs), members


def _latency(scorer: Scorer, frame: Frame) -> float:
    """Median milliseconds of scoring one frame, warmed up."""
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        scorer.score(frame)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[1:])


def warn_of_no_guarantee(thresholds: Mapping[str, RegionThresholds]) -> None:
    """Say on stderr that a threshold promises nothing."""
    for name, found in thresholds.items():
        if found.guarantee == "none":
            _LOG.warning(
                "region %s: policy %s on %d good images promises no false-reject rate (guarantee: none)",
                name,
                found.policy,
                found.n_good,
            )
