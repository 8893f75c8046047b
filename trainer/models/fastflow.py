"""FastFlow: likelihood of each patch under a convolutional normalising flow on every layer's feature map.

Yu et al., 2021, arXiv:2111.07677.

Departures. Features are standardised by each channel's mean and deviation over the fit share and not by a LayerNorm over
C x H x W, which locks the input's size and makes every cell's value depend on the whole image. The last convolution of a
coupling begins at 0, so that the flow begins as the identity on standardised features and a schedule of minutes suffices.
Kernels are 3x3 in every step for narrow backbones, and 3x3 and 1x1 in turn for wide ones, where 3x3 alone would take 74 M
parameters for Wide ResNet-50. 120 steps of 8 tiles and a stop on the validation share stand for 500 epochs of 32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import ImageScoreRule
from trainer.backbones import Features
from trainer.models.flows import AffineCoupling, Flow, Permutation, changed_channels, negative_log_likelihood
from trainer.models.frozen import (
    Standardise,
    kept_at,
    mean_over,
    to_grid,
    train_on_features,
    training_bytes,
    unmade_standardise,
)
from trainer.models.method import FeatureRequest, FitData, FitSettings, backbone_features
from trainer.models.seen import joined
from trainer.training import Schedule

STEPS_OF_FLOW = 8
CLAMP = 2.0
_WIDE = 1000  # channels of all layers together from which 3x3 and 1x1 kernels take turns
SCHEDULE = Schedule(steps=120, learning_rate=1e-3, weight_decay=1e-5, check_every=20, patience=3)


class ConvolutionalSubnet(nn.Module):
    """What a coupling's coefficients come from: two convolutions, the last of which begins at 0."""

    def __init__(self, channels: int, kernel: int) -> None:
        """Lay out the convolutions for a coupling of D channels."""
        super().__init__()
        changed = changed_channels(channels)
        kept = channels - changed
        last = nn.Conv2d(kept, 2 * changed, kernel, padding="same")
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # there is one
        self.layers = nn.Sequential(nn.Conv2d(kept, kept, kernel, padding="same"), nn.ReLU(), last)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, kept, h, w)] -> [(B, 2 x changed, h, w)]."""
        return [self.layers(part) for part in maps]


def make_flows(channels: tuple[int, ...]) -> nn.ModuleList:
    """A flow for every layer."""
    wide = sum(channels) > _WIDE
    flows = []
    for count in channels:
        steps: list[Permutation | AffineCoupling] = []
        for step in range(STEPS_OF_FLOW):
            kernel = 1 if wide and step % 2 else 3
            steps += [
                Permutation(count),
                AffineCoupling(count, ConvolutionalSubnet(count, kernel), clamp=CLAMP),
            ]
        flows.append(Flow(steps))
    return nn.ModuleList(flows)


class FastFlow(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    def __init__(self, features: Features, standard: Standardise, flows: nn.ModuleList) -> None:
        """Take the trained flows, one by layer."""
        super().__init__()
        self.features = features
        self.standard = standard
        self.flows = flows

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w), minus the likelihood, from -1 (as good as can be) to 0."""
        layers = self.standard(self.features(tiles))
        total: Tensor | None = None
        for flow, layer in zip(self.flows, layers, strict=True):
            latent, _ = flow([layer])
            likelihood = to_grid(torch.exp(-0.5 * latent[0].square().mean(dim=1)), layers[0].shape[-2:])
            total = likelihood if total is None else total + likelihood
        if total is None:
            message = "FastFlow has no layer"
            raise ValueError(message)
        return -total / len(layers)


class DrawnFlows(nn.Module):
    """What of the graph looks beyond a cell: the latent of flows that have not learnt anything."""

    def __init__(self, features: Features, tiles: Tensor) -> None:
        """Draw the flows from a fixed seed; the first of the tiles gives mean and deviation of the features."""
        super().__init__()
        self.features = features
        with torch.no_grad():
            maps = features(tiles[:1])
        means = [layer.mean(dim=(0, 2, 3)) for layer in maps]
        self.standard = Standardise(means, [layer.std(dim=(0, 2, 3)) for layer in maps])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.flows = make_flows(features.channels)
            for subnet in self.flows.modules():
                if isinstance(subnet, ConvolutionalSubnet):
                    subnet.layers[-1].reset_parameters()  # type: ignore[operator]  # a convolution

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, sum D_i, h, w)."""
        layers = self.standard(self.features(tiles))
        return joined([flow([layer])[0][0] for flow, layer in zip(self.flows, layers, strict=True)])


@dataclass(frozen=True, slots=True)
class FastFlowMethod:
    """FastFlow as the trainer's registry knows it."""

    name: str = "fastflow"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights", "steps", "learning_rate"})
    validation: float = 0.1
    note: str = ""
    no_frame_graph: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:
        """Flows whose last convolutions are drawn and not 0, where they begin."""
        return DrawnFlows(features, tiles).to(features.mean.device).eval()

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Cached features, the flows with Adam's averages, and what the backward pass keeps."""
        width = sum(
            6 * STEPS_OF_FLOW * channels * features.grid_stride**2 // stride**2
            for channels, stride in zip(features.channels, features.strides, strict=True)
        )
        return training_bytes(features, data, settings, _unmade(features), width)

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> FastFlow:  # noqa: ARG002 - as the Protocol has it
        """The features with each channel's mean and scale, and the flows."""
        return FastFlow(features, unmade_standardise(features), _unmade(features))

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> FastFlow:
        """Raise the likelihood of good patches."""
        trained = train_on_features(features, data, settings, SCHEDULE, lambda: make_flows(features.channels), _loss)
        return FastFlow(features, trained.standard, trained.model)


def _unmade(features: Features) -> nn.ModuleList:
    """The flows without their weights."""
    with torch.device("meta"):
        return make_flows(features.channels)


def _loss(flows: nn.ModuleList, layers: list[Tensor], kept: Tensor, _: torch.Generator) -> Tensor:
    """The sum over layers of the mean negative log-likelihood of a cell."""
    parts = []
    for flow, layer in zip(flows, layers, strict=True):
        latent, log_determinant = flow([layer])
        found = negative_log_likelihood(latent[0], log_determinant[0])
        parts.append(mean_over(found, kept_at(kept, layer)))
    return torch.stack(parts).sum()
