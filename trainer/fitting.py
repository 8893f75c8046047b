"""Owns `takt fit`: from a data set to a draft. Needs torch and no OpenVINO.

data set -> splits -> survey -> geometry and tiling -> backbone -> memory check -> fit -> ONNX -> torch's references
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.layouts import open_dataset
from calibration.perturb import FITTED, HELD_OUT, Variant
from calibration.progress import progress
from calibration.references import reference_frames
from calibration.samples import DataSet, Label, Sample, shuffled
from edge_runtime.bundle.manifest import (
    DraftManifest,
    ImageScoreRule,
    MapPolicySpec,
    ProvenanceSpec,
    Recipe,
    ReferenceSpec,
    SplitsSpec,
    packages,
)
from edge_runtime.bundle.store import DRAFT, array_bytes, check_writable, json_bytes, write
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import decode_png
from edge_runtime.scorer import Scorer
from trainer.backbones import Features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import weights_folder
from trainer.config import DEFAULT_BACKBONE, BuildConfig
from trainer.data.splits import Splits, split
from trainer.data.tiles import FrameTiles
from trainer.export import to_onnx
from trainer.geometry import FrameSurvey, make_geometry, make_tiling, survey
from trainer.models.method import FeatureRequest, FitData, FitSettings, Method
from trainer.models.registry import find_method
from trainer.torch_engine import TorchEngine

MAX_FITTED_REFERENCES = 16  # fit frames that stand in for held-out ones where none are held out
_MEMORY_SHARE = 0.9  # of what is free; the rest is for the network and the system
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Everything that is known before the first feature is computed."""

    config: BuildConfig
    dataset: DataSet
    splits: Splits
    method: Method
    features: Features
    recipe: Recipe  # without the fit's time and memory
    members: dict[str, bytes]
    device: torch.device


def fit(config: BuildConfig, root: Path, out: Path, *, checkpoint: Path | None = None, resume: bool = False) -> DataSet:
    """Fit a model and write it as a draft; returns the data set, for who goes on to seal.

    Args:
        config: the settings.
        root: the data set.
        out: the draft.
        checkpoint: where a fit by gradients keeps its state; beside the draft when None.
        resume: go on from there.

    Raises:
        ConfigError: settings that contradict or cannot be met, memory included.
        DataError: images that cannot be used.
        ExportError: the model cannot be exported.
        BundleError: the draft cannot be written.
    """
    _check_flags(config, find_method(config.method), resume=resume)
    check_writable(out)
    torch.manual_seed(config.seed)
    plan = _plan(config, root)
    start = time.monotonic()
    areas = _valid_areas(plan.members)
    validation = _tiles(plan, plan.splits.validation, areas) if plan.splits.validation else None
    data = FitData(fit=_tiles(plan, plan.splits.fit, areas), validation=validation)
    settings = FitSettings(
        seed=config.seed,
        coreset=config.coreset,
        buffer_bytes=config.fit_memory_mb * 2**20,
        steps=config.steps,
        checkpoint=checkpoint or out.with_name(f"{out.name}.checkpoint"),
        resume=resume,
        textures=None if config.textures is None else Path(config.textures),
    )
    _check_memory(plan, plan.method.predict_bytes(plan.features, data, settings))
    module = plan.method.fit(plan.features, data, settings)
    seconds = time.monotonic() - start
    _write(plan, module, areas, seconds, out)
    return plan.dataset


def _tiles(plan: _Plan, samples: Sequence[Sample], areas: dict[str, NDArray[np.bool_]]) -> FrameTiles:
    config, paths = plan.config, [sample.path for sample in samples]
    return FrameTiles(
        plan.recipe, paths, valid_areas=areas, batch=config.batch, workers=config.workers, device=plan.device
    )


_USELESS = {
    "coreset": "keeps no memory bank",
    "backbone": "has no backbone",
    "layers": "has no backbone to take layers of",
    "weights": "has no backbone to load weights into",
    "teacher": "has no teacher",
    "textures": "needs no pictures of other things",
    "steps": "is fitted in one pass",
}


def _check_flags(config: BuildConfig, method: Method, *, resume: bool) -> None:
    """A flag that does nothing would be believed to do something."""
    if resume and "steps" not in method.settings:
        message = f"--resume: {method.name} is fitted in one pass and has nothing to go on with: leave the flag out"
        raise ConfigError(message)
    for flag, why in _USELESS.items():
        if getattr(config, flag) is not None and flag not in method.settings:
            message = f"--{flag}: the method {method.name} {why}: leave the flag out"
            raise ConfigError(message)
    if config.validation is not None and method.validation == 0.0:
        message = f"--validation: the method {method.name} has no constants to set apart images for: leave the flag out"
        raise ConfigError(message)


def _plan(config: BuildConfig, root: Path) -> _Plan:
    method = find_method(config.method)
    dataset = open_dataset(root, limit=config.limit, seed=config.seed)
    if dataset.duplicates:
        _LOG.warning("%s: %d file(s) left out: the same image stands there twice", root, dataset.duplicates)
    splits = split(
        dataset,
        holdout=config.holdout,
        validation=method.validation if config.validation is None else config.validation,
        calibration_split=config.calibration_split,
        seed=config.seed,
    )
    found = survey((*splits.fit, *splits.validation, *splits.calibration))
    geometry, members = make_geometry(config, found)
    device = choose_device(config.device)
    features = method.features(_request(config, found)).to(device)
    tiling = make_tiling(
        config,
        geometry,
        grid_stride=features.grid_stride,
        input_stride=features.input_stride,
        position_bound=method.position_bound,
        image_score=method.image_score,
    )
    recipe = Recipe(
        product=config.product or dataset.root.stem,
        takt_version=packages().get("takt-inspect", "unknown"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        geometry=geometry,
        tiling=tiling,
        map_policy=MapPolicySpec(
            upsampling="bilinear",
            sigma=method.sigma,
            smallest_region_px=config.smallest_region,
            image_score=method.image_score,
            pooled_cells=method.pooled_cells,
        ),
        provenance=ProvenanceSpec(
            method=method.name,
            backbone=features.origin.backbone,
            dataset=dataset.root.name,
            dataset_fingerprint=dataset.fingerprint,
            splits=SplitsSpec(
                fit=_digests(splits.fit),
                validation=_digests(splits.validation),
                calibration=_digests(splits.calibration),
            ),
            seed=config.seed,
            packages=packages(),
            config=config.model_dump(mode="json"),
            fit_seconds=0.0,
            peak_memory_mb=0.0,
        ),
    )
    note = {"method": method.note} if method.note else {}
    members["LICENCES.json"] = json_bytes({"weights": asdict(features.origin), **note})
    return _Plan(
        config=config,
        dataset=dataset,
        splits=splits,
        method=method,
        features=features,
        recipe=recipe,
        members=members,
        device=device,
    )


def _request(config: BuildConfig, found: FrameSurvey) -> FeatureRequest:
    return FeatureRequest(
        backbone=config.backbone or DEFAULT_BACKBONE,
        named=config.backbone is not None,
        layers=config.layers,
        weights=config.weights,
        weights_dir=weights_folder(),
        teacher=None if config.teacher is None else Path(config.teacher),
        pixels=PixelSpec(channels=found.pixel_format.channels, bit_depth=found.bit_depth),
    )


def _write(plan: _Plan, module: nn.Module, areas: dict[str, NDArray[np.bool_]], seconds: float, out: Path) -> None:
    has_image_score = plan.method.image_score is ImageScoreRule.GRAPH
    shape = plan.recipe.graph_shape(image_score=has_image_score)
    scorer = Scorer(plan.recipe, TorchEngine(module, shape, plan.device), valid_areas=areas)
    references, maps = _references(plan.recipe, scorer, _reference_samples(plan.splits, plan.config.seed))
    provenance = plan.recipe.provenance.model_copy(
        update={"fit_seconds": seconds, "peak_memory_mb": peak_memory_mb(plan.device)}
    )
    members = plan.members | maps | {"graphs/tile.onnx": to_onnx(module, shape)}
    fields = {name: getattr(plan.recipe, name) for name in Recipe.model_fields} | {"provenance": provenance}
    draft = DraftManifest(
        format_version=1,
        **fields,
        graph="graphs/tile.onnx",
        has_image_score=has_image_score,
        references=references,
        sealable=not plan.features.origin.random,
        members={},
    )
    write(out, draft, members, DRAFT)


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


def _digests(samples: Sequence[Sample]) -> tuple[str, ...]:
    return tuple(sample.digest for sample in samples)


def _valid_areas(members: dict[str, bytes]) -> dict[str, NDArray[np.bool_]]:
    masks = {name: data for name, data in members.items() if name.startswith("geometry/")}
    return {name: np.asarray(decode_png(data, name).pixels > 0) for name, data in masks.items()}


def _check_memory(plan: _Plan, needed: int) -> None:
    on_gpu = plan.device.type == "cuda"
    free = torch.cuda.mem_get_info(plan.device)[0] if on_gpu else psutil.virtual_memory().available
    if needed > _MEMORY_SHARE * free:
        message = (
            f"--method {plan.method.name} needs {needed / 2**30:.1f} GiB for this fit, {free / 2**30:.1f} GiB are free: "
            "lower --size or --batch, take fewer --layers, lower --fit-memory, or use another method"
        )
        raise ConfigError(message)


def choose_device(name: str) -> torch.device:
    """The device of `--device`; a GPU computes in full f32 here, since references must.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        message = "--device cuda: torch sees no GPU here: use --device cpu, or check the driver"
        raise ConfigError(message)
    torch.backends.cuda.matmul.allow_tf32 = False  # references must be f32
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory of this process so far, the GPU's added."""
    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", None)  # Windows
    if peak is None:
        import resource  # noqa: PLC0415 - not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return float((peak + on_gpu) / 2**20)
