"""Owns what a part of a frame's tiles proves: an image score that the whole frame cannot stay below.

Every rule takes a maximum over places of the map, and a place's value depends on few cells: where all of those are
scored, the value is what it is with every tile scored, to the last bit, and so the maximum is at least that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.recipe import ImageScoreRule, MapPolicySpec
from edge_runtime.imaging.maps import Map, pooled
from edge_runtime.layout import Layout
from edge_runtime.stages import StageClock


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyStop:
    """When a frame needs no more tiles, and in which order that is found out soonest."""

    settles: Callable[[str, float], bool]  # region, image score: whether no higher score changes the frame's verdict
    orders: dict[str, tuple[int, ...]]  # by region, its tiles, riskiest first; empty for the plan's own order


class Progress:
    """A region while its tiles are scored: which cells are missing, and what those that are there prove."""

    def __init__(self, layout: Layout, policy: MapPolicySpec, early: EarlyStop) -> None:
        """Nothing is scored yet.

        Args:
            layout: of the region.
            policy: its rule is the one of the image score.
            early: what settles the verdict.
        """
        self._layout = layout
        self._policy = policy
        self._name = layout.region.name
        self._early = early
        counted = set(layout.tiles)
        order = early.orders.get(self._name) or layout.tiles
        self.order = tuple(tile for tile in order if tile in counted)
        shape = (layout.plan.grid.height, layout.plan.grid.width)
        self.missing = np.ones(shape, dtype=np.bool_) if layout.skipped is None else ~layout.skipped
        self.score = -np.inf  # that the region has at least

    def settled(self, grid: Map, batch: tuple[int, ...], clock: StageClock) -> bool:
        """Whether the verdict stands, now that some more tiles are scored."""
        touched = np.zeros_like(self.missing)
        for tile in batch:
            touched[self._layout.plan.cells(tile)] = True
        self.missing &= ~touched
        if self._policy.image_score is ImageScoreRule.GRAPH or not self.missing.any():
            return False  # nothing is left to be saved: the score is worked out as always
        found = proven(grid, self.missing, touched, self._layout, self._policy, self._worth, clock)
        self.score = max(self.score, found)
        clock.lap("score")
        return self._worth(self.score)

    def _worth(self, score: float) -> bool:
        return self._early.settles(self._name, score)


def proven(  # noqa: PLR0917 - seven things that belong to no type of their own
    grid: Map,
    missing: NDArray[np.bool_],
    touched: NDArray[np.bool_],
    layout: Layout,
    policy: MapPolicySpec,
    worth: Callable[[float], bool],
    clock: StageClock,
) -> float:
    """A lower bound of the image score of a region that is scored in part; minus infinity where nothing is proven.

    Args:
        grid: (h, w), the stitched map; values of missing cells are not looked at.
        missing: (h, w), cells that a result may depend on and that no tile has scored yet.
        touched: (h, w), cells that were scored since the last call.
        layout: of the region.
        policy: its rule is the one of the image score.
        worth: whether a score would settle the verdict; what cannot is not worked out.
        clock: gets the time.
    """
    known = grid[~missing if layout.skipped is None else ~(missing | layout.skipped)]
    if not (known.size and np.isfinite(known).all()):
        return -np.inf  # it will end as no number at all, which no score settles
    filled = layout.judged(np.where(np.isnan(grid), known.min(), grid))
    match policy.image_score:
        case ImageScoreRule.MAX_RAW:
            return _largest(filled, touched & ~missing, layout.valid_grid)
        case ImageScoreRule.POOLED_MAX:
            return _pooled(filled, missing, layout, policy.pooled_cells or 1, worth)
        case ImageScoreRule.MAX_SMOOTHED:
            return _smoothed(filled, missing, touched, layout, worth, clock)
        case ImageScoreRule.GRAPH:
            return -np.inf  # there is one tile: nothing is known before all is


def _pooled(grid: Map, missing: NDArray[np.bool_], layout: Layout, cells: int, worth: Callable[[float], bool]) -> float:
    highest = _largest(grid, ~missing, layout.valid_grid)
    if not worth(highest + abs(float(np.abs(grid).max())) * cells * cells * 2.0**-22):  # a mean, and its rounding
        return -np.inf
    unknown = missing if layout.valid_grid is None else missing & layout.valid_grid
    near = cv2.dilate(unknown.astype(np.uint8), np.ones((cells, cells), np.uint8)) > 0
    return _largest(pooled(grid, cells, layout.valid_grid), ~near, layout.valid_grid)


def _smoothed(
    grid: Map,
    missing: NDArray[np.bool_],
    touched: NDArray[np.bool_],
    layout: Layout,
    worth: Callable[[float], bool],
    clock: StageClock,
) -> float:
    cells = ~missing if layout.contributing is None else layout.contributing & ~missing
    if not cells.any():
        return -np.inf
    bounds = layout.plane_map.bounds(grid, cells)
    largest = -np.inf
    for block in np.flatnonzero(layout.plane_map.touched(touched)):
        if not worth(float(bounds[block])):
            continue
        valid = ~layout.plane_map.unknown(missing, int(block))
        if layout.valid_plane is not None:
            valid &= layout.valid_plane[layout.plane_map.place(int(block))]
        largest = max(largest, _largest(layout.plane_map.block(grid, int(block), clock), valid, None))
    return largest


def _largest(values: Map, chosen: NDArray[np.bool_], valid: NDArray[np.bool_] | None) -> float:
    counted = values[chosen if valid is None else chosen & valid]
    return float(counted.max()) if counted.size else -np.inf
