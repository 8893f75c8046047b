"""Owns the first half of every graph: tiles as the sensor gives them -> feature maps of chosen layers."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_runtime.errors import ConfigError
from trainer.backbones.gabor import GaborBank
from trainer.backbones.weights import WeightsOrigin

GABOR = "gabor"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelSpec:
    """What the tiles hold: 1 or 3 channels of `bit_depth` significant bits."""

    channels: int
    bit_depth: int


class Features(nn.Module):
    """Tiles (B, H, W, C) of integers -> list of feature maps (B, D_i, h_i, w_i), shallow layers first.

    Scaling to [0, 1], grey to RGB and the backbone's mean and deviation are inside, so that they are in the graph.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, *, layers: tuple[str, ...], pixels: PixelSpec, origin: WeightsOrigin
    ) -> None:
        """Wrap a network whose `forward` gives the feature maps of `layers`.

        Args:
            network: has the attributes `mean`, `deviation` (three numbers each), `channels` and `strides` (by layer).
            layers: names of the layers that it gives, shallow first.
            pixels: what the tiles hold.
            origin: where the weights come from.
        """
        super().__init__()
        self.network = network
        self.layers = layers
        self.pixels = pixels
        self.origin = origin
        self.register_buffer("mean", torch.tensor(network.mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(network.deviation).view(1, 3, 1, 1))
        self.channels: tuple[int, ...] = tuple(network.channels)  # type: ignore[arg-type]
        self.strides: tuple[int, ...] = tuple(network.strides)  # type: ignore[arg-type]
        self.eval()
        self.requires_grad_(requires_grad=False)

    @property
    def grid_stride(self) -> int:
        """Tile pixels a cell of the shallowest, finest map."""
        return min(self.strides)

    @property
    def input_stride(self) -> int:
        """What core and halo must be multiples of, so that every layer's cells lie on one grid."""
        return max(self.strides)

    def images(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) uint8 or uint16 -> (B, 3, H, W), what the network takes."""
        white = float(2**self.pixels.bit_depth - 1)
        images = tiles.to(torch.float32).permute(0, 3, 1, 2) / white
        if self.pixels.channels == 1:
            images = images.expand(-1, 3, -1, -1)
        return (images - self.mean) / self.deviation

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """(B, H, W, C) uint8 or uint16 -> [(B, D_i, H / stride_i, W / stride_i)]."""
        maps: list[Tensor] = self.network(self.images(tiles))
        return maps


def load_features(
    backbone: str, layers: tuple[str, ...], *, weights: str | None, pixels: PixelSpec, weights_dir: Path | None
) -> Features:
    """A frozen feature extractor with its weights.

    Args:
        backbone: `gabor`, or a timm name such as `resnet18.tv_in1k`.
        layers: names of the layers, shallow first.
        weights: path of a weights file, `random`, or None for the order of `trainer.backbones.weights`.
        pixels: what the tiles hold.
        weights_dir: folder of weights files, or None.

    Raises:
        ConfigError: no such backbone or layer, or no weights.
    """
    if backbone == GABOR:
        if weights is not None:
            message = "--weights: the backbone gabor is fixed and takes no weights: leave the flag out"
            raise ConfigError(message)
        bank = GaborBank(layers)
        return Features(bank, layers=layers, pixels=pixels, origin=bank.origin)
    from trainer.backbones.timm_network import load_timm  # noqa: PLC0415 - timm takes seconds, which no fault waits for

    network = load_timm(backbone, layers, weights=weights, weights_dir=weights_dir)
    return Features(network, layers=layers, pixels=pixels, origin=network.origin)
