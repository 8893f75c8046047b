"""Owns what is known of a region before any frame comes: its tiles, which of them count, and where its score comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.recipe import Recipe, RegionSpec
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.geometry import Crop, Region, region
from edge_runtime.imaging.maps import Map, contributing
from edge_runtime.imaging.smoothed import PlaneMap
from edge_runtime.imaging.tiles import TilePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A region with what scoring needs of it, computed once. Masks are None where all is true."""

    region: Region
    plan: TilePlan
    first: int  # number of its first tile: those of all regions are counted on
    plane_map: PlaneMap
    valid_plane: NDArray[np.bool_] | None  # (plane height, plane width)
    valid_grid: NDArray[np.bool_] | None  # (h, w)
    contributing: NDArray[np.bool_] | None  # (h, w), cells that a valid pixel of the smoothed map depends on
    tiles: tuple[int, ...]  # that count: their cores own a cell that a score, a map or a listed area depends on
    skipped: NDArray[np.bool_] | None  # (h, w), cells of the other tiles; None where there are none
    background: Background | None  # what the image score is taken against; None for the raw map itself
    smallest_px: int  # areas below are not listed

    def judged(self, grid: Map) -> Map:
        """(h, w): what the image score is taken from."""
        return grid if self.background is None else self.background.standardise(grid)


def lay_out(
    recipe: Recipe,
    spec: RegionSpec,
    valid_areas: Mapping[str, NDArray[np.bool_]],
    *,
    first: int = 0,
    background: Background | None = None,
) -> Layout:
    """Lay out one region.

    Args:
        recipe: geometry, tiling and map policy.
        spec: the region.
        valid_areas: masks by the member name that regions give.
        first: how many tiles the plans of the regions before it have.
        background: what its image score is taken against.

    Raises:
        ConfigError: it does not fit the frame, or its tiles do not fit the grid.
    """
    made = make_region(spec, recipe.geometry.frame.size, valid_areas)
    plan, tiling, sigma = tile_plan(recipe, spec), recipe.tiling, recipe.map_policy.sigma
    valid_grid, shown = made.valid_on_grid(plan.stride), made.shown_on_plane()
    tiles, skipped = tuple(range(plan.count)), None
    if shown is not None and valid_grid is not None:
        used = contributing(shown, stride=plan.stride, offset=tiling.offset, sigma=sigma) | valid_grid
        tiles = plan.needed(used)
        if len(tiles) < plan.count:
            skipped = np.ones((plan.grid.height, plan.grid.width), dtype=np.bool_)
            for tile in tiles:
                skipped[plan.cells(tile)] = False
    valid = made.valid_on_plane()
    return Layout(
        region=made,
        plan=plan,
        first=first,
        plane_map=PlaneMap(plane=plan.plane, stride=plan.stride, offset=tiling.offset, sigma=sigma),
        valid_plane=valid,
        valid_grid=valid_grid,
        contributing=None
        if valid is None
        else contributing(valid, stride=plan.stride, offset=tiling.offset, sigma=sigma),
        tiles=tiles,
        skipped=skipped,
        background=background,
        smallest_px=spec.smallest_region_px,
    )


def make_region(spec: RegionSpec, frame: Size, valid_areas: Mapping[str, NDArray[np.bool_]]) -> Region:
    """The `imaging` region that a specification describes.

    Raises:
        ConfigError: it does not fit the frame.
    """
    crop = Crop(spec.crop.x1, spec.crop.y1, spec.crop.x2, spec.crop.y2)
    mask = None if spec.valid_area is None else valid_areas[spec.valid_area]
    return region(name=spec.name, crop=crop, plane=spec.plane.size, frame=frame, polygon=spec.polygon, valid_area=mask)


def tile_plan(recipe: Recipe, spec: RegionSpec) -> TilePlan:
    """The tile plan of one region."""
    tiling = recipe.tiling
    return TilePlan(plane=spec.plane.size, core=tiling.core.size, halo=tiling.halo, stride=tiling.stride)
