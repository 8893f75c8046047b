"""Owns how far a tile must see beyond its core: the default halo before a fit, and the seam error that a bundle records.

A *seam error* is the largest difference between a core's cells with a halo and with a much wider one, over real training
tiles and over tiles moved by a cell, as a share of the map's range. Up to `EXACT` the halo is exact.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import GeometrySpec, Recipe, TilingSpec
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Pixels, Size, read_image
from edge_runtime.imaging.geometry import Crop, Region
from edge_runtime.imaging.tiles import TilePlan
from edge_runtime.layout import tile_plan
from trainer.backbones import Features
from trainer.models.method import Method

EXACT = 1e-4  # share of the map's range
LARGEST = 256  # pixels: a wider halo is not looked for
_BEYOND = 64  # pixels that the reference sees beyond the widest candidate
_LOOKED_AT = 128  # pixels of a core that are compared: further inside, a halo's end shows less
_FRAMES = 2
_MAX_REGIONS = 2
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Tiles of good parts with a wide surround, to be narrowed to any halo."""

    tiles: Tensor  # (N, H, W, C) integers, core and `reach` on every side
    index: Tensor  # (N,) int32
    frames: tuple[int, ...]  # (N,) which frame each is of
    reach: int  # pixels
    stride: int  # pixels a cell of the map

    def cores(self, run: Callable[[Tensor, Tensor], Tensor], halo: int) -> Tensor:
        """The cores' cells (N, ..., h, w) of what a graph makes of the tiles with a halo, one tile at a time."""
        margin, cut = halo // self.stride, self.reach - halo
        found = []
        with torch.inference_mode():
            for number in range(len(self.tiles)):
                tile = self.tiles[number : number + 1]
                tile = tile[:, cut : tile.shape[1] - cut, cut : tile.shape[2] - cut].contiguous()
                cells = run(tile, self.index[number : number + 1])
                found.append(cells[..., margin : cells.shape[-2] - margin, margin : cells.shape[-1] - margin])
        return torch.cat(found)


def probe(
    geometry: GeometrySpec, paths: Sequence[Path], *, core: Size, reach: int, stride: int, device: torch.device
) -> Probe:
    """Cut the middle tile of each plane, and the same one cell further down and right.

    Args:
        geometry: regions and pixel format; masks play no part.
        paths: images of good parts, of which the first two are taken.
        core: of the plan.
        reach: pixels around it.
        stride: pixels a cell of the map.
        device: where the tiles go.
    """
    cuts, index, frames = [], [], []
    for number, path in enumerate(paths[:_FRAMES]):
        pixels = read_image(path, geometry.file_format).as_format(geometry.pixel_format)
        for tile, cut in _cuts(geometry, pixels, core, reach, stride):
            cuts.append(cut)
            index.append(tile)
            frames.append(number)
    return Probe(
        tiles=torch.from_numpy(np.stack(cuts)).to(device),
        index=torch.tensor(index, dtype=torch.int32, device=device),
        frames=tuple(frames),
        reach=reach,
        stride=stride,
    )


def _cuts(geometry: GeometrySpec, pixels: Pixels, core: Size, reach: int, stride: int) -> Iterator[tuple[int, Pixels]]:
    """Tile numbers, regions counted on, and tiles."""
    first = 0
    for number, spec in enumerate(geometry.regions):
        box = Crop(spec.crop.x1, spec.crop.y1, spec.crop.x2, spec.crop.y2)
        plane = Region(name=spec.name, crop=box, plane=spec.plane.size, valid=None).cut(pixels)
        plan = TilePlan(plane=spec.plane.size, core=core, halo=reach, stride=stride)
        middle = plan.rows // 2 * plan.columns + plan.columns // 2
        for shift in (0, stride) if number < _MAX_REGIONS else ():
            moved = plane[shift:, shift:] if min(plane.shape[:2]) > shift else plane
            size = Size(moved.shape[1], moved.shape[0])
            cut = np.empty((core.height + 2 * reach, core.width + 2 * reach, plane.shape[2]), dtype=plane.dtype)
            again = TilePlan(plane=size, core=core, halo=reach, stride=stride)
            again.cut(moved, min(middle, again.count - 1), cut)
            yield first + middle, cut
        first += plan.count


def looked_at(core: Size, input_stride: int) -> Size:
    """The part of a core that is compared where statistics do not belong to places."""
    side = -(-_LOOKED_AT // input_stride) * input_stride
    return Size(min(core.width, side), min(core.height, side))


def candidates(core: Size, input_stride: int, planes: Iterable[Size]) -> list[int]:
    """Halos that may be chosen: multiples of the stride up to the core's shorter side, beyond which a tile is mostly halo.

    A side along which no plane takes a second tile has no seam, and does not count.
    """
    longest = [max(lengths) for lengths in zip(*planes, strict=True)]  # width, height
    seams = [side for side, length in zip(core, longest, strict=True) if length > side]
    return list(range(0, min([*seams, LARGEST]) + 1, input_stride))


def planes_of(geometry: GeometrySpec) -> list[Size]:
    """The sizes of all regions' planes."""
    return [region.plane.size for region in geometry.regions]


def reach_of(halos: Sequence[int], input_stride: int) -> int:
    """How far the reference sees."""
    return max(halos) + -(-_BEYOND // input_stride) * input_stride


def smallest_exact(error: Callable[[int], float], halos: Sequence[int]) -> int | None:
    """The smallest halo whose seam error is at most `EXACT`, where wider ones are no worse; None where none is."""
    if error(halos[-1]) > EXACT:
        return None
    low, high = 0, len(halos) - 1
    while low < high:
        middle = (low + high) // 2
        if error(halos[middle]) <= EXACT:
            high = middle
        else:
            low = middle + 1
    return halos[high]


def expected_error(seen: nn.Module, taken: Probe) -> Callable[[int], float]:
    """Seam error by halo before anything is learnt.

    What looks beyond a cell is there before the fit. Where it gives features, the map is taken to be each cell's distance to
    the nearest cell of another frame's tile, which is what methods on features measure in one way or another.
    """

    def run(tiles: Tensor, _: Tensor) -> Tensor:
        found: Tensor = seen(tiles)
        return found

    reference = taken.cores(run, taken.reach)
    maps = _maps(reference, reference, taken.frames)
    scale = _range(maps)

    @cache
    def error(halo: int) -> float:
        return float((_maps(taken.cores(run, halo), reference, taken.frames) - maps).abs().max()) / scale

    return error


def fitted_error(module: nn.Module, taken: Probe, *, position_bound: bool) -> Callable[[int], float]:
    """Seam error of a fitted module's map by halo."""

    def run(tiles: Tensor, index: Tensor) -> Tensor:
        found = module(tiles, index) if position_bound else module(tiles)
        cells: Tensor = found[0] if isinstance(found, tuple) else found
        return cells

    reference = taken.cores(run, taken.reach)
    scale = _range(reference)

    @cache
    def error(halo: int) -> float:
        return float((taken.cores(run, halo) - reference).abs().max()) / scale

    return error


def _maps(cells: Tensor, reference: Tensor, frames: Sequence[int]) -> Tensor:
    """(N, D, h, w) -> (N, h * w): distances to the reference's cells of another frame, or of another tile of the only one."""
    if cells.shape[1] == 1:
        return cells.flatten(1)
    flat = reference.flatten(2).transpose(1, 2)  # (N, h * w, D)
    rows = []
    for number, tile in enumerate(cells.flatten(2).transpose(1, 2)):
        other = next((i for i, frame in enumerate(frames) if frame != frames[number]), number - 1)
        bank = flat[other]
        nearest = torch.cdist(flat[number], bank).argmin(dim=1)
        rows.append((tile - bank[nearest]).square().sum(dim=1).sqrt())  # to the same cell at every halo
    return torch.stack(rows)


def _range(maps: Tensor) -> float:
    spread = float(maps.max() - maps.min())
    return spread or float(maps.abs().max()) or 1.0


@dataclass(frozen=True, slots=True)
class HaloChoice:
    """Halos before the fit: the default one, and whether one will do for a frame graph."""

    method: Method
    features: Features
    geometry: GeometrySpec
    paths: Sequence[Path]  # images of good parts

    def default(self, core: Size) -> int:
        """The smallest exact one; where none up to the core's side is, that side, which is approximate."""
        halos = candidates(core, self.features.input_stride, planes_of(self.geometry))
        found = smallest_exact(self._error(core, halos), halos)
        if found is None:
            _LOG.info("no halo up to %d px is exact for these features: taking %d", halos[-1], halos[-1])
            return halos[-1]
        _LOG.info("halo %d: the smallest that is exact for these features", found)
        return found

    def require_exact(self, tiling: TilingSpec) -> None:
        """Refuse a frame graph that could not share thresholds with the tiles, before hours are spent.

        Raises:
            ConfigError: the halo is not exact, by what is known before the fit.
        """
        core = tiling.core.size
        halos = sorted({*candidates(core, self.features.input_stride, planes_of(self.geometry)), tiling.halo})
        error = self._error(core, halos)
        if error(tiling.halo) > EXACT:
            exact = smallest_exact(error, halos)
            better = f"--halo {exact} is" if exact is not None else f"none up to {halos[-1]} is, with --tile {core}"
            message = (
                f"--frame-graph: tiles and whole frames share thresholds only where the halo is exact; at {tiling.halo} px they "
                f"would differ by {error(tiling.halo):.2g} of the map's range, {EXACT:g} is allowed: {better}"
            )
            raise ConfigError(message)

    def _error(self, core: Size, halos: Sequence[int]) -> Callable[[int], float]:
        stride = self.features.input_stride
        taken = probe(
            self.geometry,
            self.paths,
            core=looked_at(core, stride),
            reach=reach_of(halos, stride),
            stride=self.features.grid_stride,
            device=self.features.mean.device,
        )
        return expected_error(self.method.seen(self.features, taken.tiles), taken)


def with_seam(
    recipe: Recipe, module: nn.Module, paths: Sequence[Path], *, input_stride: int, device: torch.device
) -> Recipe:
    """The recipe with what is measured of its halo on a fitted module; said where tiles leave seams.

    Args:
        recipe: geometry and tiling.
        module: whose `forward` is the graph.
        paths: images of good parts.
        input_stride: what halos are multiples of.
        device: where the module is.
    """
    tiling = recipe.tiling
    if all(tile_plan(recipe, region).count == 1 for region in recipe.geometry.regions):
        return recipe
    core = tiling.core.size
    halos = sorted({*candidates(core, input_stride, planes_of(recipe.geometry)), tiling.halo})
    taken = probe(
        recipe.geometry,
        paths,
        core=core if tiling.position_bound else looked_at(core, input_stride),
        reach=reach_of(halos, input_stride),
        stride=tiling.stride,
        device=device,
    )
    error = fitted_error(module, taken, position_bound=tiling.position_bound)
    found = error(tiling.halo)
    if found > EXACT:
        wider = [halo for halo in halos if halo > tiling.halo]
        exact = smallest_exact(error, wider) if wider else None
        better = f"--halo {exact} would be exact" if exact is not None else f"no halo up to {halos[-1]} is exact"
        _LOG.warning("seam error %.2g %% of the map's range at halo %d; %s", 100 * found, tiling.halo, better)
    else:
        _LOG.info("halo %d is exact: seam error %.1g of the map's range", tiling.halo, found)
    kind = "exact" if found <= EXACT else "approximate"
    return recipe.model_copy(update={"tiling": tiling.model_copy(update={"halo_kind": kind, "seam_error": found})})
