"""PatchCore: distance from each patch to its nearest good patch.

Roth et al., CVPR 2022, arXiv:2106.08265.

Departures. The distance is computed in two steps: the nearest patch is found with a matrix product, then its distance
is computed from the difference itself, because |x|^2 + |c|^2 - 2xc cancels near zero, and all the more in low precision.
The image score is the largest mean over 3x3 cells and not the re-weighted maximum of single cells; the bank is smaller.
Both with figures in docs/decisions/0006-patchcore-score.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.recipe import ImageScoreRule
from trainer.backbones import Features
from trainer.models.coreset import PROJECTED, StreamingCoreset
from trainer.models.method import FeatureRequest, FitData, FitSettings, backbone_features, with_contrast
from trainer.models.neighbours import grouped, nearest_distances
from trainer.models.seen import joined
from trainer.progress import counter

DEFAULT_CORESET = 0.01
DEFAULT_BANK = 1_500  # patches at most, unless the user asks for more: a larger bank learns the noise of good parts
MAX_BANK = 20_000  # patches; beyond, the bank alone would take more time than the network


class PatchCore(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    bank: Tensor
    half_norms: Tensor
    centre: Tensor

    def __init__(self, features: Features, bank: Tensor) -> None:
        """Take a fitted bank (N, D) of good patches."""
        super().__init__()
        self.features = features
        centre = bank.mean(dim=0)
        self.register_buffer("centre", centre)  # distances stay the same, norms become small
        rows, halves = grouped(bank - centre)
        self.register_buffer("bank", rows)
        self.register_buffer("half_norms", halves)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w) raw L2 distance."""
        patches = embed(self.features(tiles))  # (B, D, h, w)
        batch, channels, height, width = patches.shape
        flat = patches.permute(0, 2, 3, 1).reshape(-1, channels) - self.centre
        return nearest_distances(flat, self.bank, self.half_norms, 1).reshape(batch, height, width)


def embed(maps: list[Tensor]) -> Tensor:
    """Average each layer over 3x3 neighbours and join all at the first layer's grid: (B, sum D_i, h, w)."""
    return joined([functional.avg_pool2d(layer, kernel_size=3, stride=1, padding=1) for layer in maps])


class Embedded(nn.Module):
    """What of the graph looks beyond a cell: patches, before any is kept."""

    def __init__(self, features: Features) -> None:
        """Take the features."""
        super().__init__()
        self.features = features

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, sum D_i, h, w)."""
        return embed(self.features(tiles))


@dataclass(frozen=True, slots=True)
class PatchCoreMethod:
    """PatchCore as the trainer's registry knows it."""

    name: str = "patchcore"
    layers: tuple[str, ...] = ("layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.POOLED_MAX
    pooled_windows: tuple[int, int, int] | None = (3, 5, 1)  # more cells, more noise; none is left against a background
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights", "coreset"})
    validation: float = 0.0
    note: str = ""
    no_frame_graph: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """Features averaged over their neighbours."""
        return Embedded(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """The patches held for selection (twice while they are thinned) and the bank."""
        patch = 4 * (sum(features.channels) + min(PROJECTED, sum(features.channels)))
        held = min(data.fit.cells * patch, settings.buffer_bytes)
        return 2 * held + bank_size(data.fit.cells, settings.coreset) * patch

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> PatchCore:
        """The features with a bank of as many patches."""
        rows = bank_size(data.fit.cells, settings.coreset)
        return PatchCore(features, torch.empty(rows, sum(features.channels), device="meta"))

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> PatchCore:
        """Gather the patches of good tiles and keep a coreset of them."""
        device = features.mean.device
        channels = sum(features.channels)
        cap = settings.buffer_bytes // (4 * (channels + min(PROJECTED, channels)))
        wanted = bank_size(data.fit.cells, settings.coreset)
        coreset = StreamingCoreset(channels, wanted=wanted, cap=cap, seed=settings.seed, device=device)
        with torch.inference_mode():
            for batch in with_contrast(data.fit):
                patches = embed(features(batch.tiles)).permute(0, 2, 3, 1)
                coreset.add(patches[batch.kept])
            count = bank_size(coreset.seen, settings.coreset)
            with counter(count, "coreset") as advance:
                bank = coreset.select(count, on_pick=advance)
        return PatchCore(features, bank.clone())


def bank_size(patches: int, coreset: float | None) -> int:
    """Patches to keep: 1 % and 1500 at most, or what the user asks for, a share or a number, and 20,000 at most."""
    if coreset is None:
        return max(1, min(round(DEFAULT_CORESET * patches), DEFAULT_BANK))
    wanted = round(coreset * patches) if isinstance(coreset, float) else coreset
    return max(1, min(wanted, patches, MAX_BANK))
