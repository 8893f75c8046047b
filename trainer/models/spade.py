"""SPADE: distance of each patch to the nearest one in the most similar good images.

Cohen and Hoshen, 2020, arXiv:2005.02357.

Departures. The image score is the mean distance to the K nearest images, not the mean squared one, so that it is of the
features' own unit. A map is computed for each layer and the maps are summed, where the paper joins the layers into one
feature first: a deep layer's patches are then not copied to the shallow layer's finer grid for nothing. Which cells of a
training tile may match is masked (halo, outside the valid area); pooled features are of the whole tile, because the
graph sees no mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.method import (
    FeatureRequest,
    FitData,
    FitSettings,
    TileBatch,
    TrainingTiles,
    added_bytes,
    backbone_features,
    with_contrast,
)
from trainer.models.neighbours import BLOCK_FLOATS, closeness, grouped, largest, members
from trainer.models.seen import Joined

NEIGHBOURS = 50
_ROWS = 128  # queries at once: enough of them to make a matrix product worth its while


class LayerBank(nn.Module):
    """All good images' patches of one layer."""

    patches: Tensor
    halves: Tensor
    centre: Tensor

    def __init__(self, patches: Tensor, kept: Tensor, centre: Tensor) -> None:
        """Take the patches.

        Args:
            patches: (N, P, D) of N images with P cells each.
            kept: (N, P) bool, the cells that may match.
            centre: (D,), the mean of those.
        """
        super().__init__()
        self.register_buffer("centre", centre)  # distances stay the same, norms become small
        bank, halves = grouped(patches - centre, kept)
        self.register_buffer("patches", bank)
        self.register_buffer("halves", halves)

    def forward(self, layer: Tensor, images: Tensor) -> Tensor:
        """(B, D, h, w), (B, K) indices of images -> (B, h, w) distance to the nearest of their patches."""
        batch, channels, height, width = layer.shape
        queries = layer.flatten(2).transpose(1, 2) - self.centre  # (B, P, D)
        total, cells, _ = self.patches.shape
        rows = min(height * width, max(_ROWS, BLOCK_FLOATS // (batch * cells * images.shape[1])))
        at_once = min(images.shape[1], max(1, BLOCK_FLOATS // (batch * rows * cells)))
        blocks = torch.split(queries, rows, dim=1)
        best = [self._first(block, images[:, :at_once]) for block in blocks]
        for start in range(at_once, images.shape[1], at_once):
            group = images[:, start : start + at_once]
            for index, block in enumerate(blocks):
                value, place = self._first(block, group)
                closer = value > best[index][0]
                best[index] = (torch.where(closer, value, best[index][0]), torch.where(closer, place, best[index][1]))
        nearest = torch.cat([place for _, place in best], dim=1)  # (B, P) into (N * P)
        found = self.patches.reshape(total * cells, channels)[nearest]
        return (queries - found).square().sum(dim=2).sqrt().reshape(batch, height, width)

    def _first(self, queries: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, D), (B, G) -> closeness of the nearest patch of the G images, and its place in the whole bank."""
        batch, group = images.shape
        _, cells, channels = self.patches.shape
        bank = self.patches[images].reshape(batch, group * cells, channels)
        near = closeness(queries, bank, self.halves[images].reshape(batch, group * cells))
        value, place = (found.squeeze(2) for found in largest(near, 1))
        return value, members(images, cells).gather(1, place)


class SPADE(nn.Module):
    """Tiles to (raw anomaly map, image score); `forward` is exactly the exported graph."""

    pooled: Tensor

    def __init__(self, features: Features, pooled: Tensor, banks: list[LayerBank]) -> None:
        """Take what was gathered: (N, D) pooled last features of the good images, and a bank of each layer."""
        super().__init__()
        self.features = features
        self.banks = nn.ModuleList(banks)
        self.register_buffer("pooled", pooled)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) integers -> (B, h, w) sum of the layers' distances, (B,) mean distance to the K images."""
        maps: list[Tensor] = self.features(tiles)
        asked = maps[-1].mean(dim=(2, 3))
        distances = (asked.unsqueeze(1) - self.pooled).square().sum(dim=2).sqrt()  # (B, N)
        count = min(NEIGHBOURS, len(self.pooled))
        near = distances.topk(count, dim=1, largest=False)
        found = [bank(layer, near.indices) for bank, layer in zip(self.banks, maps, strict=True)]
        summed = found[0]
        for part in found[1:]:
            scaled = functional.interpolate(
                part.unsqueeze(1), size=summed.shape[-2:], mode="bilinear", align_corners=False
            )
            summed = summed + scaled.squeeze(1)
        return summed, near.values.mean(dim=1)


def _cells(features: Features, tiles: TrainingTiles) -> list[int]:
    """Of each layer, the cells of a tile."""
    height, width = tiles.grid
    finest = features.grid_stride
    return [(height * finest // stride) * (width * finest // stride) for stride in features.strides]


@dataclass(frozen=True, slots=True)
class SPADEMethod:
    """SPADE as the trainer's registry knows it."""

    name: str = "spade"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.GRAPH
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights"})
    validation: float = 0.0
    note: str = ""
    no_frame_graph: str = (
        "its score is of all that its graph sees, and so are the images that it looks for neighbours in"
    )

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """All layers at the first one's grid."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """The banks as gathered, as fitted, in the graph and in the file, and one block of products."""
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 4 * held + 3 * 4 * BLOCK_FLOATS

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> SPADE:  # noqa: ARG002 - as the Protocol has it
        """The features with every patch of every good image, and the pooled features."""
        count = data.fit.count
        with torch.device("meta"):
            banks = [
                LayerBank(
                    torch.empty(count, cells, channels),
                    torch.ones(count, cells, dtype=torch.bool),
                    torch.empty(channels),
                )
                for channels, cells in zip(features.channels, _cells(features, data.fit), strict=True)
            ]
            return SPADE(features, torch.empty(count, features.channels[-1]), banks)

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> SPADE:  # noqa: ARG002 - nothing is drawn
        """Keep the pooled features and every patch of every good image."""
        pooled: list[Tensor] = []
        patches: list[list[Tensor]] = [[] for _ in features.layers]
        kept: list[list[Tensor]] = [[] for _ in features.layers]
        with torch.inference_mode():
            for batch in with_contrast(data.fit):
                maps = features(batch.tiles)
                pooled.append(maps[-1].mean(dim=(2, 3)))
                for index, layer in enumerate(maps):
                    patches[index].append(layer.flatten(2).transpose(1, 2).contiguous())
                    kept[index].append(_kept(batch, layer))
        if not pooled:
            message = "SPADE found no image to fit to: the valid area leaves nothing"
            raise DataError(message)
        banks = []
        while patches:  # each layer's parts are let go as soon as they are joined
            joined, mask = torch.cat(patches.pop(0)), torch.cat(kept.pop(0))
            banks.append(LayerBank(joined, mask, joined[mask].mean(dim=0)))
        return SPADE(features, torch.cat(pooled).clone(), banks)


def _kept(batch: TileBatch, layer: Tensor) -> Tensor:
    """(B, P) bool: cells of a layer that hold a cell that counts."""
    counts = functional.adaptive_max_pool2d(batch.kept.to(torch.float32).unsqueeze(1), layer.shape[-2:])
    return counts.flatten(1) > 0
