"""Owns `takt fit`: from a data set to a draft. Needs torch and no OpenVINO.

data set -> splits -> survey -> geometry and tiling -> backbone -> graph's size and memory check -> fit -> ONNX -> torch's references
"""

import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from calibration.samples import DataSet
from edge_runtime.bundle.store import check_writable
from edge_runtime.engines import EngineName
from edge_runtime.errors import ConfigError
from trainer.checkpoint import batch_of
from trainer.config import AUTO, BuildConfig, as_typed
from trainer.data.textures import find_pictures
from trainer.devices import check_memory, largest_batch
from trainer.drafting import Fitted, write_draft
from trainer.flags import check_flags
from trainer.models.method import FitData, FitSettings
from trainer.models.registry import find_method
from trainer.needs import check_graph, told
from trainer.plan import Plan, make_plan, valid_areas
from trainer.preflight import Preflight, check_inspection
from trainer.processes import Processes
from trainer.shares import Source, fit_data, lay_out, share_out, smaller_settings

_LOG = logging.getLogger("takt")


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
    source = lay_out(plan, areas)
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
    smaller = smaller_settings(plan, areas)
    graphs = 2 if config.frame_graph else 1
    single = share_out(plan, source, 1)  # before a batch is tried out
    graph = check_graph(plan.method, plan.features, single, settings, graphs=graphs, smaller=smaller)
    if plan.leads:
        looked_at = plan
        preflight = Preflight(engine, settings, lambda other: single if other is looked_at else fit_data(other))
        check_inspection(plan, preflight)
    start = time.monotonic()
    plan, batch = _with_batch(plan, source, settings)
    data = share_out(plan, source, batch)
    memory = check_memory(plan.method, plan.features, data, settings, smaller=smaller)
    _LOG.info("%s", told(plan.method, memory=memory, graph=graph, graphs=graphs))
    module = _fitted(plan, data, settings)
    processes.leave()
    if not processes.leads:
        return plan.dataset
    seconds = time.monotonic() - start
    write_draft(plan, Fitted(module=module, training=settings.history.record(), seconds=seconds), areas, out)
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
        **{f"--{name.replace('_', '-')}": as_typed(value) for name, value in said.items()},
        "pictures": hashlib.sha256(listed.encode()).hexdigest()[:16],
        "foreground mask": "none" if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()[:16],
    }


def _with_batch(plan: Plan, source: Source, settings: FitSettings) -> tuple[Plan, int]:
    """Decide on `--batch auto`, and record what was decided: built again from the record, the bundle is the same."""
    if plan.config.batch != AUTO:
        return plan, plan.config.batch
    if settings.resume and settings.checkpoint is not None:
        batch = batch_of(settings.checkpoint)
    else:
        batch = largest_batch(
            plan.method, plan.features, lambda batch, images: share_out(plan, source, batch, images), settings
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
