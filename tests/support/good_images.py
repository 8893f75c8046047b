"""Images and features that need no weights, for tests of methods."""

import torch
from torch import Tensor

from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec

RGB = PixelSpec(channels=3, bit_depth=8)


def gabor(*layers: str) -> Features:
    """The filter bank."""
    return load_features("gabor", layers, weights=None, pixels=RGB, weights_dir=None)


def images(count: int, seed: int, side: int = 32) -> Tensor:
    """(N, side, side, 3) uint8: noise, its level of each image's own, so that some images are alike and others are not."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, side, side, 3, generator=random)
    level = torch.rand(count, 1, 1, 3, generator=random)
    return ((0.3 + 0.7 * level) * noise * 255).to(torch.uint8)
