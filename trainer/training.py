"""Owns the loop of every method that is trained by gradients: steps, schedule, clipping, checkpoints, early stop.

A broken-off fit that is resumed gives what an unbroken one gives: the order of the tiles is drawn from seed and epoch,
all other chance from one generator, and both are in the checkpoint.
"""

import copy
import hashlib
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from edge_runtime.errors import ConfigError, DataError
from trainer.models.method import FitSettings, TileBatch, TrainingTiles

_SAVE_EVERY_S = 60.0
_DIVERGED = 1e4  # times the first loss' magnitude: no schedule comes back from up there

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How a method is optimised. Steps are batches."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None
    drop_at: tuple[float, ...] = ()  # shares of the steps after which the rate is multiplied by `drop_by`
    drop_by: float = 0.1
    check_every: int | None = (
        None  # steps between looks at the validation share, the last one besides; None never looks
    )
    patience: int = 5  # looks without a better validation loss before the fit ends


Loss = Callable[[TileBatch, torch.Generator], Tensor]


@dataclass(slots=True)
class _Progress:
    """All that a checkpoint holds beside the weights."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of the epoch that are done
    first_loss: float | None = None
    best: float = math.inf
    worse: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)


def train(
    model: nn.Module,
    tiles: TrainingTiles,
    loss: Loss,
    schedule: Schedule,
    settings: FitSettings,
    *,
    validate: Callable[[], float] | None = None,
) -> list[float]:
    """Optimise what of a module requires gradients.

    Args:
        model: in training mode afterwards as before; its best state is kept where `validate` is given.
        tiles: good tiles of the fit share.
        loss: of a batch; draws what it draws from the generator given.
        schedule: the method's.
        settings: seed, steps in place of the schedule's, checkpoint.
        validate: loss over the validation share's good tiles, for the early stop.

    Returns:
        The loss of every step since this process began.

    Raises:
        DataError: the loss is not finite, or diverged.
        ConfigError: the checkpoint belongs to another fit.
    """
    steps = settings.steps or schedule.steps
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(settings.seed)
    optimizer, scheduler = _optimizer(model, schedule, steps)
    progress = _Progress()
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    identity: dict[str, Any] = {}
    if settings.checkpoint is not None:
        identity = {"seed": settings.seed, "steps": steps, "schedule": asdict(schedule), "images": _digest(tiles)}
    if settings.resume:
        _load(settings.checkpoint, parts, generator, progress, identity)
    losses: list[float] = []
    saved_at = time.monotonic()
    with tqdm(total=steps, initial=progress.step, desc="train", unit="step", leave=False, disable=None) as bar:
        for batch in _endless(tiles, settings.seed, progress, steps):
            value = _step(loss, batch, generator, optimizer, schedule.clip_norm)
            _check(value, progress, schedule)
            scheduler.step()
            losses.append(value)
            bar.update()
            bar.set_postfix(loss=f"{value:.4g}")
            due = schedule.check_every and (progress.step % schedule.check_every == 0 or progress.step == steps)
            if validate is not None and due and _worse_for_long(model, validate, progress, schedule.patience):
                break
            if settings.checkpoint is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
                _save(settings.checkpoint, parts, generator, progress, identity)
                saved_at = time.monotonic()
    if progress.best_state:
        model.load_state_dict(progress.best_state)
    if settings.checkpoint is not None:
        settings.checkpoint.unlink(missing_ok=True)
    return losses


def _optimizer(
    model: nn.Module, schedule: Schedule, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=schedule.learning_rate,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
    )
    drops = [max(1, round(share * steps)) for share in schedule.drop_at]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=schedule.drop_by)


def _digest(tiles: TrainingTiles) -> str:
    """Tells data sets apart by the number of their cells and their first tiles."""
    first = next(iter(tiles), None)
    pixels = b"" if first is None else first.tiles.cpu().numpy().tobytes()
    return f"{tiles.cells}-{hashlib.sha256(pixels).hexdigest()}"


def _endless(tiles: TrainingTiles, seed: int, progress: _Progress, steps: int) -> Iterator[TileBatch]:
    """Epoch after epoch, each in an order of its own, from where the progress is."""
    while progress.step < steps:
        before = progress.step
        for batch in islice(tiles.shuffled(seed + progress.epoch), progress.batch, None):
            if progress.step >= steps:
                return
            progress.step += 1
            progress.batch += 1
            yield batch
        if progress.step == before and progress.batch == 0:
            message = "there is no tile to train on: the valid area leaves nothing"
            raise DataError(message)
        progress.epoch, progress.batch = progress.epoch + 1, 0


def _step(
    loss: Loss,
    batch: TileBatch,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch.tiles.device.type, torch.bfloat16, enabled=batch.tiles.device.type == "cuda"):
        value = loss(batch, generator)
    value.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    found = float(value.detach())
    if math.isfinite(found):
        optimizer.step()
    return found


def _check(value: float, progress: _Progress, schedule: Schedule) -> None:
    if progress.first_loss is None and math.isfinite(value):
        progress.first_loss = value
    first = progress.first_loss
    diverged = first is not None and value > _DIVERGED * max(1.0, abs(first))
    if not math.isfinite(value) or diverged:
        message = (
            f"training broke down at step {progress.step}: the loss is {value:g} (it began at "
            f"{'nothing finite' if first is None else f'{first:g}'}): look for odd images with `takt audit`, "
            f"try another --seed, or fewer --steps; the learning rate is {schedule.learning_rate:g}"
        )
        raise DataError(message)


def _worse_for_long(model: nn.Module, validate: Callable[[], float], progress: _Progress, patience: int) -> bool:
    """Look at the validation share; whether it is time to stop."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = validate()
    model.train(was_training)
    if not math.isfinite(found):
        message = (
            f"training broke down at step {progress.step}: the loss of the validation share is {found:g}: "
            "look for odd images with `takt audit`, or try another --seed"
        )
        raise DataError(message)
    if found < progress.best:
        progress.best, progress.worse = found, 0
        progress.best_state = copy.deepcopy(model.state_dict())
    else:
        progress.worse += 1
    return progress.worse >= patience


def _save(
    path: Path, parts: dict[str, Any], generator: torch.Generator, progress: _Progress, identity: dict[str, Any]
) -> None:
    """Write beside the file and rename: whenever the power fails, the file is the old state or the new one, whole."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state["generator"] = generator.get_state()
    state["progress"] = {name: getattr(progress, name) for name in _Progress.__dataclass_fields__}
    state["identity"] = identity
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _load(
    path: Path | None, parts: dict[str, Any], generator: torch.Generator, progress: _Progress, identity: dict[str, Any]
) -> None:
    if path is None or not path.is_file():
        message = f"--resume: {path} does not exist: the fit was not broken off, or was to be written elsewhere"
        raise ConfigError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of other kinds of files
            state = torch.load(path, weights_only=True)
        found = state["identity"]
        differing = [name for name, value in identity.items() if found[name] != value]
        if not differing:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            generator.set_state(state["generator"].cpu())
            for name in _Progress.__dataclass_fields__:
                setattr(progress, name, state["progress"][name])
    except _UNREADABLE as error:
        message = f"--resume: {path} is not a checkpoint of this fit ({type(error).__name__}): remove it and begin anew"
        raise ConfigError(message) from error
    if differing:
        name = differing[0]
        message = (
            f"--resume: {path} is of another fit, of {name} {found[name]} where this one has {identity[name]}: "
            "give the same settings and images, or remove it and begin anew"
        )
        raise ConfigError(message)
