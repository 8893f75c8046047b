"""PaDiM: Mahalanobis distance of each patch to the good patches at the same place.

Defard et al., ICPR 2021 workshops, arXiv:2011.08785.

Departures, with figures in docs/decisions/0005-padim-embedding.md. Channels are reduced by a random semi-orthogonal
matrix (Kim et al., Pattern Recognition Letters 2022, arXiv:2105.14737) and not by drawing some of them: which ones a
seed drew moved the pixel AP of one set between 0.44 and 0.63. Before, each is scaled by the inverse root of its spread
at a place. Deeper layers are brought to the first layer's grid bilinearly and not by repeating cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.manifest import ImageScoreRule
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

REGULARISATION = 0.01
CHANNELS = 100
CHANNELS_WIDE = 550  # the paper's number for its 1792 channels of Wide ResNet-50
_WIDE = 1000
_QUIET = 0.1  # of the typical spread: quieter channels are not raised further
_BLOCK = 256  # places factorised at a time


def kept_channels(total: int) -> int:
    """How many channels stay of all layers' together."""
    return min(CHANNELS_WIDE if total > _WIDE else CHANNELS, total)


class Embedding(nn.Module):
    """Mixes all layers' channels into a few, at the first layer's grid."""

    def __init__(self, spreads: list[Tensor], seed: int) -> None:
        """Draw a semi-orthogonal matrix for channels that are scaled to like spread first.

        Args:
            spreads: (D_i,) by layer, the deviation of each channel between good parts at one place.
            seed: of the draw.
        """
        super().__init__()
        spread = torch.cat(spreads).to("cpu", torch.float32)
        total = len(spread)
        self.kept = kept_channels(total)
        drawn = torch.randn(total, self.kept, generator=torch.Generator().manual_seed(seed))
        typical = spread.mean()
        # the root only: full equality would raise channels that are mere noise, none would let a few loud ones decide
        scale = (typical / spread.clamp(min=_QUIET * typical)).sqrt()
        mixing = torch.linalg.qr(drawn).Q * scale.unsqueeze(1)
        for index, part in enumerate(torch.split(mixing, [len(layer) for layer in spreads])):
            self.register_buffer(f"mixing_{index}", part.T.reshape(self.kept, -1, 1, 1).contiguous())

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(B, D_i, h_i, w_i)] -> (B, D, h, w) of the first layer's h and w."""
        # mixing and interpolation are both linear: mixing first, on the small grids, gives the same for less
        mixed = [functional.conv2d(layer, self.get_buffer(f"mixing_{index}")) for index, layer in enumerate(maps)]
        joined = mixed[0]
        for part in mixed[1:]:
            joined = joined + functional.interpolate(part, size=joined.shape[-2:], mode="bilinear", align_corners=False)
        return joined


def spreads(features: Features, tiles: TrainingTiles) -> list[Tensor]:
    """Of each layer (D_i,): the deviation of every channel between good parts at one place, averaged over places.

    Raises:
        DataError: the parts do not differ at all, or show nothing.
    """
    counts = 0
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    pivots: list[Tensor] = []
    for batch in with_contrast(tiles):
        maps = [layer.to(torch.float64) for layer in features(batch.tiles)]
        if not pivots:
            pivots = [layer.mean(dim=0) for layer in maps]
            sums = [torch.zeros_like(pivot) for pivot in pivots]
            squares = [torch.zeros_like(pivot) for pivot in pivots]
        counts += len(batch.tiles)
        for index, layer in enumerate(maps):
            difference = layer - pivots[index]
            sums[index] += difference.sum(dim=0)
            squares[index] += difference.square().sum(dim=0)
    if counts < 2:  # noqa: PLR2004 - an unbiased variance divides by n - 1
        message = f"PaDiM needs 2 good images to fit to at least, there are {counts}"
        raise DataError(message)
    variances = [
        (square - total.square() / counts).clamp(min=0).mean(dim=(1, 2)) / (counts - 1)
        for square, total in zip(squares, sums, strict=True)
    ]
    check_varies(float(torch.cat(variances).sum()), "the patches at their places")
    return [variance.sqrt() for variance in variances]


class PaDiM(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, features: Features, embedding: Embedding, *, mean: Tensor, whitening: Tensor) -> None:
        """Take the fitted statistics.

        Args:
            features: gives all channels.
            embedding: reduces them.
            mean: (h * w, D) of good patches at each place.
            whitening: (h * w, D, D), the inverse of the covariance's Cholesky factor.
        """
        super().__init__()
        self.features = features
        self.embedding = embedding
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w) Mahalanobis distance."""
        patches: Tensor = self.embedding(self.features(tiles))  # (B, D, h, w)
        batch, channels, height, width = patches.shape
        places = patches.permute(2, 3, 1, 0).reshape(height * width, channels, batch)
        white = self.whitening @ (places - self.mean.unsqueeze(2))  # (h * w, D, B)
        distance = white.square().sum(dim=1).sqrt()
        return distance.T.reshape(batch, height, width)


@dataclass(frozen=True, slots=True)
class PaDiMMethod:
    """PaDiM as the trainer's registry knows it."""

    name: str = "padim"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = True
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    pooled_windows: tuple[int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights"})
    validation: float = 0.0
    note: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Sums of outer products in float64 at every place of the plane, and the graph's statistics."""
        height, width = data.fit.grid
        count = kept_channels(sum(features.channels))
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 8 * height * width * count * (count + 1) + held

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> PaDiM:
        """The features, the matrix that mixes channels, and mean and whitening at every place of the plane."""
        embedding = Embedding([torch.ones(channels) for channels in features.channels], settings.seed)
        height, width = data.fit.grid
        mean = torch.empty(height * width, embedding.kept, device="meta")
        whitening = torch.empty(height * width, embedding.kept, embedding.kept, device="meta")
        return PaDiM(features, embedding, mean=mean, whitening=whitening)

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> PaDiM:
        """Mean and unbiased covariance, plus 0.01 I, of good patches at every place."""
        device = features.mean.device
        with torch.inference_mode():
            spread = spreads(features, data.fit)
        embedding = Embedding([layer.clone() for layer in spread], settings.seed).to(device)
        height, width = data.fit.grid
        places, channels = height * width, embedding.kept
        sums = torch.zeros(places, channels, dtype=torch.float64, device=device)
        products = torch.zeros(places, channels, channels, dtype=torch.float64, device=device)
        pivot: Tensor | None = None  # of the first batch: sums of differences do not cancel as sums of squares do
        count = 0
        with torch.inference_mode():
            for batch in data.fit:
                patches = embedding(features(batch.tiles)).permute(2, 3, 0, 1).reshape(places, -1, channels)
                if pivot is None:
                    pivot = patches.mean(dim=1, keepdim=True)
                difference = patches - pivot
                sums += difference.sum(dim=1)
                products += difference.transpose(1, 2) @ difference
                count += patches.shape[1]
        if pivot is None:
            message = "PaDiM found no tile to fit to: the valid area leaves nothing"
            raise DataError(message)
        mean, whitening = _statistics(sums, products, count)
        return PaDiM(features, embedding, mean=pivot.squeeze(1).clone() + mean, whitening=whitening)


def _statistics(sums: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of the differences (P, D) and whitening (P, D, D), block by block; `products` is used up."""
    places, channels, _ = products.shape
    mean = sums / count
    whitening = torch.empty(places, channels, channels, dtype=torch.float32, device=sums.device)
    identity = torch.eye(channels, dtype=torch.float64, device=sums.device)
    for start in range(0, places, _BLOCK):
        block = slice(start, start + _BLOCK)
        outer = mean[block].unsqueeze(2) @ mean[block].unsqueeze(1)
        covariance = (products[block] - count * outer) / (count - 1)
        factor = torch.linalg.cholesky(covariance + REGULARISATION * identity)
        whitening[block] = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return mean.to(torch.float32), whitening
