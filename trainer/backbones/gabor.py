"""Owns `gabor`: a fixed filter bank as a backbone, for textures and for machines without weights.

Oriented band-pass magnitudes (quadrature pairs of Gabor filters; Daugman, JOSA A 2 (1985) 1160-1169) over three
colour-opponent channels at several octaves, and the local colour itself. Magnitudes are logarithmic: a change of the
lamp then shifts all of them alike, and a faint scratch on a faint texture counts as much as a strong one on a strong.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.errors import ConfigError
from trainer.backbones.weights import WeightsOrigin

_LAYERS = {"layer1": 4, "layer2": 8, "layer3": 16}  # strides
_ORIENTATIONS = 6
_WAVELENGTH = 4.0  # pixels of an octave's own grid
_SIGMA = 1.8
_SIDE = 11
_OPPONENT = (  # rows: luminance, red-green, yellow-blue; orthonormal
    (0.57735027, 0.57735027, 0.57735027),
    (0.70710678, -0.70710678, 0.0),
    (0.40824829, 0.40824829, -0.81649658),
)
_GAIN = 10.0  # brings features of [0, 1] images to where a regularisation of 0.01 is small
_FLOOR = 0.02  # magnitude of a [0, 1] image's noise: below, the logarithm flattens out
_EPSILON = 1e-6  # keeps the root's slope finite


class GaborBank(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> layer1 (stride 4), layer2 (8), layer3 (16), those of them asked for."""

    opponent: Tensor
    even: Tensor
    odd: Tensor
    binomial: Tensor

    mean = (0.0, 0.0, 0.0)
    deviation = (1.0, 1.0, 1.0)
    origin = WeightsOrigin(backbone="gabor", source="built in", digest=None, licence="Takt's own: formulas, no weights")

    def __init__(self, layers: tuple[str, ...]) -> None:
        """Compute the filters; nothing is learnt.

        Raises:
            ConfigError: a layer is not one of layer1, layer2, layer3, or they are not shallow first.
        """
        super().__init__()
        if not layers or [layer for layer in _LAYERS if layer in layers] != list(layers):
            message = f"--layers {','.join(layers)}: gabor has {', '.join(_LAYERS)}, shallow first"
            raise ConfigError(message)
        self.strides = tuple(_LAYERS[layer] for layer in layers)
        even, odd = _filters()
        self.channels = tuple(3 * (2 * _ORIENTATIONS + 1) for _ in layers)  # two octaves and the colour
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("opponent", torch.tensor(_OPPONENT).view(3, 3, 1, 1))
        self.register_buffer("even", even.repeat(3, 1, 1, 1))
        self.register_buffer("odd", odd.repeat(3, 1, 1, 1))
        self.register_buffer("binomial", (taps[:, None] * taps[None, :]).repeat(3, 1, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, 39, H / stride, W / stride)] for each layer."""
        octaves = [functional.conv2d(images, self.opponent)]
        while 2 ** len(octaves) <= max(self.strides) // 2:
            octaves.append(self._halve(octaves[-1]))
        return [self._layer(octaves, stride) for stride in self.strides]

    def _layer(self, octaves: list[Tensor], stride: int) -> Tensor:
        """Octaves of a half and a quarter of the stride, averaged to it, and the colour at it."""
        level = int(math.log2(stride))
        parts = [
            functional.avg_pool2d(self._magnitudes(octaves[octave]), stride // 2**octave)
            for octave in (level - 2, level - 1)
        ]
        colour = functional.avg_pool2d(octaves[level - 1], 2)
        return torch.cat([*parts, colour], dim=1) * _GAIN

    def _magnitudes(self, colours: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3 x orientations, H, W): logarithm of the amplitude of each oriented band."""
        padded = functional.pad(colours, (_SIDE // 2,) * 4, mode="replicate")
        even = functional.conv2d(padded, self.even, groups=3)
        odd = functional.conv2d(padded, self.odd, groups=3)
        return torch.log(torch.sqrt(even * even + odd * odd + _EPSILON) + _FLOOR)

    def _halve(self, colours: Tensor) -> Tensor:
        padded = functional.pad(colours, (2, 2, 2, 2), mode="replicate")
        return functional.avg_pool2d(functional.conv2d(padded, self.binomial, groups=3), 2)


def _filters() -> tuple[Tensor, Tensor]:
    """Even and odd filters (orientations, 1, side, side), free of a constant part, unit L1 norm of the envelope."""
    half = _SIDE // 2
    y, x = torch.meshgrid(torch.arange(-half, half + 1.0), torch.arange(-half, half + 1.0), indexing="ij")
    envelope = torch.exp(-(x * x + y * y) / (2 * _SIGMA**2))
    envelope = envelope / envelope.sum()
    even, odd = [], []
    for index in range(_ORIENTATIONS):
        angle = math.pi * index / _ORIENTATIONS
        phase = 2 * math.pi / _WAVELENGTH * (x * math.cos(angle) + y * math.sin(angle))
        wave = envelope * torch.cos(phase)
        even.append(wave - envelope * wave.sum())  # a plain surface must give 0
        odd.append(envelope * torch.sin(phase))
    return torch.stack(even).unsqueeze(1), torch.stack(odd).unsqueeze(1)
