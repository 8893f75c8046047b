"""Owns what methods share that train on a frozen network's features: their cache, spread, masks for each grid, the fit itself."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.method import FitData, FitSettings, TileBatch, check_varies, state_bytes, with_contrast
from trainer.training import Schedule, train

_QUIET = 0.1  # of a layer's typical deviation: quieter channels are not raised further
_OPTIMISER_COPIES = 3  # beside each parameter: its gradient, Adam's two averages

_Model = TypeVar("_Model", bound=nn.Module)


class FeatureCache:
    """Feature maps of tiles, computed once as long as they fit.

    Tiles go through the network one by one: what is kept of a tile must not depend on the batch that it first came in, or
    a resumed fit would differ from an unbroken one in the last digits.
    """

    def __init__(self, features: Features, limit_bytes: int) -> None:
        """Begin with nothing."""
        self._features = features
        self._room = limit_bytes
        self._known: dict[bytes, list[Tensor]] = {}

    def maps(self, tiles: Tensor) -> list[Tensor]:
        """(B, H, W, C) integers -> [(B, D_i, h_i, w_i)] float32, without gradient."""
        found = [self._one(tile, pixels) for tile, pixels in zip(tiles, tiles.cpu().numpy(), strict=True)]
        return [torch.cat(layer) for layer in zip(*found, strict=True)]

    def _one(self, tile: Tensor, pixels: NDArray[Any]) -> list[Tensor]:
        key = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None:
            return known
        with torch.no_grad(), torch.autocast(tile.device.type, enabled=False):
            maps: list[Tensor] = self._features(tile.unsqueeze(0))
        size = sum(layer.numel() * layer.element_size() for layer in maps)
        if size <= self._room:
            self._room -= size
            self._known[key] = maps
        return maps


class Standardise(nn.Module):
    """Channels less their mean over the fit share, by their deviation: any grid, and no image's own statistics."""

    def __init__(self, means: list[Tensor], deviations: list[Tensor]) -> None:
        """Take (D_i,) of each layer; deviations far below their layer's typical one are raised."""
        super().__init__()
        for index, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            floor = _QUIET * deviation.mean()
            self.register_buffer(f"mean_{index}", mean.to(torch.float32).view(1, -1, 1, 1))
            self.register_buffer(f"scale_{index}", (1 / deviation.clamp(min=floor)).to(torch.float32).view(1, -1, 1, 1))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, D_i, h_i, w_i)] -> the same with mean 0 and deviation 1 over the fit share."""
        return [
            (layer - self.get_buffer(f"mean_{index}")) * self.get_buffer(f"scale_{index}")
            for index, layer in enumerate(maps)
        ]


def standardise(cache: FeatureCache, tiles: Iterable[TileBatch]) -> Standardise:
    """Mean and deviation of each channel over the cells that count.

    Raises:
        DataError: there is no cell, or the cells do not differ.
    """
    counts: list[int] = []
    pivots: list[Tensor] = []
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    for batch in with_contrast(tiles):
        maps = cache.maps(batch.tiles)
        cells = [layer.permute(0, 2, 3, 1)[kept_at(batch.kept, layer)].to(torch.float64) for layer in maps]
        if not pivots:
            counts = [0] * len(cells)
            pivots = [layer.mean(dim=0) for layer in cells]  # sums of differences do not cancel as sums of squares do
            sums = [torch.zeros_like(pivot) for pivot in pivots]
            squares = [torch.zeros_like(pivot) for pivot in pivots]
        for index, layer in enumerate(cells):
            difference = layer - pivots[index]
            counts[index] += len(layer)
            sums[index] += difference.sum(dim=0)
            squares[index] += difference.square().sum(dim=0)
    if not pivots:
        message = "there is no tile to fit to: the valid area leaves nothing"
        raise DataError(message)
    shifts = [total / count for total, count in zip(sums, counts, strict=True)]
    variances = [
        (square / count - shift.square()).clamp(min=0)
        for square, count, shift in zip(squares, counts, shifts, strict=True)
    ]
    for variance in variances:
        check_varies(float(variance.sum()), "a layer's features")
    means = [pivot + shift for pivot, shift in zip(pivots, shifts, strict=True)]
    return Standardise(means, [variance.sqrt() for variance in variances])


def kept_at(kept: Tensor, layer: Tensor) -> Tensor:
    """Cells that count, (B, h, w) bool of the finest grid, at the grid of a layer (B, D, h_i, w_i).

    A coarser cell counts where any finer one does that it is brought to.
    """
    height, width = layer.shape[-2:]
    if kept.shape[-2:] == (height, width):
        return kept
    return functional.adaptive_max_pool2d(kept.to(torch.float32).unsqueeze(1), (height, width)).squeeze(1) > 0


def mean_over(values: Tensor, kept: Tensor) -> Tensor:
    """(B, h, w), (B, h, w) bool -> the mean of what counts; every batch has a cell that does."""
    return (values * kept).sum() / kept.sum()


def to_grid(layer: Tensor, grid: torch.Size) -> Tensor:
    """(B, h_i, w_i) -> (B, h, w), bilinear."""
    if layer.shape[-2:] == grid:
        return layer
    return functional.interpolate(layer.unsqueeze(1), size=grid, mode="bilinear", align_corners=False).squeeze(1)


def training_bytes(features: Features, data: FitData, settings: FitSettings, model: nn.Module, width: int) -> int:
    """Memory of a fit by gradients on cached features.

    Args:
        features: the frozen network.
        data: the shares.
        settings: the cache's bound.
        model: what is trained, on the meta device.
        width: float32 numbers that a tile's finest cell leaves for the backward pass, all layers and steps together.
    """
    height, breadth = data.fit.grid
    finest = features.grid_stride
    cells = [height * breadth * finest**2 // stride**2 for stride in features.strides]
    of_tile = 4 * sum(count * channels for count, channels in zip(cells, features.channels, strict=True))
    shares = [share for share in (data.fit, data.validation) if share is not None]
    tiles = sum(share.count for share in shares)
    batch = min(data.fit.batch, data.fit.count)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cached = min(tiles * of_tile, settings.buffer_bytes)
    optimised = _OPTIMISER_COPIES * parameters + batch * height * breadth * width
    return cached + state_bytes(model, unmade_standardise(features)) + 4 * optimised


def unmade_standardise(features: Features) -> Standardise:
    """Means and scales without their values, on the meta device."""
    with torch.device("meta"):
        return Standardise(*([torch.empty(count) for count in features.channels] for _ in range(2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class OnFeatures(Generic[_Model]):
    """A model that was trained on standardised features, with what made them."""

    model: _Model
    standard: Standardise
    cache: FeatureCache

    def layers(self, tiles: Tensor) -> list[Tensor]:
        """(B, H, W, C) integers -> [(B, D_i, h_i, w_i)] as the model takes them."""
        found: list[Tensor] = self.standard(self.cache.maps(tiles))
        return found


def train_on_features(
    features: Features,
    data: FitData,
    settings: FitSettings,
    schedule: Schedule,
    make: Callable[[], _Model],
    loss: Callable[[_Model, list[Tensor], Tensor, torch.Generator], Tensor],
) -> OnFeatures[_Model]:
    """Train a model on the standardised features of good tiles, with an early stop on the validation share.

    Args:
        features: the frozen network.
        data: the shares.
        settings: the cache's bound, and what `train` takes.
        schedule: the method's.
        make: the model, drawn from torch's generator.
        loss: of the model, standardised layers [(B, D_i, h_i, w_i)], cells that count (B, h, w) at the finest grid, and
            the generator of all chance.

    Raises:
        DataError: the images do not vary, or training broke down.
    """
    device = features.mean.device
    cache = FeatureCache(features, settings.buffer_bytes)
    standard = standardise(cache, data.fit)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = make().to(device)
    trained = OnFeatures(model=model, standard=standard, cache=cache)

    def of_batch(batch: TileBatch, generator: torch.Generator) -> Tensor:
        return loss(model, trained.layers(batch.tiles), batch.kept, generator)

    def of_share() -> float:
        """The mean loss over the validation share's batches, with the same draws at every look."""
        generator = torch.Generator(device).manual_seed(0)
        found = [(float(of_batch(batch, generator)), len(batch.tiles)) for batch in data.validation or ()]
        return sum(value * tiles for value, tiles in found) / sum(tiles for _, tiles in found)

    train(model, data.fit, of_batch, schedule, settings, validate=None if data.validation is None else of_share)
    return trained
