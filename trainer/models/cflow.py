"""CFLOW-AD: likelihood of each patch under a flow that is conditioned on the patch's place, one flow for every layer.

Gudovskiy et al., WACV 2022, arXiv:2107.12571.

Departures. Likelihoods are divided by their maximum over the validation share, which is stored, and not by the maximum of
the batch: a score would depend on the images beside it. Features are standardised by each channel's mean and deviation
over the fit share and the last linear layer of a coupling begins at 0, so that the flow begins as the identity and a
schedule of minutes suffices: 400 steps, each on 1024 drawn patches of every layer, stand for 25 x 8 epochs over all
patches in steps of 256. The rate is dropped once and not annealed along a cosine. Where a frame is cut into tiles, a
place is one in the tile.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.flows import AffineCoupling, Flow, Permutation, changed_channels, negative_log_likelihood
from trainer.models.frozen import (
    OnFeatures,
    Standardise,
    kept_at,
    to_grid,
    train_on_features,
    training_bytes,
    unmade_standardise,
)
from trainer.models.method import FeatureRequest, FitData, FitSettings, TrainingTiles, backbone_features
from trainer.models.seen import Joined
from trainer.training import Schedule

PLACE_CHANNELS = 128
COUPLINGS = 8
CLAMP = 1.9
PATCHES = 1024  # of each layer, drawn in a step
SCHEDULE = Schedule(steps=400, learning_rate=2e-4, drop_at=(0.8,), check_every=50, patience=3)
_LONGEST = 10_000.0  # wavelength of the slowest pair of the encoding is 2 pi times this, in cells


def encode_places(height: int, width: int, device: torch.device) -> Tensor:
    """(h * w, 128): sines and cosines of the column in the first half of the channels, of the row in the second."""
    half = PLACE_CHANNELS // 2
    rates = torch.exp(torch.arange(0, half, 2, device=device) * (-math.log(_LONGEST) / half))

    def encoded(count: int) -> Tensor:
        angles = torch.arange(count, device=device).unsqueeze(1) * rates
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # (count, half)

    columns = encoded(width).unsqueeze(0).expand(height, -1, -1)
    rows = encoded(height).unsqueeze(1).expand(-1, width, -1)
    return torch.cat([columns, rows], dim=2).reshape(height * width, PLACE_CHANNELS)


class LinearSubnet(nn.Module):
    """What a coupling's coefficients come from: two linear layers, the last of which begins at 0."""

    def __init__(self, channels: int) -> None:
        """Lay out the layers for a coupling of D channels with a place beside them."""
        super().__init__()
        changed = changed_channels(channels)
        seen = channels - changed + PLACE_CHANNELS
        last = nn.Linear(2 * seen, 2 * changed)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(seen, 2 * seen), nn.ReLU(), last)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(N, kept + 128)] -> [(N, 2 x changed)]."""
        return [self.layers(part) for part in maps]


def make_flows(channels: tuple[int, ...]) -> nn.ModuleList:
    """A conditional flow for every layer."""
    flows = []
    for count in channels:
        steps: list[Permutation | AffineCoupling] = []
        for _ in range(COUPLINGS):
            steps += [Permutation(count), AffineCoupling(count, LinearSubnet(count), clamp=CLAMP)]
        flows.append(Flow(steps))
    return nn.ModuleList(flows)


def log_likelihood(flow: nn.Module, patches: Tensor, places: Tensor) -> Tensor:
    """(N, D), (N, 128) -> (N,) logarithm of the likelihood, a channel's share of it."""
    latent, log_determinants = flow([patches], [places])
    channels = patches.shape[1]
    found = negative_log_likelihood(latent[0], log_determinants[0])
    return -found / channels - 0.5 * math.log(2 * math.pi)


def log_likelihood_maps(flows: nn.ModuleList, layers: list[Tensor]) -> list[Tensor]:
    """[(B, D_i, h_i, w_i)] -> [(B, h_i, w_i)]."""
    found = []
    for flow, layer in zip(flows, layers, strict=True):
        batch, channels, height, width = layer.shape
        patches = layer.permute(0, 2, 3, 1).reshape(-1, channels)
        places = encode_places(height, width, layer.device).repeat(batch, 1)
        found.append(log_likelihood(flow, patches, places).reshape(batch, height, width))
    return found


class CFlow(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    maxima: Tensor

    def __init__(self, features: Features, standard: Standardise, flows: nn.ModuleList, maxima: Tensor) -> None:
        """Take the trained flows and (layers,) the largest log-likelihood of each over the validation share."""
        super().__init__()
        self.features = features
        self.standard = standard
        self.flows = flows
        self.register_buffer("maxima", maxima)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w), sum over layers of 1 less the share of the largest likelihood."""
        layers = self.standard(self.features(tiles))
        found = log_likelihood_maps(self.flows, layers)
        grid = layers[0].shape[-2:]
        shares = [to_grid(torch.exp(part - self.maxima[index]), grid) for index, part in enumerate(found)]
        return len(shares) - torch.stack(shares).sum(dim=0)


@dataclass(frozen=True, slots=True)
class CFlowMethod:
    """CFLOW as the trainer's registry knows it."""

    name: str = "cflow"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = True
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights", "steps", "learning_rate"})
    validation: float = 0.1
    note: str = ""
    no_frame_graph: str = "what it knows of a place is a place in the tile"

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """All layers at the first one's grid: the flows look at one cell at a time."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Cached features, the flows with Adam's averages, and what a look at the validation share's maps keeps."""
        width = sum(
            (8 * channels + 6 * PLACE_CHANNELS) * features.grid_stride**2 // stride**2
            for channels, stride in zip(features.channels, features.strides, strict=True)
        )
        kept = sum(6 * COUPLINGS * (channels + PLACE_CHANNELS) for channels in features.channels)
        maxima = 4 * len(features.channels)
        return training_bytes(features, data, settings, _unmade(features), width) + 4 * PATCHES * kept + maxima

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> CFlow:  # noqa: ARG002 - as the Protocol has it
        """The features with each channel's mean and scale, the flows, and the layers' maxima."""
        maxima = torch.empty(len(features.channels), device="meta")
        return CFlow(features, unmade_standardise(features), _unmade(features), maxima)

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> CFlow:
        """Raise the likelihood of good patches at their places, then take its maxima over the validation share."""
        if data.validation is None:
            message = "CFLOW needs good images of its own for the constants in its graph: give a validation share"
            raise DataError(message)
        trained = train_on_features(features, data, settings, SCHEDULE, lambda: make_flows(features.channels), _loss)
        return CFlow(features, trained.standard, trained.model, _maxima(trained, data.validation))


def _unmade(features: Features) -> nn.ModuleList:
    """The flows without their weights."""
    with torch.device("meta"):
        return make_flows(features.channels)


def _loss(flows: nn.ModuleList, layers: list[Tensor], kept: Tensor, generator: torch.Generator) -> Tensor:
    """The sum over layers of the mean of what drawn patches' likelihoods fall short of certainty."""
    parts = []
    for flow, layer in zip(flows, layers, strict=True):
        patches, places = _drawn(layer, kept_at(kept, layer), generator)
        parts.append(-functional.logsigmoid(log_likelihood(flow, patches, places)).mean())
    return torch.stack(parts).sum()


def _drawn(layer: Tensor, kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, D, h, w) and what counts of it -> (N, D) patches, with repetition, and (N, 128) their places."""
    height, width = layer.shape[-2:]
    places = encode_places(height, width, layer.device)
    counting = kept.flatten().nonzero().squeeze(1)
    chosen = counting[torch.randint(len(counting), (PATCHES,), generator=generator, device=layer.device)]
    patches = layer.permute(0, 2, 3, 1).reshape(-1, layer.shape[1])[chosen]
    return patches, places[chosen % len(places)]


def _maxima(trained: OnFeatures[nn.ModuleList], tiles: TrainingTiles) -> Tensor:
    """(layers,): the largest log-likelihood of each over cells that count.

    Raises:
        DataError: there is no cell.
    """
    found: list[Tensor] = []
    with torch.no_grad():
        for batch in tiles:
            maps = log_likelihood_maps(trained.model, trained.layers(batch.tiles))
            kept = [kept_at(batch.kept, part.unsqueeze(1)) for part in maps]
            found.append(torch.stack([part[mask].max() for part, mask in zip(maps, kept, strict=True)]))
    if not found:
        message = "CFLOW found no tile to validate on: the valid area leaves nothing"
        raise DataError(message)
    return torch.stack(found).amax(dim=0)
