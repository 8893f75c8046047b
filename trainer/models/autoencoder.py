"""Owns the autoencoder of EfficientAD: it predicts the teacher's description of a whole image through 64 numbers.

Batzner et al., WACV 2024, arXiv:2303.14535, table 8. The last kernel of the encoder spans all that is left of the image,
8x8 at the paper's 256x256 pixels, and the decoder's sizes keep the paper's shares of the image's sides.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ENCODER = (32, 32, 64, 64, 64)
LATENT = 64
DROPOUT = 0.2
SMALLEST = 32  # pixels: five halvings leave one
_PAPER_SIDE = 256
_PAPER_SIZES = (3, 8, 15, 32, 63, 127)  # of the decoder's maps before each of its convolutions


class AutoEncoder(nn.Module):
    """Images of one size to descriptions; unlike the student, it sees how all parts of an image belong together."""

    def __init__(self, height: int, width: int, *, outputs: int, stride: int) -> None:
        """Make its layers.

        Args:
            height: of the images, 32 at least.
            width: of the images, 32 at least.
            outputs: channels of the description.
            stride: pixels a cell of the description.
        """
        super().__init__()
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise((3, *ENCODER)))
        left = (height >> len(ENCODER), width >> len(ENCODER))
        self.bottleneck = nn.Conv2d(ENCODER[-1], LATENT, left)
        self.decoder = nn.ModuleList(nn.Conv2d(LATENT, LATENT, 4, padding=2) for _ in _PAPER_SIZES)
        self.last = nn.Sequential(
            nn.Conv2d(LATENT, LATENT, 3, padding=1), nn.ReLU(), nn.Conv2d(LATENT, outputs, 3, padding=1)
        )
        self.sizes = [
            (max(1, round(size * height / _PAPER_SIDE)), max(1, round(size * width / _PAPER_SIDE)))
            for size in _PAPER_SIZES
        ]
        self.grid = (height // stride, width // stride)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, outputs, H / stride, W / stride); drops a fifth where a generator is given."""
        values = images
        for convolution in self.encoder:
            values = functional.relu(convolution(values))
        values = self.bottleneck(values)
        for convolution, size in zip(self.decoder, self.sizes, strict=True):
            values = functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
            values = functional.relu(convolution(values))
            if generator is not None:
                values = _dropped(values, generator)
        values = functional.interpolate(values, size=self.grid, mode="bilinear", align_corners=False)
        described: Tensor = self.last(values)
        return described


def _dropped(values: Tensor, generator: torch.Generator) -> Tensor:
    """Dropout whose chance is the generator's, which a checkpoint holds; torch's own would not be resumed."""
    stays = torch.rand(values.shape, generator=generator, device=values.device) >= DROPOUT
    return values * stays.to(values.dtype) / (1 - DROPOUT)
