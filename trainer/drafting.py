"""Owns the draft of a fitted model: its seam, background and references measured, its graphs exported, all written."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from calibration.perturb import FITTED, HELD_OUT, Variant
from calibration.progress import progress
from calibration.references import reference_frames
from calibration.samples import Label, Sample, shuffled
from edge_runtime.bundle.manifest import DraftManifest, ReferenceSpec
from edge_runtime.bundle.recipe import GraphSpec, ImageScoreRule, Recipe, no_frame_graph
from edge_runtime.bundle.store import DRAFT, array_bytes, write
from edge_runtime.bundle.training import TRAINING, TrainingRecord, dump_training
from edge_runtime.scorer import Scorer
from trainer.background import MIN_FRAMES, choose_background
from trainer.data.splits import Splits
from trainer.devices import peak_memory_mb
from trainer.export import to_onnx
from trainer.halo import with_seam
from trainer.plan import Plan
from trainer.torch_engine import TorchEngine

MAX_FITTED_REFERENCES = 16  # fit frames that stand in for held-out ones where none are held out
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What came of the fit."""

    module: nn.Module
    training: TrainingRecord | None  # None where it was fitted in one pass
    seconds: float


def write_draft(plan: Plan, fitted: Fitted, areas: dict[str, NDArray[np.bool_]], out: Path) -> None:
    """Measure what only a fitted model can tell, and write the draft.

    Args:
        plan: what was fitted.
        fitted: what came of it.
        areas: the valid areas by member name.
        out: the draft.

    Raises:
        DataError: an image cannot be used.
        ExportError: the model cannot be exported.
        BundleError: the draft cannot be written.
    """
    module, training = fitted.module, fitted.training
    recipe = with_seam(
        plan.recipe,
        module.to(plan.device).eval(),
        [sample.path for sample in plan.splits.fit],
        input_stride=plan.features.input_stride,
        device=plan.device,
    )
    has_image_score = plan.method.image_score is ImageScoreRule.GRAPH
    shape = recipe.graph_shape(image_score=has_image_score)
    raw = Scorer(recipe, TorchEngine(module, shape, plan.device), valid_areas=areas)
    scorer, background = _with_background(plan, raw)
    recipe = scorer.recipe
    references, maps = _references(recipe, scorer, _reference_samples(plan.splits, plan.config.seed))
    provenance = plan.recipe.provenance.model_copy(
        update={"fit_seconds": fitted.seconds, "peak_memory_mb": peak_memory_mb(plan.device)}
    )
    members = plan.members | background | maps
    graphs = _graphs(plan, recipe)
    for graph in graphs:
        shape = recipe.seen_by(graph).graph_shape(image_score=has_image_score)
        members[graph.files[0]] = to_onnx(module, shape)
    if training is not None:
        members[TRAINING] = dump_training(training)
    fields = {name: getattr(recipe, name) for name in Recipe.model_fields} | {"provenance": provenance}
    draft = DraftManifest(
        format_version=1,
        **fields,
        graphs=graphs,
        has_image_score=has_image_score,
        references=references,
        sealable=not plan.features.origin.random,
        members={},
    )
    write(out, draft, members, DRAFT)


def _with_background(plan: Plan, scorer: Scorer) -> tuple[Scorer, dict[str, bytes]]:
    """The same scorer, with a background where validation images say that one helps, and its members."""
    wanted, validation = plan.config.background, plan.splits.validation
    judged_by_map = plan.method.image_score is not ImageScoreRule.GRAPH
    if not judged_by_map or wanted == "off" or (wanted == "auto" and len(validation) < MIN_FRAMES):
        return scorer, {}
    chosen = choose_background(scorer, [sample.path for sample in validation], always=wanted == "on")
    if chosen is None:
        return scorer, {}
    windows = plan.method.pooled_windows
    cells = None if windows is None else windows[2]
    policy = scorer.recipe.map_policy.model_copy(update={"background": chosen.spec, "pooled_cells": cells})
    recipe = scorer.recipe.model_copy(update={"map_policy": policy})
    judged = Scorer(recipe, scorer.engine, valid_areas=scorer.valid_areas, backgrounds=chosen.backgrounds)
    return judged, chosen.members


def _graphs(plan: Plan, recipe: Recipe) -> tuple[GraphSpec, ...]:
    """What is to be exported; the frame graph is left out, and that is said, where it could not share thresholds."""
    graphs = [recipe.tile_graph(("graphs/tile.onnx",))]
    if plan.config.frame_graph:
        why = no_frame_graph(recipe)
        if why is None:
            graphs.append(recipe.frame_graph(plan.features.input_stride, ("graphs/frame.onnx",)))
        else:
            _LOG.warning("--frame-graph: there will be none: %s", why)
    return tuple(graphs)


def _references(
    recipe: Recipe, scorer: Scorer, wanted: Sequence[tuple[Sample, Variant]]
) -> tuple[tuple[ReferenceSpec, ...], dict[str, bytes]]:
    """Torch's maps and scores of the parity frames, through the runtime's own scorer."""
    specs: list[ReferenceSpec] = []
    maps: dict[str, bytes] = {}
    for reference in reference_frames(recipe, scorer.regions, progress(wanted, "torch references")):
        for part in scorer.score(reference.frame).regions:
            member = f"references/{len(specs)}.npy"
            maps[member] = array_bytes(part.grid)
            specs.append(
                ReferenceSpec(
                    digest=reference.sample.digest,
                    variant=reference.variant.value,
                    pixels=reference.pixels_digest,
                    region=part.name,
                    score=part.image_score,
                    map=member,
                )
            )
    return tuple(specs), maps


def _reference_samples(splits: Splits, seed: int) -> list[tuple[Sample, Variant]]:
    """Held-out frames as they are and with a painted defect; without any, changed frames of the fit share."""
    held_out = (*splits.calibration, *splits.validation)
    if any(sample.label is Label.GOOD for sample in held_out):
        kinds = {Label.GOOD: HELD_OUT, Label.DEFECTIVE: (Variant.ORIGINAL,)}
        return [(sample, variant) for sample in held_out for variant in kinds[sample.label]]
    chosen = shuffled(splits.fit, seed)[:MAX_FITTED_REFERENCES]
    borrowed = [(sample, Variant.ORIGINAL) for sample in held_out]
    return [(sample, variant) for sample in chosen for variant in FITTED] + borrowed
