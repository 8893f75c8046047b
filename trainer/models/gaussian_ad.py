"""Gaussian-AD: Mahalanobis distance of an image's pooled features to those of good images, summed over layers.

Rippel et al., ICPR 2020, arXiv:2005.14140.

Of an EfficientNet all nine levels: stem, seven blocks, head. Departures. EfficientNet-B4 is the default where
`TAKT_WEIGHTS` holds its weights; else the common default is, with three stages, since a method must not ask for a
download that others do not need. The score is of the whole image: the map shows it at every cell, marks no place, and must not be read as one.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.method import (
    FeatureRequest,
    FitData,
    FitSettings,
    TrainingTiles,
    added_bytes,
    backbone_features,
    check_varies,
    with_contrast,
)
from trainer.models.seen import Joined

PAPER_BACKBONES = ("tf_efficientnet_b4.aa_in1k", "tf_efficientnet_b4.in1k", "efficientnet_b4.ra2_in1k")
PAPER_LAYERS = ("bn1", *(f"blocks.{block}" for block in range(7)), "bn2")  # stem, all blocks, head
_FEWEST = 3  # two centred images are one direction, to which no shrinkage can be estimated


def ledoit_wolf(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and shrunk covariance.

    Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004) 365-411: the mix of the empirical covariance and the
    scaled identity whose expected squared error is estimated to be smallest.

    Args:
        samples: (N, D) float64.

    Returns:
        (D,) and (D, D), float64.
    """
    count, channels = samples.shape
    mean = samples.mean(dim=0)
    centred = samples - mean
    empirical = centred.T @ centred / count
    scale = empirical.diagonal().mean()
    target = scale * torch.eye(channels, dtype=samples.dtype, device=samples.device)
    distance = (empirical - target).square().sum()
    # mean of |xx' - S|^2 over the samples, by way of |xx'|^2 = |x|^4
    noise = (centred.square().sum(dim=1).square().mean() - empirical.square().sum()) / count
    shrinkage = torch.where(distance > 0, (noise / distance).clamp(0.0, 1.0), 1.0)
    return mean, (1 - shrinkage) * empirical + shrinkage * target


class GaussianAD(nn.Module):
    """Tiles to (constant map, image score); `forward` is exactly the exported graph."""

    def __init__(self, features: Features, statistics: list[tuple[Tensor, Tensor]]) -> None:
        """Take the fitted statistics: of each layer the mean (D,) and the whitening (D, D).

        The whitening is the inverse of the covariance's Cholesky factor.
        """
        super().__init__()
        self.features = features
        for index, (mean, whitening) in enumerate(statistics):
            self.register_buffer(f"mean_{index}", mean)
            self.register_buffer(f"whitening_{index}", whitening)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) integers -> (B, h, w) the score at every cell, (B,) sum of Mahalanobis distances."""
        maps = self.features(tiles)
        score = torch.zeros_like(maps[0][:, 0, 0, 0])
        for index, pooled in enumerate(pool(maps)):
            centred = pooled - self.get_buffer(f"mean_{index}")
            white = (self.get_buffer(f"whitening_{index}") * centred.unsqueeze(1)).sum(dim=2)
            score = score + white.square().sum(dim=1).sqrt()
        return torch.zeros_like(maps[0][:, 0]) + score.view(-1, 1, 1), score


def pool(maps: list[Tensor]) -> list[Tensor]:
    """[(B, D_i, h_i, w_i)] -> [(B, D_i)]: the mean over all cells."""
    return [layer.mean(dim=(2, 3)) for layer in maps]


def gather(features: Features, tiles: TrainingTiles) -> list[Tensor]:
    """Of each layer (N, D_i) float64: pooled features of all tiles.

    Raises:
        DataError: too few tiles, or they do not vary.
    """
    parts = [pool(features(batch.tiles)) for batch in with_contrast(tiles)]
    count = sum(len(part[0]) for part in parts)
    if count < _FEWEST:
        message = f"Gaussian-AD needs {_FEWEST} good images to fit to at least, there are {count}"
        raise DataError(message)
    layers = [torch.cat(layer).to(torch.float64) for layer in zip(*parts, strict=True)]
    for name, samples in zip(features.layers, layers, strict=True):
        variance = float(samples.var(dim=0).mean())
        floor = 1e-12 * float(samples.square().mean())  # rounding, no variation
        check_varies(variance if variance > floor else 0.0, f"{name}, pooled,")
    return layers


@dataclass(frozen=True, slots=True)
class GaussianADMethod:
    """Gaussian-AD as the trainer's registry knows it."""

    name: str = "gaussian_ad"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.GRAPH
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 0.0  # there is nothing to smooth in a constant
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights"})
    validation: float = 0.0
    note: str = ""
    no_frame_graph: str = "its score is of all that its graph sees"

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone: the paper's where its weights are at hand and neither backbone, layers nor weights were named."""
        chosen = wanted.named or wanted.layers is not None or wanted.weights is not None
        paper = None if chosen else _paper_backbone(wanted.weights_dir)
        asked = wanted if paper is None else replace(wanted, backbone=paper)
        return backbone_features(asked, PAPER_LAYERS if "efficientnet" in asked.backbone else self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """All layers at the first one's grid."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Pooled features twice over, of each layer five square matrices in float64, and the graph's statistics."""
        pooled = data.fit.count * sum(features.channels) * (4 + 8 + 8)
        matrices = 5 * 8 * sum(channels**2 for channels in features.channels)
        return pooled + matrices + added_bytes(self.stand_in(features, data, settings), features)

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> GaussianAD:  # noqa: ARG002 - as the Protocol has it
        """The features with mean and whitening of every layer."""
        with torch.device("meta"):
            return GaussianAD(features, [(torch.empty(c), torch.empty(c, c)) for c in features.channels])

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> GaussianAD:  # noqa: ARG002 - nothing is drawn
        """Mean and shrunk covariance of every layer's pooled features."""
        with torch.inference_mode():
            layers = [samples.clone() for samples in gather(features, data.fit)]
        return GaussianAD(features, [_statistics(samples) for samples in layers])


def _statistics(samples: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) float64 -> mean (D,) and whitening (D, D), float32.

    Raises:
        DataError: the covariance cannot be inverted.
    """
    mean, covariance = ledoit_wolf(samples)
    factor, fault = torch.linalg.cholesky_ex(covariance)
    if int(fault):
        message = (
            f"the covariance of {len(samples)} good images' pooled features cannot be inverted: too few of them differ; "
            "give more images, or fewer --layers"
        )
        raise DataError(message)
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
    return mean.to(torch.float32), whitening.to(torch.float32)


def _paper_backbone(weights_dir: Path | None) -> str | None:
    """The first of the paper's networks of which the folder holds weights."""
    if weights_dir is None:
        return None
    found = [name for name in PAPER_BACKBONES if (weights_dir / f"{name}.safetensors").is_file()]
    return found[0] if found else None
