"""PaDiM: Mahalanobis distance of each patch to the good patches at the same place.

Defard et al., ICPR 2021 workshops, arXiv:2011.08785.

Departures, with figures in docs/decisions/0005-padim-embedding.md. Channels are reduced by a random semi-orthogonal
matrix (Kim et al., Pattern Recognition Letters 2022, arXiv:2105.14737) and not by drawing some of them: which ones a
seed drew moved the pixel AP of one set between 0.44 and 0.63. Before, each is scaled by the inverse root of its spread
at a place. Deeper layers are brought to the first layer's grid bilinearly and not by repeating cells.
"""

from collections.abc import Callable
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
    TrainingTiles,
    added_bytes,
    backbone_features,
    check_varies,
    with_contrast,
)
from trainer.models.seen import Joined

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


class _Moments:
    """Sums of values and of their products at every place of every tile, about a pivot.

    The pivot is of the first images: sums of differences do not cancel as sums of squares do.
    """

    def __init__(self, places: int, shape: tuple[int, ...], products: tuple[int, ...], device: torch.device) -> None:
        """Begin with nothing.

        Args:
            places: tiles of the plan.
            shape: of a tile's values.
            products: of a tile's sums of products.
            device: where they are summed.
        """
        self.counts = torch.zeros(places, dtype=torch.int64)
        self.pivots = torch.zeros(places, *shape, dtype=torch.float32, device=device)
        self.sums = torch.zeros(places, *shape, dtype=torch.float64, device=device)
        self.products = torch.zeros(places, *products, dtype=torch.float64, device=device)

    def add(self, values: Tensor, index: Tensor | None, multiply: Callable[[Tensor], Tensor]) -> None:
        """Add values (B, ...) of tiles `index` (B,), all of tile 0 where None; `multiply` sums products over B."""
        tiles = torch.zeros(len(values), dtype=torch.int64) if index is None else index.to("cpu", torch.int64)
        for tile in sorted(set(tiles.tolist())):
            members = values[(tiles == tile).to(values.device)]
            if not self.counts[tile]:
                self.pivots[tile] = members.mean(dim=0)
            difference = members - self.pivots[tile]
            self.sums[tile] += difference.sum(dim=0)
            self.products[tile] += multiply(difference)
            self.counts[tile] += len(members)


def spreads(features: Features, tiles: TrainingTiles) -> list[Tensor]:
    """Of each layer (D_i,): the deviation of every channel between good parts at one place, averaged over places.

    Raises:
        DataError: the parts do not differ at all, or show nothing.
    """
    moments: list[_Moments] = []
    for batch in with_contrast(tiles):
        maps = [_core(layer, tiles, features.grid_stride / stride) for layer, stride in _layers(features, batch.tiles)]
        if not moments:
            shapes = [tuple(layer.shape[1:]) for layer in maps]
            moments = [_Moments(tiles.places, shape, shape, maps[0].device) for shape in shapes]
        for of_layer, layer in zip(moments, maps, strict=True):
            of_layer.add(layer.to(torch.float64), batch.index, lambda difference: difference.square().sum(dim=0))
    seen = moments[0].counts > 0 if moments else torch.zeros(1, dtype=torch.bool)
    count = int(moments[0].counts[seen].min()) if seen.any() else 0
    if count < 2:  # noqa: PLR2004 - an unbiased variance divides by n - 1
        message = f"PaDiM needs 2 good images to fit to at least, there are {count}"
        raise DataError(message)
    variances = [_variance(of_layer, seen) for of_layer in moments]
    check_varies(float(torch.cat(variances).sum()), "the patches at their places")
    return [variance.sqrt() for variance in variances]


def _variance(moments: _Moments, seen: Tensor) -> Tensor:
    """(D,) of (T, D, h, w): unbiased at each place, averaged over the places of the tiles that were seen."""
    chosen = seen.to(moments.sums.device)
    counts = moments.counts[seen].to(moments.sums.device).view(-1, 1, 1, 1)
    spread = (moments.products[chosen] - moments.sums[chosen].square() / counts).clamp(min=0) / (counts - 1)
    return spread.mean(dim=(0, 2, 3))


def _layers(features: Features, tiles: Tensor) -> list[tuple[Tensor, int]]:
    return list(zip(features(tiles), features.strides, strict=True))


def _core(layer: Tensor, tiles: TrainingTiles, share: float = 1.0) -> Tensor:
    """Cells (B, D, h, w) of a tile's core; `share` is of a finest cell's side to the layer's."""
    margin = round(tiles.margin * share)
    return layer[:, :, margin : layer.shape[2] - margin, margin : layer.shape[3] - margin]


class PaDiM(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    mean: Tensor
    whitening: Tensor

    def __init__(
        self, features: Features, embedding: Embedding, *, core: tuple[int, int], mean: Tensor, whitening: Tensor
    ) -> None:
        """Take the fitted statistics of T tiles' cores, h * w places each.

        Args:
            features: gives all channels.
            embedding: reduces them.
            core: h and w; what a tile's grid has beyond is its halo.
            mean: (T, h * w, D) of good patches at each place.
            whitening: (T, h * w, D, D), the inverse of the covariance's Cholesky factor; 0 where nothing was seen.
        """
        super().__init__()
        self.features = features
        self.embedding = embedding
        self.core = core
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, tiles: Tensor, tile_index: Tensor | None = None) -> Tensor:
        """Distances of the core's cells; 0 in the halo, which nobody looks at.

        Args:
            tiles: (B, H, W, C) integers.
            tile_index: (B,) int32, which tile each is; None where there is but one.

        Returns:
            (B, h, w) Mahalanobis distance.
        """
        patches: Tensor = self.embedding(self.features(tiles))  # (B, D, h, w) with halo
        height, width = self.core
        rows, columns = (patches.shape[2] - height) // 2, (patches.shape[3] - width) // 2
        patches = patches[:, :, rows : rows + height, columns : columns + width]
        batch, channels = patches.shape[:2]
        if tile_index is None:
            places = patches.permute(2, 3, 1, 0).reshape(height * width, channels, batch)
            white = self.whitening[0] @ (places - self.mean[0].unsqueeze(2))  # (h * w, D, B)
            distance = white.square().sum(dim=1).sqrt().T
        else:
            places = patches.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
            centred = places - self.mean.index_select(0, tile_index)
            white = self.whitening.index_select(0, tile_index) @ centred.unsqueeze(3)  # (B, h * w, D, 1)
            distance = white.squeeze(3).square().sum(dim=2).sqrt()
        return functional.pad(distance.reshape(batch, height, width), (columns, columns, rows, rows))


@dataclass(frozen=True, slots=True)
class PaDiMMethod:
    """PaDiM as the trainer's registry knows it."""

    name: str = "padim"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = True
    knows_places: bool = True
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights"})
    validation: float = 0.0
    note: str = ""
    no_frame_graph: str = "keeps statistics for every place of a tile"

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """All layers at the first one's grid."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Sums of outer products in float64 at every place of every tile, and the graph's statistics."""
        count = kept_channels(sum(features.channels))
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 8 * _places(data.fit) * count * (count + 1) + held

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> PaDiM:
        """The features, the matrix that mixes channels, and mean and whitening at every place of every tile."""
        embedding = Embedding([torch.ones(channels) for channels in features.channels], settings.seed)
        core, channels = _core_grid(data.fit), embedding.kept
        shape = (data.fit.places, core[0] * core[1], channels)
        mean = torch.empty(*shape, device="meta")
        whitening = torch.empty(*shape, channels, device="meta")
        return PaDiM(features, embedding, core=core, mean=mean, whitening=whitening)

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> PaDiM:
        """Mean and unbiased covariance, plus 0.01 I, of good patches at every place of every tile."""
        device = features.mean.device
        with torch.inference_mode():
            spread = spreads(features, data.fit)
        embedding = Embedding([layer.clone() for layer in spread], settings.seed).to(device)
        core, channels = _core_grid(data.fit), embedding.kept
        places = core[0] * core[1]
        moments = _Moments(data.fit.places, (places, channels), (places, channels, channels), device)
        with torch.inference_mode():
            for batch in data.fit:
                patches = _core(embedding(features(batch.tiles)), data.fit).permute(0, 2, 3, 1)
                moments.add(patches.reshape(-1, places, channels), batch.index, _outer)
        mean, whitening = _statistics(moments)
        return PaDiM(features, embedding, core=core, mean=mean, whitening=whitening)


def _core_grid(tiles: TrainingTiles) -> tuple[int, int]:
    """Height and width of a core in cells."""
    height, width = tiles.grid
    return height - 2 * tiles.margin, width - 2 * tiles.margin


def _places(tiles: TrainingTiles) -> int:
    """Places of all tiles' cores: the halo has no statistics, so memory does not grow with it."""
    height, width = _core_grid(tiles)
    return tiles.places * height * width


def _outer(difference: Tensor) -> Tensor:
    """(B, P, D) -> (P, D, D), summed over B."""
    patches = difference.transpose(0, 1)
    return patches.transpose(1, 2) @ patches


def _statistics(moments: _Moments) -> tuple[Tensor, Tensor]:
    """Mean (T, P, D) and whitening (T, P, D, D), block by block; both 0 where nothing was seen."""
    tiles, places, channels = moments.sums.shape
    mean = moments.pivots.clone()
    whitening = torch.zeros(tiles, places, channels, channels, dtype=torch.float32, device=mean.device)
    identity = torch.eye(channels, dtype=torch.float64, device=mean.device)
    for tile, count in enumerate(moments.counts.tolist()):
        for start in range(0, places if count else 0, _BLOCK):
            block = slice(start, start + _BLOCK)
            shift = moments.sums[tile, block] / count
            outer = shift.unsqueeze(2) @ shift.unsqueeze(1)
            covariance = (moments.products[tile, block] - count * outer) / (count - 1)
            factor = torch.linalg.cholesky(covariance + REGULARISATION * identity)
            whitening[tile, block] = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
            mean[tile, block] += shift.to(torch.float32)
    return mean, whitening
