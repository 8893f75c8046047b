"""Owns the file in which a fit by gradients keeps its state, so that one that is broken off can be resumed."""

import logging
import math
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from edge_runtime.errors import ConfigError
from trainer.history import History

IMAGES = "images"  # what the digest of the images is called in an identity
_LOG = logging.getLogger("takt")

# what reading a file that is no checkpoint, or half of one, or of another model, may raise
_UNREADABLE = (
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


class Stateful(Protocol):
    """A module, an optimiser, a schedule of rates."""

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go on from there."""


@dataclass(slots=True)
class Progress:
    """How far a fit is."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of the epoch that are done
    first_loss: float | None = None
    best: float = math.inf
    worse: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A fit's file, and what goes into it."""

    path: Path
    parts: Mapping[str, Stateful]
    progress: Progress
    history: History
    identity: Mapping[str, Any]  # what must be the same when it is resumed

    def save(self, generators: list[Tensor]) -> None:
        """Write beside the file and rename: whenever the power fails, the file is the old state or the new one, whole.

        Where it cannot be written, that is said and the fit goes on: what is to save it must not end it.

        Args:
            generators: the state of every process' generator.
        """
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        state["generators"] = generators
        state["progress"] = {name: getattr(self.progress, name) for name in Progress.__dataclass_fields__}
        state["history"] = asdict(self.history)
        state["identity"] = dict(self.identity)
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # the second is torch's for a full disk
            temporary.unlink(missing_ok=True)
            _LOG.warning(
                "the checkpoint %s cannot be written (%s): the fit goes on without; is the disk full?",
                self.path,
                str(error).splitlines()[0],
            )

    def load(self) -> list[Tensor]:
        """Go on from the file; returns the state of every process' generator.

        Raises:
            ConfigError: there is no such file, it is no checkpoint, or of another fit.
        """
        state = _read(self.path)
        try:
            found = state["identity"]
            differing = [name for name, value in self.identity.items() if name not in found or found[name] != value]
            if not differing:
                for name, part in self.parts.items():
                    part.load_state_dict(state[name])
                for name in Progress.__dataclass_fields__:
                    setattr(self.progress, name, state["progress"][name])
                self.history.take(History(**state["history"]))
                generators: list[Tensor] = state["generators"]
        except _UNREADABLE as error:
            raise _no_checkpoint(self.path, error) from error
        if differing:
            name = differing[0]
            own = f"of {name} {found.get(name)} where this one has {self.identity[name]}"
            message = (
                f"--resume: {self.path} is of another fit, {'of other images' if name == IMAGES else own}: "
                "give the same settings and images, or remove it and begin anew"
            )
            raise ConfigError(message)
        return generators


def batch_of(path: Path) -> int:
    """How many tiles a batch of the broken-off fit had.

    Raises:
        ConfigError: there is no such file, or it is no checkpoint.
    """
    state = _read(path)
    try:
        return int(state["identity"]["batch"])
    except _UNREADABLE as error:
        raise _no_checkpoint(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        message = f"--resume: {path} does not exist: the fit was not broken off, or was to be written elsewhere"
        raise ConfigError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of other kinds of files
            # by way of the CPU: another process' GPU is not this one's
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except _UNREADABLE as error:
        raise _no_checkpoint(path, error) from error
    return state


def _no_checkpoint(path: Path, error: Exception) -> ConfigError:
    message = f"--resume: {path} is not a checkpoint of this fit ({type(error).__name__}): remove it and begin anew"
    return ConfigError(message)
