"""Owns feature extraction with timm, by the names of layers: a network's stages, or any of its modules.

Stages are what timm itself cuts a network into, where the stride changes. Modules are named by their paths, such as
`blocks.3`; their outputs are found by tracing the network, which its forward pass must allow.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from calibration.samples import file_digest
from edge_runtime.errors import ConfigError
from trainer.backbones.weights import RANDOM, WeightsOrigin, find_weights, no_weights, read_weights

_HUB_TIMEOUT_S = 3.0
_PROBE = 256  # pixels a side of an image whose maps tell channels and strides
_MAP_DIMENSIONS = 4

Cut = Callable[..., nn.Module]  # keywords of timm's `create_model` -> a network that gives the maps of the layers


class TimmNetwork(nn.Module):
    """Normalised images (B, 3, H, W) -> feature maps of the chosen layers."""

    def __init__(
        self, cut: nn.Module, *, layers: tuple[str, ...], origin: WeightsOrigin, config: dict[str, Any]
    ) -> None:
        """Wrap a network that gives the maps of its layers, as a list or by their names.

        Raises:
            ConfigError: a layer gives no feature map.
        """
        super().__init__()
        self.cut = cut.eval()
        self.layers = layers
        self.origin = origin
        self.mean = tuple(config["mean"])
        self.deviation = tuple(config["std"])
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, _PROBE, _PROBE))
        for name, layer in zip(layers, maps, strict=True):
            if layer.dim() != _MAP_DIMENSIONS or _PROBE % layer.shape[-1]:
                message = f"--layers {name}: gives {tuple(layer.shape)} of a {_PROBE} x {_PROBE} image, which is no feature map"
                raise ConfigError(message)
        self.channels = tuple(layer.shape[1] for layer in maps)
        self.strides = tuple(_PROBE // layer.shape[-1] for layer in maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, D_i, h_i, w_i)]."""
        maps: dict[str, Tensor] | list[Tensor] = self.cut(images)
        return list(maps.values() if isinstance(maps, dict) else maps)


def load_timm(name: str, layers: tuple[str, ...], *, weights: str | None, weights_dir: Path | None) -> TimmNetwork:
    """Build a timm network cut after the deepest layer asked for, and load its weights.

    Raises:
        ConfigError: timm has no such network or layer, or there are no weights for it.
    """
    cut = _cut(name, layers)
    known: Any = timm.get_pretrained_cfg(name)
    pretrained: dict[str, Any] = {} if known is None else known.to_dict()
    config: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "license": None} | pretrained
    licence = str(config["license"] or "not stated by timm")
    if weights == RANDOM:
        network = cut(pretrained=False)
        origin = WeightsOrigin(backbone=name, source=RANDOM, digest=None, licence="none: random numbers")
        return TimmNetwork(network, layers=layers, origin=origin, config=config)
    path = find_weights(name, weights, weights_dir)
    if path is None:
        network = _from_hub(name, cut)
        origin = WeightsOrigin(backbone=name, source="hub", digest=None, licence=licence)
        return TimmNetwork(network, layers=layers, origin=origin, config=config)
    network = cut(pretrained=False)
    _load_strictly(network, read_weights(path), path)
    origin = WeightsOrigin(backbone=name, source=path.name, digest=file_digest(path), licence=licence)
    return TimmNetwork(network, layers=layers, origin=origin, config=config)


def _cut(name: str, layers: tuple[str, ...]) -> Cut:
    """How a network is made that gives the maps of the layers.

    Raises:
        ConfigError: timm has no such network, or it has no such layers.
    """
    if not layers:
        message = f"--layers: give one at least for {name}"
        raise ConfigError(message)
    stages = _stages(name)
    if stages is not None and all(layer in stages for layer in layers):
        indices = tuple(stages.index(layer) for layer in layers)
        if list(indices) != sorted(set(indices)):
            message = f"--layers {','.join(layers)}: give each layer once, shallow first ({', '.join(stages)})"
            raise ConfigError(message)
        return lambda **settings: timm.create_model(name, features_only=True, out_indices=indices, **settings)
    with torch.device("meta"):
        modules = dict(timm.create_model(name, pretrained=False).named_modules())
    missing = [layer for layer in layers if layer not in modules]
    if missing or len(set(layers)) != len(layers):
        fault = f"has no {missing[0]}" if missing else "gives each layer once"
        known = f"its stages are {', '.join(stages)}" if stages else "it has no stages"
        message = f"--layers {','.join(layers)}: {name} {fault}: {known}; or name any of its modules, such as {_example(modules)}"
        raise ConfigError(message)
    return lambda **settings: _traced(timm.create_model(name, **settings), name, layers)


def _stages(name: str) -> list[str] | None:
    """Names of the stages that timm cuts a network into; None where it cuts none.

    Raises:
        ConfigError: timm has no such network.
    """
    if ":" not in name and not timm.is_model(name.split(".", maxsplit=1)[0]):
        message = f"--backbone {name}: timm has no such network: see timm.list_models(), or take gabor"
        raise ConfigError(message)
    try:
        with torch.device("meta"):
            whole: Any = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, ValueError, AttributeError):
        return None
    return [module.replace(".", "_") for module in whole.feature_info.module_name()]


def _traced(network: nn.Module, name: str, layers: tuple[str, ...]) -> nn.Module:
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - torch types attributes as tensors: what comes after a layer must not write into its map
    try:
        traced: nn.Module = create_feature_extractor(network.eval(), return_nodes=list(layers))
    except (RuntimeError, ValueError, TypeError) as error:
        message = f"--layers {','.join(layers)}: {name} cannot be traced to them ({error}): take its stages"
        raise ConfigError(message) from error
    return traced


def _example(modules: dict[str, nn.Module]) -> str:
    return next((path for path in modules if "." in path), "none")


def _load_strictly(network: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load what the used layers need; a file may hold more (a classifier, deeper layers), never less."""
    needed = network.state_dict()
    missing = [key for key in needed if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in needed if key in state and state[key].shape != needed[key].shape]
    if missing or wrong:
        fault = f"lacks {missing[0]} and {len(missing) - 1} more" if missing else f"has {wrong[0]} in another shape"
        message = f"{path}: {fault}: these are not weights of this backbone's layers"
        raise ConfigError(message)
    network.load_state_dict({key: state.get(key, value) for key, value in needed.items()})


def _from_hub(name: str, cut: Cut) -> nn.Module:
    """From the hub, or from its cache on this machine where the hub cannot be reached.

    Raises:
        ConfigError: neither has the weights.
    """
    if not _hub_answers():
        constants.HF_HUB_OFFLINE = True  # the client would try for a minute; its cache is looked into all the same
    try:
        network = cut(pretrained=True)
    except Exception as error:
        raise no_weights(name, f"{type(error).__name__}; nothing in its cache either") from error
    return network


def _hub_answers() -> bool:
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (443 if hub.scheme == "https" else 80)
    try:
        socket.create_connection((hub.hostname or "", port), timeout=_HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True
