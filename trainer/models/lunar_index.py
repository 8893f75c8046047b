"""Owns what LUNAR's network learns from: distances of good patches and of made negatives to the index of good ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.errors import DataError
from trainer.models.method import TileBatch, check_varies
from trainer.models.neighbours import closeness, grouped, half_norms, nearest_distances

NEIGHBOURS = 5
EPSILON = 0.1
PERTURBED = 0.3  # chance of a channel to be perturbed
ROWS = 1_024  # patches measured at a time while fitting
_QUIET = 0.1  # of the typical range


class GoodPatches:
    """The index: good patches, each channel scaled to [0, 1], centred, with the tile that each is from."""

    def __init__(self, patches: Tensor, owners: Tensor) -> None:
        """Scale patches.

        Args:
            patches: (N, D) of good tiles.
            owners: (N,) the number of the tile that each is from.

        Raises:
            DataError: they do not vary, or too few are left without those of one tile.
        """
        self.lowest = patches.amin(dim=0)
        span = patches.amax(dim=0) - self.lowest
        check_varies(float(span.square().mean()), "the range of the patches")
        self.scale = 1.0 / span.clamp(min=_QUIET * float(span.mean()))
        scaled = (patches - self.lowest) * self.scale
        self.centre = scaled.mean(dim=0)  # distances stay the same, norms become small
        self.bank = scaled - self.centre
        self.halves = half_norms(self.bank)
        self.searched = grouped(self.bank)  # the same with their halves, as `nearest_distances` wants them
        self.owners = owners
        others = len(owners) - int(torch.bincount(owners).max())
        if others < NEIGHBOURS:
            message = (
                f"LUNAR compares the patches of each good image or tile with those of others: {others} are left without the "
                f"largest one's, {NEIGHBOURS} are needed: give more images, or a larger --coreset"
            )
            raise DataError(message)

    def place(self, patches: Tensor) -> Tensor:
        """(N, D) features -> where they lie beside the bank."""
        return (patches - self.lowest) * self.scale - self.centre

    def distances(self, patches: Tensor, owners: Tensor | None) -> Tensor:
        """(N, D) placed patches -> (N, k) distances to the nearest, of other tiles where the owners are given."""
        if owners is None:
            parts = [nearest_distances(rows, *self.searched, NEIGHBOURS) for rows in torch.split(patches, ROWS)]
            return torch.cat(parts)
        parts = []
        for rows, own in zip(torch.split(patches, ROWS), torch.split(owners, ROWS), strict=True):
            near = closeness(rows, self.bank, self.halves)
            near = near.masked_fill(own.unsqueeze(1) == self.owners, float("-inf"))
            found = self.bank[near.topk(NEIGHBOURS, dim=1).indices]  # (R, k, D)
            parts.append((rows.unsqueeze(1) - found).square().sum(dim=2).sort(dim=1).values.sqrt())
        return torch.cat(parts)


def uniform_negatives(index: GoodPatches, count: int, generator: torch.Generator) -> Tensor:
    """(count, D) placed: uniform in the unit cube of the scaled channels, widened by epsilon."""
    drawn = torch.rand(count, len(index.centre), generator=generator, device=index.centre.device)
    return drawn * (1 + 2 * EPSILON) - EPSILON - index.centre


def perturbed_negatives(patches: Tensor, generator: torch.Generator) -> Tensor:
    """(N, D) placed -> (N, D): normal noise of deviation epsilon on channels drawn with a chance of 0.3."""
    chosen = torch.rand(patches.shape, generator=generator, device=patches.device) < PERTURBED
    noise = torch.randn(patches.shape, generator=generator, device=patches.device)
    return patches + chosen * EPSILON * noise


@dataclass(frozen=True, slots=True)
class LabelledDistances:
    """One batch of distances (N, k) with labels (N,), true for negatives, in the shape that `train` iterates over."""

    distances: Tensor
    negative: Tensor

    def __iter__(self) -> Iterator[TileBatch]:
        """The one batch: an epoch is one step, as in the paper."""
        yield TileBatch(self.distances, self.negative)

    def shuffled(self, seed: int) -> Iterator[TileBatch]:  # noqa: ARG002 - one batch has one order
        """The same."""
        return iter(self)

    @property
    def batch(self) -> int:
        """All rows."""
        return len(self.distances)

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.distances)

    @property
    def cells(self) -> int:
        """Rows."""
        return len(self.distances)

    @property
    def grid(self) -> tuple[int, int]:
        """A row is a cell."""
        return 1, 1

    @property
    def places(self) -> int:
        """One: distances are of no place."""
        return 1

    @property
    def margin(self) -> int:
        """Distances have no halo."""
        return 0

    @property
    def whole(self) -> bool:
        """A row needs nothing around it."""
        return True

    @property
    def views(self) -> int:
        """A row is seen as it is."""
        return 1

    def loss(self, network: nn.Module) -> Tensor:
        """Squared error summed over rows: a mean would leave next to nothing beside the weight decay."""
        found = network(self.distances).to(torch.float32).sigmoid()
        return functional.mse_loss(found, self.negative.to(torch.float32), reduction="sum")


def labelled(
    index: GoodPatches, patches: Tensor, owners: Tensor | None, generator: torch.Generator
) -> LabelledDistances:
    """Distances of placed good patches (N, D), and of as many negatives: half uniform, half made from the patches."""
    half = len(patches) // 2
    made_from = torch.randperm(len(patches), generator=generator, device=patches.device)[: len(patches) - half]
    perturbed = perturbed_negatives(patches[made_from], generator)
    parts = [
        index.distances(patches, owners),
        index.distances(perturbed, None if owners is None else owners[made_from]),
        index.distances(uniform_negatives(index, half, generator), None),
    ]
    negative = torch.arange(2 * len(patches), device=patches.device) >= len(patches)
    return LabelledDistances(torch.cat(parts), negative)
