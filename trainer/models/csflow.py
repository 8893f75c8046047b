"""CS-Flow: likelihood of an image's features at three scales under one flow in which the scales see each other.

Rudolph et al., WACV 2022, arXiv:2110.02855.

Departures. The paper's features are those of EfficientNet-B5 at 768, 384 and 192 pixels. Here they are those of the backbone
asked for: EfficientNet-B5 where `TAKT_WEIGHTS` holds its weights (its last stage as timm cuts it, 512 channels, where the paper
takes the 304 before it), else layer 3 of the common default. The three sizes are the tile's own, a half and a quarter,
made in the graph by averaging 2x2 pixels. Features are standardised by each channel's mean and deviation over the fit
share, so that the flow, which begins as the identity, begins with a sensible map and a schedule of minutes suffices: 24
steps of 8 tiles and a stop on the validation share stand for 240 epochs of 16. A gain belongs to a scale of a coupling
and not to the coupling.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import ConfigError
from trainer.backbones import Features
from trainer.models.flows import AffineCoupling, Flow, Permutation, changed_channels, negative_log_likelihood
from trainer.models.frozen import Standardise, kept_at, to_grid, train_on_features, training_bytes, unmade_standardise
from trainer.models.method import FeatureRequest, FitData, FitSettings, backbone_features
from trainer.models.seen import Joined
from trainer.training import Schedule

PAPER_BACKBONES = ("tf_efficientnet_b5.in1k", "tf_efficientnet_b5.aa_in1k", "tf_efficientnet_b5.ns_jft_in1k")
PAPER_LAYER = ("blocks_6",)
SCALES = 3
KERNELS = (3, 3, 3, 5)  # by block
HIDDEN = 1024
CLAMP = 3.0
SCHEDULE = Schedule(steps=24, learning_rate=2e-4, weight_decay=1e-5, clip_norm=1.0, check_every=6, patience=2)
_SLOPE = 0.1  # of the leaky rectifier below 0


class Pyramid(nn.Module):
    """A network applied to the image at its own, half and quarter size."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network of one layer."""
        super().__init__()
        self.network = network
        self.mean = network.mean
        self.deviation = network.deviation
        channels, strides = tuple(network.channels), tuple(network.strides)  # type: ignore[arg-type]
        self.channels = channels * SCALES
        self.strides = tuple(strides[0] * 2**scale for scale in range(SCALES))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, D, h, w), (B, D, h / 2, w / 2), (B, D, h / 4, w / 4)]."""
        maps = []
        for scale in range(SCALES):
            maps.append(self.network(images)[0])
            if scale + 1 < SCALES:
                images = functional.avg_pool2d(images, 2)
        return maps


class CrossScaleSubnet(nn.Module):
    """What a coupling's coefficients come from: each scale's own two convolutions, and its neighbours' second ones."""

    def __init__(self, channels: int, kernel: int) -> None:
        """Lay out the convolutions for a coupling that changes one half of D channels by the other."""
        super().__init__()
        changed = changed_channels(channels)
        kept, given, margin = channels - changed, 2 * changed, kernel // 2

        def second(stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(HIDDEN, given, kernel, stride=stride, padding=margin)

        self.first = nn.ModuleList(nn.Conv2d(kept, HIDDEN, kernel, padding=margin) for _ in range(SCALES))
        self.own = nn.ModuleList(second() for _ in range(SCALES))
        self.coarser = nn.ModuleList(second() for _ in range(SCALES - 1))
        self.finer = nn.ModuleList(second(stride=2) for _ in range(SCALES - 1))
        self.gain = nn.Parameter(torch.zeros(SCALES))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, kept, h_i, w_i)], finest first -> [(B, 2 x changed, h_i, w_i)]."""
        hidden = [functional.leaky_relu(first(part), _SLOPE) for first, part in zip(self.first, maps, strict=True)]
        found = [own(part) for own, part in zip(self.own, hidden, strict=True)]
        for scale in range(SCALES - 1):
            raised = functional.interpolate(
                hidden[scale + 1], size=hidden[scale].shape[-2:], mode="bilinear", align_corners=False
            )
            found[scale] = found[scale] + self.coarser[scale](raised)
            found[scale + 1] = found[scale + 1] + self.finer[scale](hidden[scale])
        return [part * self.gain[scale] for scale, part in enumerate(found)]


def make_flow(channels: int) -> Flow:
    """Four blocks, each a drawn order of channels and both halves changed in turn."""
    steps: list[Permutation | AffineCoupling] = []
    for kernel in KERNELS:
        steps.append(Permutation(channels, SCALES))
        # the half that stays is the larger one in both couplings where the channels are odd in number
        steps += [
            AffineCoupling(channels, CrossScaleSubnet(channels, kernel), clamp=CLAMP, changes_first=first)
            for first in (True, False)
        ]
    return Flow(steps)


class CSFlow(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    def __init__(self, features: Features, standard: Standardise, flow: Flow) -> None:
        """Take the trained flow."""
        super().__init__()
        self.features = features
        self.standard = standard
        self.flow = flow

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) integers -> (B, h, w) mean square of the latent over channels and scales, (B,) over all of it."""
        latent, _ = self.flow(self.standard(self.features(tiles)))
        squares = [part.square().mean(dim=1) for part in latent]  # (B, h_i, w_i)
        score = torch.cat([part.flatten(1) for part in squares], dim=1).mean(dim=1)
        grid = squares[0].shape[-2:]
        return torch.stack([to_grid(part, grid) for part in squares]).mean(dim=0), score


@dataclass(frozen=True, slots=True)
class CSFlowMethod:
    """CS-Flow as the trainer's registry knows it."""

    name: str = "csflow"
    layers: tuple[str, ...] = ("layer3",)
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.GRAPH
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights", "steps", "learning_rate"})
    validation: float = 0.1
    note: str = ""
    no_frame_graph: str = "its score is of all that its graph sees"

    def features(self, wanted: FeatureRequest) -> Features:
        """One layer at three scales: of the paper's backbone where its weights are at hand and no other was asked for.

        Raises:
            ConfigError: it cannot be had, or more than one layer was asked for.
        """
        paper = None if wanted.named or wanted.weights is not None else _paper_backbone(wanted.weights_dir)
        asked = wanted if paper is None else replace(wanted, backbone=paper)
        single = backbone_features(asked, PAPER_LAYER if "efficientnet" in asked.backbone else self.layers)
        if len(single.layers) != 1:
            message = (
                f"--layers {','.join(single.layers)}: CS-Flow takes one layer, of the image at three sizes: name one"
            )
            raise ConfigError(message)
        return Features(Pyramid(single.network), layers=single.layers, pixels=single.pixels, origin=single.origin)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """All layers at the first one's grid."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Cached features, the flow with Adam's averages, and what the backward pass keeps."""
        scales = sum(4**-scale for scale in range(SCALES))
        width = round(2 * len(KERNELS) * (3 * HIDDEN + 6 * features.channels[0]) * scales)
        return training_bytes(features, data, settings, _unmade(features), width)

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> CSFlow:  # noqa: ARG002 - as the Protocol has it
        """The features with each channel's mean and scale at every size, and the flow."""
        return CSFlow(features, unmade_standardise(features), _unmade(features))

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> CSFlow:
        """Raise the likelihood of good tiles."""
        channels = features.channels[0]
        trained = train_on_features(features, data, settings, SCHEDULE, lambda: make_flow(channels), _loss)
        return CSFlow(features, trained.standard, trained.model)


def _unmade(features: Features) -> Flow:
    """The flow without its weights."""
    with torch.device("meta"):
        return make_flow(features.channels[0])


def _loss(flow: Flow, layers: list[Tensor], kept: Tensor, _: torch.Generator) -> Tensor:
    """The mean negative log-likelihood of a channel of a cell, over all scales."""
    latent, log_determinants = flow(layers)
    masks = [kept_at(kept, layer) for layer in layers]
    found = [
        (negative_log_likelihood(part, determinant) * mask).sum()
        for part, determinant, mask in zip(latent, log_determinants, masks, strict=True)
    ]
    cells = torch.stack([mask.sum() for mask in masks]).sum()
    return torch.stack(found).sum() / (cells * layers[0].shape[1])


def _paper_backbone(weights_dir: Path | None) -> str | None:
    """The first of the paper's networks of which the folder holds weights."""
    names = PAPER_BACKBONES if weights_dir is not None else ()
    return next((name for name in names if (weights_dir / f"{name}.safetensors").is_file()), None)  # type: ignore[operator]
