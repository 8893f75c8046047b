"""Owns the first half of a graph that has no backbone: the tiles' own pixels, scaled to [0, 1] and nothing else."""

from torch import Tensor, nn

from trainer.backbones.features import Features, PixelSpec
from trainer.backbones.weights import WeightsOrigin


class PixelFeatures(Features):
    """Tiles (B, H, W, C) of integers -> [(B, 3, H, W) in [0, 1]]; a cell is a pixel."""

    def __init__(self, *, pixels: PixelSpec, input_stride: int) -> None:
        """Say what the tiles hold.

        Args:
            pixels: what the tiles hold.
            input_stride: what core and halo must be multiples of, for the network that takes the pixels.
        """
        origin = WeightsOrigin(
            backbone="none", source="built in", digest=None, licence="no weights but those fitted to the images"
        )
        super().__init__(_Unchanged(), layers=(), pixels=pixels, origin=origin)
        self._input_stride = input_stride

    @property
    def input_stride(self) -> int:
        """What core and halo must be multiples of."""
        return self._input_stride


class _Unchanged(nn.Module):
    """Gives what it takes."""

    mean = (0.0, 0.0, 0.0)
    deviation = (1.0, 1.0, 1.0)
    channels = (3,)
    strides = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the same, in a list."""
        return [images]
