"""Owns `takt fit`: from a data set to a draft. Needs torch and no OpenVINO.

data set -> splits -> survey -> geometry and tiling -> backbone -> graph's size and memory check -> fit -> ONNX -> torch's references
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.perturb import FITTED, HELD_OUT, Variant
from calibration.progress import progress
from calibration.references import reference_frames
from calibration.samples import DataSet, Label, Sample, shuffled
from edge_runtime.bundle.manifest import (
    DraftManifest,
    GraphSpec,
    ImageScoreRule,
    Recipe,
    ReferenceSpec,
    SizeSpec,
    no_frame_graph,
)
from edge_runtime.bundle.store import DRAFT, array_bytes, check_writable, write
from edge_runtime.bundle.training import TRAINING, TrainingRecord, dump_training
from edge_runtime.engines import EngineName
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.scorer import Scorer
from trainer.background import MIN_FRAMES, choose_background
from trainer.checkpoint import batch_of
from trainer.config import AUTO, BuildConfig
from trainer.data.augment import Views
from trainer.data.planes import Planes
from trainer.data.selection import Selection, check_left, select
from trainer.data.splits import Splits
from trainer.data.textures import find_pictures
from trainer.data.tiles import FrameTiles
from trainer.devices import check_memory, largest_batch, peak_memory_mb
from trainer.export import to_onnx
from trainer.halo import with_seam
from trainer.models.method import FitData, FitSettings
from trainer.models.registry import find_method
from trainer.needs import Smaller, check_graph, told
from trainer.plan import Plan, check_flags, make_plan, valid_areas
from trainer.preflight import Preflight, check_inspection
from trainer.processes import Processes
from trainer.torch_engine import TorchEngine

MAX_FITTED_REFERENCES = 16  # fit frames that stand in for held-out ones where none are held out
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """What came of the fit."""

    module: nn.Module
    training: TrainingRecord | None  # None where it was fitted in one pass
    seconds: float


def fit(
    config: BuildConfig,
    root: Path,
    out: Path,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    processes: Processes | None = None,
    engine: EngineName = EngineName.ONNXRUNTIME,
) -> DataSet:
    """Fit a model and write it as a draft; returns the data set, for who goes on to seal.

    Args:
        config: the settings.
        root: the data set.
        out: the draft.
        checkpoint: where a fit by gradients keeps its state; beside the draft when None.
        resume: go on from there.
        processes: that share the fit; the first one writes the draft. Alone when None.
        engine: with which the time of an inspection is predicted.

    Raises:
        TaktError: another process is gone.
        ConfigError: settings that contradict or cannot be met, memory and the inspection's deadline included.
        DataError: images that cannot be used.
        ExportError: the model cannot be exported.
        BundleError: the draft cannot be written.
    """
    processes = processes or Processes()
    check_flags(config, find_method(config.method), processes, resume=resume)
    if processes.leads:
        check_writable(out)
    torch.manual_seed(config.seed)
    plan = make_plan(config, root, processes)
    areas = valid_areas(plan.members)
    source = _source(plan, areas)
    settings = FitSettings(
        seed=config.seed,
        coreset=config.coreset,
        buffer_bytes=config.fit_memory_mb * 2**20,
        steps=config.steps,
        learning_rate=config.learning_rate,
        width=config.width or 1.0,
        checkpoint=checkpoint or out.with_name(f"{out.name}.checkpoint"),
        identity=_identity(plan),
        resume=resume,
        textures=None if config.textures is None else Path(config.textures),
        processes=processes,
    )
    smaller = _smaller(plan, areas)
    graphs = 2 if config.frame_graph else 1
    single = _data(plan, source, 1)  # before a batch is tried out
    graph = check_graph(plan.method, plan.features, single, settings, graphs=graphs, smaller=smaller)
    if plan.leads:
        looked_at = plan
        preflight = Preflight(engine, settings, lambda other: single if other is looked_at else fit_data(other))
        check_inspection(plan, preflight)
    start = time.monotonic()
    plan, batch = _with_batch(plan, source, settings)
    data = _data(plan, source, batch)
    memory = check_memory(plan.method, plan.features, data, settings, smaller=smaller)
    _LOG.info("%s", told(plan.method, memory=memory, graph=graph, graphs=graphs))
    module = _fitted(plan, data, settings)
    processes.leave()
    if not processes.leads:
        return plan.dataset
    seconds = time.monotonic() - start
    _write(plan, _Fitted(module=module, training=settings.history.record(), seconds=seconds), areas, out)
    return plan.dataset


_NOT_OF_A_FIT = {
    "product",
    "policy",
    "precision",
    "smallest_region",
    "full_masks",
    "background",
    "device",
    "workers",
    "fit_memory_mb",
    "tile_cache",
    "frame_graph",
    "deadline_ms",
    "memory_mb",
}


def _identity(plan: Plan) -> dict[str, str]:
    """What a fit that is gone on with must share with the one that was broken off, beside seed, schedule and images."""
    origin = plan.features.origin
    left_out = _NOT_OF_A_FIT | {"method", "seed", "batch", "steps", "learning_rate", "region"}
    said = plan.config.model_dump(mode="json", exclude=left_out)
    said["region"] = [region.model_dump(mode="json", exclude={"smallest_region"}) for region in plan.config.region]
    pictures = [] if plan.config.textures is None else find_pictures(Path(plan.config.textures), flag="--textures")
    mask = plan.rule.mask
    listed = "".join(f"{picture.name} {picture.stat().st_size}\n" for picture in pictures)
    return {
        "method": plan.method.name,
        "weights' digest": str(origin.digest or origin.source),
        **{f"--{name.replace('_', '-')}": str(value) for name, value in said.items()},
        "pictures": hashlib.sha256(listed.encode()).hexdigest()[:16],
        "foreground mask": "none" if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()[:16],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """Where tiles come from."""

    planes: Planes
    selection: Selection


def _source(plan: Plan, areas: dict[str, NDArray[np.bool_]], *, quiet: bool = False) -> _Source:
    """Lay out the planes and select among their tiles, once for all that iterates over them.

    Raises:
        DataError: no tile of a share is left.
    """
    planes = Planes(plan.recipe, areas, plan.cache)
    shares = {"fit": plan.splits.fit, "validation": plan.splits.validation}
    every = [sample for samples in shares.values() for sample in samples]
    selection = select(plan.rule, planes, every, workers=plan.config.workers, quiet=not plan.leads)
    for name, samples in shares.items():
        if not plan.rule.selects or not samples:
            continue
        left, whole = check_left(plan.rule, selection, planes, samples, name)
        if plan.leads and not quiet:
            images = len(selection.with_tiles(samples))
            told = f"{left} of {whole} tiles, of {images} of {len(samples)} {name} images"
            hint = ": cut off with --crop or --valid-area what those left out alone show" if left < whole else ""
            _LOG.info("%s: trains on %s; inspection covers them all%s", plan.rule, told, hint)
    return _Source(planes=planes, selection=selection)


def _data(plan: Plan, source: _Source, batch: int, images: int | None = None) -> FitData:
    """The tiles by share; of the first so many images only where that is said. Augmented is the fit share alone."""
    white = 2**plan.recipe.geometry.bit_depth - 1

    def tiles(samples: Sequence[Sample], views: Views) -> FrameTiles:
        return FrameTiles(
            source.planes,
            source.selection,
            source.selection.with_tiles(samples)[:images],
            views=views,
            batch=batch,
            workers=plan.config.workers,
            device=plan.device,
            quiet=not plan.leads,
        )

    return FitData(
        fit=tiles(plan.splits.fit, Views(kinds=plan.config.augment, seed=plan.config.seed, white=white)),
        validation=tiles(plan.splits.validation, Views()) if plan.splits.validation else None,
    )


def fit_data(plan: Plan) -> FitData:
    """The tiles of a plan that is tried and perhaps never fitted, in batches of one.

    Raises:
        DataError: no tile of a share is left.
    """
    return _data(plan, _source(plan, valid_areas(plan.members), quiet=True), 1)


def _smaller(plan: Plan, areas: dict[str, NDArray[np.bool_]]) -> Smaller | None:
    """The tiles at a share of the scale, where their number decides on memory; None elsewhere."""
    if not plan.recipe.tiling.position_bound or plan.config.tile is None:
        return None

    def data(share: float) -> FitData:
        geometry = plan.recipe.geometry
        regions = []
        for region in geometry.regions:
            width, height = (max(1, round(share * side)) for side in region.plane.size)
            regions.append(region.model_copy(update={"plane": SizeSpec(width=width, height=height)}))
        geometry = geometry.model_copy(update={"regions": tuple(regions)})
        scaled = replace(plan, recipe=plan.recipe.model_copy(update={"geometry": geometry}))
        return _data(scaled, _source(scaled, areas, quiet=True), 1)

    return Smaller(scale=plan.config.scale or 1.0, data=data)


def _with_batch(plan: Plan, source: _Source, settings: FitSettings) -> tuple[Plan, int]:
    """Decide on `--batch auto`, and record what was decided: built again from the record, the bundle is the same."""
    if plan.config.batch != AUTO:
        return plan, plan.config.batch
    if settings.resume and settings.checkpoint is not None:
        batch = batch_of(settings.checkpoint)
    else:
        batch = largest_batch(
            plan.method, plan.features, lambda batch, images: _data(plan, source, batch, images), settings
        )
    _LOG.info("--batch auto: %d tiles in a batch", batch)
    config = plan.config.model_copy(update={"batch": batch})
    provenance = plan.recipe.provenance.model_copy(update={"config": config.model_dump(mode="json")})
    return replace(plan, config=config, recipe=plan.recipe.model_copy(update={"provenance": provenance})), batch


def _fitted(plan: Plan, data: FitData, settings: FitSettings) -> nn.Module:
    """The method's module.

    Raises:
        ConfigError: the GPU's memory does not suffice after all.
    """
    try:
        return plan.method.fit(plan.features, data, settings)
    except torch.OutOfMemoryError as error:
        message = f"--method {plan.method.name}: the GPU's memory is full at batches of {data.fit.batch}: give --batch auto, or a smaller one"
        raise ConfigError(message) from error


def _write(plan: Plan, fitted: _Fitted, areas: dict[str, NDArray[np.bool_]], out: Path) -> None:
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
    if wanted == "on" and len(validation) < 2:  # noqa: PLR2004 - one has no spread
        message = f"--background on: {len(validation)} good image(s) set apart, needs 2 at least: raise --validation"
        raise DataError(message)
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
