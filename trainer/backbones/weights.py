"""Owns where weights come from: an explicit file, the folder `TAKT_WEIGHTS`, the hub; never silently random."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edge_runtime.errors import ConfigError

RANDOM = "random"
ENVIRONMENT = "TAKT_WEIGHTS"


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOrigin:
    """What the bundle's LICENCES.json says of a backbone."""

    backbone: str
    source: str  # file name, "hub", "random" or "built in"
    digest: str | None  # SHA-256 of the file
    licence: str
    note: str = ""

    @property
    def random(self) -> bool:
        """Whether a model with these weights must not be sealed."""
        return self.source == RANDOM


def weights_folder() -> Path | None:
    """The folder that the environment names, or None."""
    folder = os.environ.get(ENVIRONMENT)
    return Path(folder) if folder else None


def find_weights(backbone: str, weights: str | None, weights_dir: Path | None) -> Path | None:
    """The weights file to use; None means the hub.

    Raises:
        ConfigError: the explicit file does not exist.
    """
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            message = f"--weights {weights}: no such file"
            raise ConfigError(message)
        return path
    candidate = None if weights_dir is None else weights_dir / f"{backbone}.safetensors"
    return candidate if candidate is not None and candidate.is_file() else None


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors by name from .safetensors, or from .pth read without unpickling objects.

    Raises:
        ConfigError: the file is not one of these, or is damaged.
    """
    try:
        if path.suffix == ".safetensors" or _begins_as_safetensors(path):
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        message = f"{path}: cannot be read as weights ({error})"
        raise ConfigError(message) from error
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else type(error).__name__
        message = f"{path}: holds more than tensors ({what}), which is not read: convert it to .safetensors"
        raise ConfigError(message) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        message = f"{path}: holds no table of tensors"
        raise ConfigError(message)
    return state


def _begins_as_safetensors(path: Path) -> bool:
    """Eight bytes of the header's length, and the header's first character."""
    with path.open("rb") as file:
        begin = file.read(9)
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size


def no_weights(backbone: str, reason: str) -> ConfigError:
    """The error that names all the ways to get weights."""
    message = (
        f"no weights for {backbone}. Three ways: --weights FILE; "
        f"{backbone}.safetensors in the folder named by {ENVIRONMENT}; or the model hub ({reason}). "
        "Without any, --backbone gabor needs none"
    )
    return ConfigError(message)
