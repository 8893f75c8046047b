"""PaDiM: Mahalanobis distance of each patch to the good patches at the same place.

Defard et al., ICPR 2021 workshops, arXiv:2011.08785.

Departures. Deeper layers are brought to the first layer's grid bilinearly, as PatchCore does, and not by repeating
cells: on the real sets that this was tried on it never cost and often gained (docs/methods.md). Channels are drawn at
random as in the paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.manifest import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.method import FitSettings, TrainingTiles, check_varies

REGULARISATION = 0.01
CHANNELS = 100
CHANNELS_WIDE = 550  # the paper's number for its 1792 channels of Wide ResNet-50
_WIDE = 1000
_BLOCK = 256  # places factorised at a time


class PaDiM(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    indices: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, features: Features, *, indices: Tensor, mean: Tensor, whitening: Tensor) -> None:
        """Take the fitted statistics.

        Args:
            features: gives all channels.
            indices: (D,) int64, the channels in use.
            mean: (h * w, D) of good patches at each place.
            whitening: (h * w, D, D), the inverse of the covariance's Cholesky factor.
        """
        super().__init__()
        self.features = features
        self.register_buffer("indices", indices)
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w) Mahalanobis distance."""
        patches = embed(self.features(tiles), self.indices)  # (B, D, h, w)
        batch, channels, height, width = patches.shape
        places = patches.permute(2, 3, 1, 0).reshape(height * width, channels, batch)
        white = self.whitening @ (places - self.mean.unsqueeze(2))  # (h * w, D, B)
        distance = white.square().sum(dim=1).sqrt()
        return distance.T.reshape(batch, height, width)


def embed(maps: list[Tensor], indices: Tensor) -> Tensor:
    """Join all layers at the first layer's grid and keep the chosen channels: (B, D, h, w)."""
    grid = maps[0].shape[-2:]
    scaled = [maps[0]] + [functional.interpolate(m, size=grid, mode="bilinear", align_corners=False) for m in maps[1:]]
    return torch.cat(scaled, dim=1)[:, indices]


def draw_channels(features: Features, seed: int) -> Tensor:
    """Channels to keep, in rising order: 100, or 550 of a wide network."""
    total = sum(features.channels)
    count = min(CHANNELS_WIDE if total > _WIDE else CHANNELS, total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:count].sort().values


@dataclass(frozen=True, slots=True)
class PaDiMMethod:
    """PaDiM as the trainer's registry knows it."""

    name: str = "padim"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = True
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    sigma: float = 4.0
    settings: frozenset[str] = frozenset()

    def predict_bytes(self, features: Features, tiles: TrainingTiles, settings: FitSettings) -> int:
        """Sums of outer products in float64, then the whitening in float32, at every place."""
        count = len(draw_channels(features, settings.seed))
        height, width = tiles.grid
        return height * width * count * count * (8 + 4)

    def fit(self, features: Features, tiles: TrainingTiles, settings: FitSettings) -> PaDiM:
        """Mean and unbiased covariance, plus 0.01 I, of good patches at every place."""
        device = features.mean.device
        indices = draw_channels(features, settings.seed).to(device)
        height, width = tiles.grid
        places, channels = height * width, len(indices)
        sums = torch.zeros(places, channels, dtype=torch.float64, device=device)
        products = torch.zeros(places, channels, channels, dtype=torch.float64, device=device)
        pivot: Tensor | None = None  # of the first batch: sums of differences do not cancel as sums of squares do
        count = 0
        with torch.inference_mode():
            for batch in tiles:
                patches = embed(features(batch.tiles), indices).permute(2, 3, 0, 1).reshape(places, -1, channels)
                if pivot is None:
                    pivot = patches.mean(dim=1, keepdim=True)
                difference = patches - pivot
                sums += difference.sum(dim=1)
                products += difference.transpose(1, 2) @ difference
                count += patches.shape[1]
        if count < 2 or pivot is None:  # noqa: PLR2004 - an unbiased covariance divides by n - 1
            message = f"PaDiM needs 2 good images to fit to at least, there are {count}"
            raise DataError(message)
        mean, whitening = _statistics(sums, products, count)
        return PaDiM(features, indices=indices, mean=pivot.squeeze(1).clone() + mean, whitening=whitening)


def _statistics(sums: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of the differences (P, D) and whitening (P, D, D), block by block; `products` is used up."""
    places, channels, _ = products.shape
    mean = sums / count
    whitening = torch.empty(places, channels, channels, dtype=torch.float32, device=sums.device)
    identity = torch.eye(channels, dtype=torch.float64, device=sums.device)
    variance = 0.0
    for start in range(0, places, _BLOCK):
        block = slice(start, start + _BLOCK)
        outer = mean[block].unsqueeze(2) @ mean[block].unsqueeze(1)
        covariance = (products[block] - count * outer) / (count - 1)
        variance += float(covariance.diagonal(dim1=1, dim2=2).sum())
        factor = torch.linalg.cholesky(covariance + REGULARISATION * identity)
        whitening[block] = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    check_varies(variance, "the patches at their places")
    return mean.to(torch.float32), whitening
