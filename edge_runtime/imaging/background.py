"""Owns the background: what a map looks like, place by place, where the part is good."""

from dataclasses import dataclass

import numpy as np

from edge_runtime.imaging.maps import Map


@dataclass(frozen=True, slots=True)
class Background:
    """Mean and spread of a region's raw map over good frames that the fit has not seen.

    Both are (h, w) float32 at the feature grid, `spread` in the map's own unit and above 0.
    """

    mean: Map
    spread: Map

    def standardise(self, grid: Map) -> Map:
        """(h, w) raw -> how many deviations each cell lies above what is usual at its place."""
        return np.asarray((grid - self.mean) / self.spread, dtype=np.float32)
