"""Owns what is decided before the first feature is computed: method, shares, geometry, tiling, device."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.layouts import open_dataset
from calibration.samples import DataSet, Label, Sample, Split
from edge_runtime.bundle.manifest import packages
from edge_runtime.bundle.recipe import (
    GeometrySpec,
    ImageScoreRule,
    MapPolicySpec,
    ProvenanceSpec,
    Recipe,
    SplitsSpec,
    TilingSpec,
)
from edge_runtime.bundle.store import json_bytes
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import decode_png, read_mask
from trainer.backbones import Features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import weights_folder
from trainer.background import BACKGROUND_SHARE, MIN_FRAMES
from trainer.config import DEFAULT_BACKBONE, DEFAULT_FOREGROUND_SHARE, NO_MASK, BuildConfig
from trainer.data.plane_cache import PlaneCache
from trainer.data.selection import TileRule
from trainer.data.splits import Splits, split
from trainer.devices import choose_device
from trainer.flags import check_flags
from trainer.geometry import FrameSurvey, make_geometry, make_tiling, survey
from trainer.halo import HaloChoice
from trainer.models.method import FeatureRequest, Method
from trainer.models.registry import find_method
from trainer.processes import Processes

_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that is known before the first feature is computed."""

    config: BuildConfig
    dataset: DataSet
    splits: Splits
    method: Method
    features: Features
    recipe: Recipe  # without the fit's time and memory
    members: dict[str, bytes]
    rule: TileRule
    cache: PlaneCache | None
    device: torch.device
    leads: bool  # whether this process is the one that shows and writes
    halo_given: bool  # and not measured

    def check_frame_graph(self) -> None:
        """Refuse a frame graph that could not share thresholds with the tiles, before hours are spent.

        Raises:
            ConfigError: there is to be one, and the halo is not exact.
        """
        if self.config.frame_graph:
            choice = _halo_choice(self.method, self.features, self.recipe.geometry, self.splits)
            choice.require_exact(self.recipe.tiling)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was found of data set and machine, before any setting of pixels."""

    dataset: DataSet
    splits: Splits
    found: FrameSurvey
    rule: TileRule
    cache: PlaneCache | None
    device: torch.device
    leads: bool


def make_plan(config: BuildConfig, root: Path, processes: Processes) -> Plan:
    """Look at the data set and decide.

    Raises:
        ConfigError: settings that contradict or cannot be met.
        DataError: images that cannot be used.
    """
    method = find_method(config.method)
    cache = None if config.tile_cache is None else PlaneCache(Path(config.tile_cache))
    rule = _tile_rule(config)
    dataset = open_dataset(root, limit=config.limit, seed=config.seed)
    if dataset.duplicates:
        _LOG.warning("%s: %d file(s) left out: the same image stands there twice", root, dataset.duplicates)
    splits = split(
        dataset,
        holdout=config.holdout,
        validation=validation_share(config, method, dataset),
        calibration_split=config.calibration_split,
        seed=config.seed,
    )
    if config.background == "on" and len(splits.validation) < 2:  # noqa: PLR2004 - one has no spread
        message = (
            f"--background on: {len(splits.validation)} good image(s) set apart, needs 2 at least: raise --validation"
        )
        raise DataError(message)
    found = survey((*splits.fit, *splits.validation, *splits.calibration), config.pixel_format, cache)
    _tell_depth(found)
    rule.check_mask(found.size)
    seen = _Seen(
        dataset=dataset,
        splits=splits,
        found=found,
        rule=rule,
        cache=cache,
        device=choose_device(config.device, processes),
        leads=processes.leads,
    )
    plan = _laid_out(config, seen, None)
    plan.check_frame_graph()
    return plan


def replanned(plan: Plan, config: BuildConfig) -> Plan:
    """The same data with other settings of pixels or another method; images are read again only where a halo is to be measured.

    Raises:
        ConfigError: settings that contradict or cannot be met.
    """
    method, geometry = find_method(config.method), plan.recipe.geometry
    check_flags(config, method, Processes(), resume=False)
    found = FrameSurvey(
        size=geometry.frame.size,
        pixel_format=geometry.pixel_format,
        bit_depth=geometry.bit_depth,
        file_format=geometry.file_format,
    )
    seen = _Seen(
        dataset=plan.dataset,
        splits=plan.splits,
        found=found,
        rule=plan.rule,
        cache=plan.cache,
        device=plan.device,
        leads=plan.leads,
    )
    return _laid_out(config, seen, plan.features if method is plan.method else None)


def _laid_out(config: BuildConfig, seen: _Seen, features: Features | None) -> Plan:
    """Geometry, tiling and recipe of what was seen; features are loaded where they are not known."""
    method = find_method(config.method)
    geometry, members = make_geometry(config, seen.found)
    if features is None:
        features = method.features(_request(config, seen.found)).to(seen.device)
    tiling = make_tiling(
        config,
        geometry,
        grid_stride=features.grid_stride,
        input_stride=features.input_stride,
        position_bound=method.position_bound,
        image_score=method.image_score,
        default_halo=_halo_choice(method, features, geometry, seen.splits).default,
    )
    given = config.halo is not None
    if config.tile is not None:  # what was chosen is on record: built again from it, the bundle is the same
        config = config.model_copy(update={"halo": tiling.halo})
    recipe = _recipe(
        config=config,
        dataset=seen.dataset,
        splits=seen.splits,
        method=method,
        backbone=features.origin.backbone,
        geometry=geometry,
        tiling=tiling,
    )
    note = {"method": method.note} if method.note else {}
    members["LICENCES.json"] = json_bytes({"weights": asdict(features.origin), **note})
    return Plan(
        config=config,
        dataset=seen.dataset,
        splits=seen.splits,
        method=method,
        features=features,
        recipe=recipe,
        members=members,
        rule=seen.rule,
        cache=seen.cache,
        device=seen.device,
        leads=seen.leads,
        halo_given=given,
    )


def _halo_choice(method: Method, features: Features, geometry: GeometrySpec, splits: Splits) -> HaloChoice:
    return HaloChoice(method, features, geometry, [sample.path for sample in splits.fit])


def _recipe(
    *,
    config: BuildConfig,
    dataset: DataSet,
    splits: Splits,
    method: Method,
    backbone: str,
    geometry: GeometrySpec,
    tiling: TilingSpec,
) -> Recipe:
    """What is decided, without the fit's time and memory and without background."""
    windows = method.pooled_windows
    return Recipe(
        product=config.product or dataset.root.stem,
        takt_version=packages().get("takt-inspect", "unknown"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        geometry=geometry,
        tiling=tiling,
        map_policy=MapPolicySpec(
            upsampling="bilinear",
            sigma=method.sigma,
            image_score=method.image_score,
            pooled_cells=None if windows is None else windows[config.tile is not None],
        ),
        provenance=ProvenanceSpec(
            method=method.name,
            backbone=backbone,
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


def validation_share(config: BuildConfig, method: Method, dataset: DataSet) -> float:
    """What the user asked for, or the method; else what a background takes, where there are images enough for one."""
    if config.validation is not None:
        return config.validation
    if method.validation or method.image_score is ImageScoreRule.GRAPH or config.background == "off":
        return method.validation
    good = len(dataset.select(label=Label.GOOD, split=Split.TRAIN))
    enough = round((1 - config.holdout) * good * BACKGROUND_SHARE) >= MIN_FRAMES
    return BACKGROUND_SHARE if enough or config.background == "on" else 0.0


def _tell_depth(found: FrameSurvey) -> None:
    """A depth that was guessed is said: images that are too dark would make it wrong."""
    if found.file_format is None and found.pixel_format.dtype == np.uint16 and found.bit_depth < 16:  # noqa: PLR2004
        _LOG.info(
            "the 16-bit images use %d bits: white is %d; where the sensor gives more, say so, such as --pixel-format %s",
            found.bit_depth,
            2**found.bit_depth - 1,
            "Mono16" if found.pixel_format.channels == 1 else "RGB16",
        )


def _tile_rule(config: BuildConfig) -> TileRule:
    mask = None
    if config.foreground not in NO_MASK:
        try:
            mask = read_mask(Path(config.foreground))
        except DataError as error:
            message = f"--foreground takes none, otsu, or a mask image: {error}"
            raise DataError(message) from error
    return TileRule(
        foreground=config.foreground,
        mask=mask,
        share=config.foreground_share or DEFAULT_FOREGROUND_SHARE,
        incomplete=config.incomplete_tiles == "in",
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


def _digests(samples: Sequence[Sample]) -> tuple[str, ...]:
    return tuple(sample.digest for sample in samples)


def valid_areas(members: dict[str, bytes]) -> dict[str, NDArray[np.bool_]]:
    """The masks among the members, by name, true where valid."""
    masks = {name: data for name, data in members.items() if name.startswith("geometry/")}
    return {name: np.asarray(decode_png(data, name).pixels > 0) for name, data in masks.items()}
