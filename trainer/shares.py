"""Owns the shares of a fit: the tiles of a plan's fit and validation images, those that are left of them, in batches."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.samples import Sample
from edge_runtime.bundle.recipe import SizeSpec
from trainer.config import as_typed
from trainer.data.augment import Views
from trainer.data.planes import Planes
from trainer.data.selection import Selection, check_left, select
from trainer.data.tiles import FrameTiles
from trainer.models.method import FitData
from trainer.needs import SQUASHED, Smaller
from trainer.plan import Plan, replanned, valid_areas
from trainer.settings_that_fit import evenly_tiled

_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where tiles come from."""

    planes: Planes
    selection: Selection


def lay_out(plan: Plan, areas: dict[str, NDArray[np.bool_]], *, quiet: bool = False) -> Source:
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
    return Source(planes=planes, selection=selection)


def share_out(plan: Plan, source: Source, batch: int, images: int | None = None) -> FitData:
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
    return share_out(plan, lay_out(plan, valid_areas(plan.members), quiet=True), 1)


def smaller_settings(plan: Plan, areas: dict[str, NDArray[np.bool_]]) -> Smaller:
    """Tiles that divide the planes, then smaller scales in steps of 5 %, where the number of places decides on memory."""
    if plan.config.tile is None:
        return SQUASHED
    if not plan.recipe.tiling.position_bound:
        return Smaller("--scale")

    def ways() -> Iterator[tuple[str, FitData]]:
        even = evenly_tiled(plan)
        if even is not None and even.tile is not None:
            yield f"--tile {as_typed(even.tile)} --halo {even.halo}", fit_data(replanned(plan, even))
        for step in range(19, 0, -1):
            yield f"--scale {(plan.config.scale or 1.0) * step / 20:.3g}", _scaled(plan, areas, step / 20)

    return Smaller("--scale", ways)


def _scaled(plan: Plan, areas: dict[str, NDArray[np.bool_]], share: float) -> FitData:
    """The tiles at a share of the scale."""
    geometry = plan.recipe.geometry
    regions = []
    for region in geometry.regions:
        width, height = (max(1, round(share * side)) for side in region.plane.size)
        regions.append(region.model_copy(update={"plane": SizeSpec(width=width, height=height)}))
    geometry = geometry.model_copy(update={"regions": tuple(regions)})
    scaled = replace(plan, recipe=plan.recipe.model_copy(update={"geometry": geometry}))
    return share_out(scaled, lay_out(scaled, areas, quiet=True), 1)
