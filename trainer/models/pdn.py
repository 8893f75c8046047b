"""Owns the patch description network (PDN) of EfficientAD: its layers, and where a teacher's weights come from.

Batzner et al., WACV 2024, arXiv:2303.14535, tables 6 and 7.

The paper's padding inside the network leaves a border that it has learnt to see as different, and without padding the map
covers 56 of 64 cells: a blind border. Here the image is reflected beyond its border once, as the runtime reflects a
frame, and the convolutions add nothing of their own. So there is a cell for every 4 pixels, each of them sees real or
mirrored pixels only, and a halo of 16 pixels makes tiled and whole the same. A cell's centre lies half a pixel beside its
own, as near as a field of 33 pixels can.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from calibration.samples import file_digest
from edge_runtime.errors import ConfigError
from trainer.backbones.features import Features, PixelSpec
from trainer.backbones.weights import WeightsOrigin, read_weights

STRIDE = 4
OUTPUTS = 384
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
LAYERS: dict[str, tuple[tuple[int, int], ...]] = {  # channels and kernel of each convolution; 0 stands for the outputs
    "small": ((128, 4), (256, 4), (256, 3), (0, 4)),
    "medium": ((256, 4), (512, 4), (512, 1), (512, 3), (0, 4), (0, 1)),
}
TOLD = "takt"  # the entry of a file's metadata that holds licence and note, as JSON
_BEFORE, _AFTER = 14, 15  # 33 pixels are seen and 4 are owned: 29 more, on two sides
_POOLED = 2  # convolutions that are followed by pooling
_TABLES = (r"convs\.(\d+)\.(weight|bias)", r"conv(\d+)\.(weight|bias)", r"(\d+)\.(weight|bias)")  # ways of naming


class PDN(nn.Module):
    """Images to a description of every 33x33 pixels, 4 apart."""

    def __init__(self, size: str, outputs: int) -> None:
        """Make its layers.

        Args:
            size: `small` or `medium`.
            outputs: channels of the description.
        """
        super().__init__()
        channels, convolutions = 3, []
        for width, kernel in LAYERS[size]:
            convolutions.append(nn.Conv2d(channels, width or outputs, kernel))
            channels = width or outputs
        self.convs = nn.ModuleList(convolutions)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, outputs, H / 4, W / 4)."""
        values = functional.pad(images, (_BEFORE, _AFTER, _BEFORE, _AFTER), mode="reflect")
        last = len(self.convs) - 1
        for index, convolution in enumerate(self.convs):
            values = convolution(values)
            if index < last:
                values = functional.relu(values)
            if index < _POOLED:
                values = functional.avg_pool2d(values, 2)
        return values


class _Teacher(nn.Module):
    """A PDN as `Features` takes it."""

    mean = MEAN
    deviation = DEVIATION
    strides = (STRIDE,)

    def __init__(self, network: PDN) -> None:
        super().__init__()
        self.pdn = network
        self.channels = (network.convs[-1].out_channels,)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, 384, H / 4, W / 4)]."""
        return [self.pdn(images)]


def load_teacher(path: Path | None, size: str, pixels: PixelSpec) -> Features:
    """A frozen teacher of one size.

    Args:
        path: what `--teacher` gave.
        size: `small` or `medium`.
        pixels: what the tiles hold.

    Raises:
        ConfigError: no file was given, it cannot be read, or it is not a teacher of this size.
    """
    if path is None:
        message = (
            f"EfficientAD needs a teacher: --teacher pdn_{size}.safetensors. To make one of a backbone and a folder of "
            f"any photographs: takt teacher --backbone wide_resnet101_2.tv2_in1k --images DIR --size {size} --out pdn_{size}.safetensors "
            "(hours, best on a GPU); a .pth of the paper's network serves as well"
        )
        raise ConfigError(message)
    if not path.is_file():
        message = f"--teacher {path}: no such file: make one with takt teacher --size {size} --out {path}"
        raise ConfigError(message)
    network = PDN(size, OUTPUTS)
    network.load_state_dict(_renamed(read_weights(path), network.state_dict(), path, size))
    origin = WeightsOrigin(backbone=f"pdn_{size}", source=path.name, digest=file_digest(path), **_told(path))
    teacher = _Teacher(network)
    return Features(teacher, layers=("description",), pixels=pixels, origin=origin)


def _renamed(state: Mapping[str, Any], needed: Mapping[str, Tensor], path: Path, size: str) -> dict[str, Tensor]:
    """The state under this network's names; other reproductions number its convolutions in other ways."""
    for table in _TABLES:
        found = [(match, value) for key, value in state.items() if (match := re.fullmatch(table, key))]
        numbers = sorted({int(match[1]) for match, _ in found})
        named = {f"convs.{numbers.index(int(match[1]))}.{match[2]}": value for match, value in found}
        if {key: value.shape for key, value in named.items()} == {key: value.shape for key, value in needed.items()}:
            if not all(bool(torch.isfinite(value).all()) for value in named.values()):
                message = f"--teacher {path}: holds numbers that are not finite: the file is damaged"
                raise ConfigError(message)
            if not all(bool(value.any()) for key, value in named.items() if key.endswith("weight")):
                message = f"--teacher {path}: a layer's weights are all 0: it describes every picture alike"
                raise ConfigError(message)
            return named
    other = next(name for name in LAYERS if name != size)
    message = (
        f"--teacher {path}: is not a {size} teacher of {OUTPUTS} outputs: with a {other} one take --method "
        f"efficientad_{other[0]}, else make one with takt teacher --size {size}"
    )
    raise ConfigError(message)


def _told(path: Path) -> dict[str, str]:
    """Licence and note, as `takt teacher` writes them into the file."""
    told: Any = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads((file.metadata() or {}).get(TOLD, "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            message = f"--teacher {path}: cannot be read ({error})"
            raise ConfigError(message) from error
    known = told if isinstance(told, dict) else {}
    return {"licence": str(known.get("licence", "not stated by the file")), "note": str(known.get("note", ""))}
