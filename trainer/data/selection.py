"""Owns which tiles of which image are trained on. Inspection covers them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.samples import Sample
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.geometry import Region
from edge_runtime.imaging.tiles import TilePlan
from trainer.data.foreground import core_shares, otsu_foreground
from trainer.data.planes import Planes

_Cells = dict[int, NDArray[np.bool_]]  # by tile, (h, w) at the feature grid


@dataclass(frozen=True, kw_only=True, slots=True)
class TileRule:
    """What a tile must be to be trained on."""

    foreground: str = "none"  # as the flag has it
    mask: NDArray[np.bool_] | None = None  # (frame height, frame width), true on the part; where the flag names a file
    share: float = 0.0  # of a core's pixels that must be foreground at least
    incomplete: bool = True  # also those whose core reaches beyond the plane

    @property
    def by_image(self) -> bool:
        """Whether it must look at images."""
        return self.foreground == "otsu"

    @property
    def selects(self) -> bool:
        """Whether it leaves any tile out."""
        return self.foreground != "none" or not self.incomplete

    def check_mask(self, frame: Size) -> None:
        """Refuse a mask that is not drawn on a frame.

        Raises:
            ConfigError: its size is another.
        """
        if self.mask is not None and self.mask.shape != (frame.height, frame.width):
            found = Size(self.mask.shape[1], self.mask.shape[0])
            message = f"--foreground {self.foreground}: the mask is {found}, the frame {frame}: draw it on a frame of the camera"
            raise ConfigError(message)

    def __str__(self) -> str:
        """The flags."""
        said = (
            [] if self.foreground == "none" else [f"--foreground {self.foreground} --foreground-share {self.share:g}"]
        )
        return " ".join([*said, *([] if self.incomplete else ["--incomplete-tiles out"])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The tiles to train on, and the cells of each that count.

    `cells` has, by region, the tiles that any image may give; `chosen` has, by an image's digest and region, (tiles,) true
    for those that it does give, or is None where all images give the same. `largest_share` is the largest share of
    foreground that any core had, 0 where nobody looked.
    """

    cells: tuple[_Cells, ...]
    chosen: Mapping[str, tuple[NDArray[np.bool_], ...]] | None = None
    largest_share: float = 0.0

    def of(self, sample: Sample) -> tuple[_Cells, ...]:
        """By region, the tiles of one image."""
        if self.chosen is None:
            return self.cells
        return tuple(
            {tile: cells for tile, cells in region.items() if chosen[tile]}
            for region, chosen in zip(self.cells, self.chosen[sample.digest], strict=True)
        )

    def tiles(self, samples: Sequence[Sample]) -> int:
        """How many tiles images have."""
        if self.chosen is None:
            return len(samples) * sum(len(region) for region in self.cells)
        return sum(len(region) for sample in samples for region in self.of(sample))

    def count_cells(self, samples: Sequence[Sample]) -> int:
        """How many cells count, over all tiles of images."""
        sizes = [{tile: int(cells.sum()) for tile, cells in region.items()} for region in self.cells]
        if self.chosen is None:
            return len(samples) * sum(sum(region.values()) for region in sizes)
        return sum(
            sizes[index][tile] for sample in samples for index, region in enumerate(self.of(sample)) for tile in region
        )

    def with_tiles(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those that have any; all of them where no cell of any counts, which is the method's to say."""
        return list(samples) if self.chosen is None else [sample for sample in samples if self.tiles([sample])]


def select(rule: TileRule, planes: Planes, samples: Sequence[Sample], *, workers: int, quiet: bool) -> Selection:
    """Apply a rule; looks at every image once where the rule asks for it.

    Args:
        rule: what a tile must be.
        planes: of the images.
        samples: the images to train on and to validate on.
        workers: threads that read ahead.
        quiet: show no progress.

    Raises:
        DataError: an image cannot be read.
    """
    cells: list[_Cells] = []
    largest = 0.0
    for region, plan in planes.regions:
        candidates = kept_cells(region, plan)
        if not rule.incomplete:
            candidates = {tile: mask for tile, mask in candidates.items() if is_complete(plan, tile)}
        if rule.mask is not None:
            shares = core_shares(plan, _on_plane(region, rule.mask))
            largest = max([largest, *(float(shares[tile]) for tile in candidates)])
            candidates = {tile: mask for tile, mask in candidates.items() if shares[tile] >= rule.share}
        cells.append(candidates)
    if not rule.by_image:
        return Selection(cells=tuple(cells), largest_share=largest)
    chosen: dict[str, tuple[NDArray[np.bool_], ...]] = {}
    read = planes.ahead(samples, workers=workers, keep=False)
    for sample, found in tqdm(
        read, total=len(samples), desc="foreground", unit="", leave=False, disable=True if quiet else None
    ):
        by_region = [
            core_shares(plan, otsu_foreground(plane)) for (_, plan), plane in zip(planes.regions, found, strict=True)
        ]
        chosen[sample.digest] = tuple(shares >= rule.share for shares in by_region)
        seen = (shares[tile] for shares, tiles in zip(by_region, cells, strict=True) for tile in tiles)
        largest = max([largest, *map(float, seen)])
    return Selection(cells=tuple(cells), chosen=chosen, largest_share=largest)


def check_left(
    rule: TileRule, selection: Selection, planes: Planes, samples: Sequence[Sample], share: str
) -> tuple[int, int]:
    """Refuse a selection that leaves nothing to train on.

    Args:
        rule: that selected.
        selection: what it left.
        planes: of the images.
        samples: the images.
        share: what the data set's share that they are is called.

    Returns:
        How many tiles are left, and of how many.

    Raises:
        DataError: none is left.
    """
    everything = [(plan, kept_cells(region, plan)) for region, plan in planes.regions]
    whole = len(samples) * sum(len(tiles) for _, tiles in everything)
    left = selection.tiles(samples)
    if whole and not left:
        beyond = sum(not is_complete(plan, tile) for plan, tiles in everything for tile in tiles)
        message = f"{rule}: none of the {whole} tiles of {len(samples)} {share} image(s) is left"
        advice = []
        if not rule.incomplete:
            message += f"; the cores of {len(samples) * beyond} reach beyond the plane"
            advice.append("a smaller --tile or --incomplete-tiles in")
        if rule.foreground != "none":
            shown = 100 * selection.largest_share
            message += f"; {100 * rule.share:g} % of a core must be foreground, the others show {shown:.3g} % at most"
            advice.append("a smaller --foreground-share, another --foreground or none")
        message = f"{message}: give {', or '.join(advice)}"
        raise DataError(message)
    return left, whole


def kept_cells(region: Region, plan: TilePlan) -> _Cells:
    """By tile, the cells to train on: of the core, on the plane, in the valid area; tiles without any are left out."""
    valid = region.valid_on_grid(plan.stride)
    kept = {tile: plan.kept(tile) for tile in range(plan.count)}
    if valid is not None:
        for tile, mask in kept.items():
            on_tile = np.zeros_like(mask)
            plan.take(valid, tile, on_tile)
            kept[tile] = mask & on_tile
    return {tile: mask for tile, mask in kept.items() if mask.any()}


def is_complete(plan: TilePlan, tile: int) -> bool:
    """Whether a tile's core lies on the plane with every pixel."""
    row, column = divmod(tile, plan.columns)
    return (row + 1) * plan.core.height <= plan.plane.height and (column + 1) * plan.core.width <= plan.plane.width


def _on_plane(region: Region, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(plane.height, plane.width): the region's part of a frame's mask, by the nearest pixel as valid areas are."""
    crop = region.crop
    return region.mask_on_plane(mask[crop.y1 : crop.y2, crop.x1 : crop.x2])
