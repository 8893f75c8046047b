"""Owns feature extraction with timm: any network that timm can cut into stages, by the names of its layers."""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from calibration.samples import file_digest
from edge_runtime.errors import ConfigError
from trainer.backbones.weights import RANDOM, WeightsOrigin, find_weights, no_weights, read_weights

_HUB_TIMEOUT_S = 3.0


class TimmNetwork(nn.Module):
    """Normalised images (B, 3, H, W) -> feature maps of the chosen layers."""

    def __init__(
        self, stages: nn.Module, *, layers: tuple[str, ...], origin: WeightsOrigin, config: dict[str, Any]
    ) -> None:
        """Wrap timm's staged network."""
        super().__init__()
        self.stages = stages
        self.layers = layers
        self.origin = origin
        self.mean = tuple(config["mean"])
        self.deviation = tuple(config["std"])
        info: Any = stages.feature_info
        self.channels = tuple(info.channels())
        self.strides = tuple(info.reduction())

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [(B, D_i, h_i, w_i)]."""
        return list(self.stages(images))


def load_timm(name: str, layers: tuple[str, ...], *, weights: str | None, weights_dir: Path | None) -> TimmNetwork:
    """Build a timm network cut after the deepest layer asked for, and load its weights.

    Raises:
        ConfigError: timm has no such network or layer, or there are no weights for it.
    """
    indices = _layer_indices(name, layers)
    known: Any = timm.get_pretrained_cfg(name)
    pretrained: dict[str, Any] = {} if known is None else known.to_dict()
    config: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "license": None} | pretrained
    licence = str(config["license"] or "not stated by timm")
    if weights == RANDOM:
        stages = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
        origin = WeightsOrigin(backbone=name, source=RANDOM, digest=None, licence="none: random numbers")
        return TimmNetwork(stages, layers=layers, origin=origin, config=config)
    path = find_weights(name, weights, weights_dir)
    if path is None:
        stages = _from_hub(name, indices)
        origin = WeightsOrigin(backbone=name, source="hub", digest=None, licence=licence)
        return TimmNetwork(stages, layers=layers, origin=origin, config=config)
    stages = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
    _load_strictly(stages, read_weights(path), path)
    origin = WeightsOrigin(backbone=name, source=path.name, digest=file_digest(path), licence=licence)
    return TimmNetwork(stages, layers=layers, origin=origin, config=config)


def _layer_indices(name: str, layers: tuple[str, ...]) -> tuple[int, ...]:
    try:
        with torch.device("meta"):
            whole = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, ValueError, AttributeError) as error:
        message = f"--backbone {name}: timm cannot cut it into stages ({error}): see timm.list_models(), or take gabor"
        raise ConfigError(message) from error
    info: Any = whole.feature_info
    names = [module.replace(".", "_") for module in info.module_name()]
    missing = [layer for layer in layers if layer not in names]
    if missing or not layers:
        message = f"--layers {','.join(layers)}: {name} has {', '.join(names)}"
        raise ConfigError(message)
    indices = tuple(names.index(layer) for layer in layers)
    if list(indices) != sorted(set(indices)):
        message = f"--layers {','.join(layers)}: give each layer once, shallow first ({', '.join(names)})"
        raise ConfigError(message)
    return indices


def _load_strictly(stages: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load what the used layers need; a file may hold more (a classifier, deeper layers), never less."""
    needed = stages.state_dict()
    missing = [key for key in needed if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in needed if key in state and state[key].shape != needed[key].shape]
    if missing or wrong:
        fault = f"lacks {missing[0]} and {len(missing) - 1} more" if missing else f"has {wrong[0]} in another shape"
        message = f"{path}: {fault}: these are not weights of this backbone's layers"
        raise ConfigError(message)
    stages.load_state_dict({key: state.get(key, value) for key, value in needed.items()})


def _from_hub(name: str, indices: tuple[int, ...]) -> nn.Module:
    """From the hub, or from its cache on this machine where the hub cannot be reached.

    Raises:
        ConfigError: neither has the weights.
    """
    if not _hub_answers():
        constants.HF_HUB_OFFLINE = True  # the client would try for a minute; its cache is looked into all the same
    try:
        stages: nn.Module = timm.create_model(name, features_only=True, pretrained=True, out_indices=indices)
    except Exception as error:
        raise no_weights(name, f"{type(error).__name__}; nothing in its cache either") from error
    return stages


def _hub_answers() -> bool:
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (443 if hub.scheme == "https" else 80)
    try:
        socket.create_connection((hub.hostname or "", port), timeout=_HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True
