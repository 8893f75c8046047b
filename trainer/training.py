"""Owns the loop of every method that is trained by gradients: steps, schedule, clipping, early stop, when to save.

A broken-off fit that is resumed gives what an unbroken one gives: the order of the tiles is drawn from seed and epoch,
all other chance from one generator a process, and both are in the checkpoint.
"""

import copy
import hashlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from types import FrameType
from typing import NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from edge_runtime.errors import ConfigError, DataError
from trainer.checkpoint import IMAGES, Checkpoint, Progress, Stateful
from trainer.history import History
from trainer.models.method import FitSettings, TileBatch, TrainingTiles
from trainer.processes import Processes

_LOG = logging.getLogger("takt")
_SAVE_EVERY_S = 60.0
_TELL_EVERY_S = 60.0  # where there is no bar
_DIVERGED = 1e4  # times the first loss' magnitude: no schedule comes back from up there


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
        settings: seed, steps and rate in place of the schedule's, checkpoint, history, processes.
        validate: loss over the validation share's good tiles, for the early stop; the first process looks for all.

    Returns:
        The loss of every step since this process began.

    Raises:
        DataError: the loss is not finite, or diverged.
        ConfigError: the checkpoint belongs to another fit.
        TaktError: another process of the fit is gone.
    """
    schedule = replace(
        schedule,
        steps=settings.steps or schedule.steps,
        learning_rate=settings.learning_rate or schedule.learning_rate,
    )
    steps, processes, history = schedule.steps, settings.processes, settings.history
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(settings.seed + (processes.rank << 32))
    optimizer, scheduler = _optimizer(model, schedule)
    progress = Progress()
    history.take(History(asked=steps))
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    checkpoint = _checkpoint(tiles, schedule, settings, parts, progress)
    if settings.resume:
        _resume(checkpoint, generator, processes)
    processes.align(model)
    losses: list[float] = []
    aside = _Aside(checkpoint, generator, processes, steps)
    quiet = None if processes.leads else True  # None: where stderr is no terminal
    with (
        tqdm(total=steps, initial=progress.step, desc="train", unit="step", leave=False, disable=quiet) as bar,
        _interrupts(alone=processes.count == 1) as interrupted,
    ):
        for batch in _endless(tiles, settings.seed, progress, steps):
            rate = optimizer.param_groups[0]["lr"]
            value = _step(model, loss, batch, generator, optimizer, schedule.clip_norm, processes=processes)
            _check(value, progress, schedule)
            scheduler.step()
            losses.append(value)
            history.add(value, rate)
            bar.update()
            bar.set_postfix(loss=f"{value:.4g}")
            due = schedule.check_every and (progress.step % schedule.check_every == 0 or progress.step == steps)
            if validate is not None and due:
                _look(model, validate, progress, history, processes)
                if progress.worse >= schedule.patience:
                    break
            if interrupted():
                aside.leave(progress.step)
            aside.step(progress.step, value, shown=not bar.disable)
    history.ended_early = progress.step < steps
    if progress.best_state:
        model.load_state_dict(progress.best_state)
    else:
        history.kept = progress.step
    if checkpoint is not None and processes.leads:
        checkpoint.path.unlink(missing_ok=True)
    return losses


@dataclass(slots=True)
class _Aside:
    """What is done beside the steps, now and then: the state is saved, and a line is said where no bar is shown."""

    checkpoint: Checkpoint | None
    generator: torch.Generator
    processes: Processes
    steps: int
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    made: int = 0

    def step(self, step: int, loss: float, *, shown: bool) -> None:
        """A step was made."""
        self.made += 1
        now = time.monotonic()
        if self.processes.leads and not shown and now - self.told > _TELL_EVERY_S:
            left = (self.steps - step) * (now - self.began) / self.made
            _LOG.info("train: step %d of %d, loss %.4g, %.0f min left", step, self.steps, loss, left / 60)
            self.told = now
        if self.checkpoint is not None and self.processes.first(now - self.saved) > _SAVE_EVERY_S:
            self.save()
            self.saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint, where there is to be one."""
        if self.checkpoint is None:
            return
        generators = self.processes.gather(self.generator.get_state())
        if self.processes.leads:
            self.checkpoint.save(generators)

    def leave(self, step: int) -> NoReturn:
        """Keep the state and end as Ctrl-C asks."""
        self.save()
        if self.checkpoint is not None and self.checkpoint.path.is_file():
            _LOG.info("train: stopped after step %d of %d: the same command with --resume goes on", step, self.steps)
        raise KeyboardInterrupt


@contextmanager
def _interrupts(*, alone: bool) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, to be looked at between steps; pressed again, it ends everything at once."""
    if not alone or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed: list[int] = []

    def press(number: int, _frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _checkpoint(
    tiles: TrainingTiles, schedule: Schedule, settings: FitSettings, parts: dict[str, Stateful], progress: Progress
) -> Checkpoint | None:
    if settings.checkpoint is None:
        return None
    return Checkpoint(
        path=settings.checkpoint,
        parts=parts,
        progress=progress,
        history=settings.history,
        identity={
            **settings.identity,
            "seed": settings.seed,
            "batch": tiles.batch,
            "processes": settings.processes.count,
            **{name.replace("_", " "): value for name, value in asdict(schedule).items()},
            IMAGES: _digest(tiles),
        },
    )


def _resume(checkpoint: Checkpoint | None, generator: torch.Generator, processes: Processes) -> None:
    if checkpoint is None:
        message = "--resume: this fit has no checkpoint: leave the flag out"
        raise ConfigError(message)
    generator.set_state(checkpoint.load()[processes.rank].cpu())
    processes.least(0)  # nobody goes on, and perhaps ends and removes the file, before all have read it


def _optimizer(
    model: nn.Module, schedule: Schedule
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=schedule.learning_rate,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
    )
    drops = [max(1, round(share * schedule.steps)) for share in schedule.drop_at]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=schedule.drop_by)


def _digest(tiles: TrainingTiles) -> str:
    """Tells data sets apart by the number of their cells and their first tiles."""
    first = next(iter(tiles), None)
    pixels = b"" if first is None else first.tiles.cpu().numpy().tobytes()
    return f"{tiles.cells}-{hashlib.sha256(pixels).hexdigest()}"


def _endless(tiles: TrainingTiles, seed: int, progress: Progress, steps: int) -> Iterator[TileBatch]:
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
    model: nn.Module,
    loss: Loss,
    batch: TileBatch,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    *,
    processes: Processes,
) -> float:
    """One step on this process' part of a batch; the loss is that of the whole batch."""
    optimizer.zero_grad(set_to_none=True)
    part = processes.part(len(batch.tiles))
    mine = TileBatch(batch.tiles[part], batch.kept[part], None if batch.index is None else batch.index[part])
    found = 0.0
    if len(mine.tiles):
        with torch.autocast(batch.tiles.device.type, torch.bfloat16, enabled=batch.tiles.device.type == "cuda"):
            value = loss(mine, generator)
        value.backward()  # type: ignore[no-untyped-call]
        found = float(value.detach())
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found = processes.average(found, len(mine.tiles), parameters, _statistics(model))
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    if math.isfinite(found):
        optimizer.step()
    return found


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    """Running means and variances of batch normalisation that is in training."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and part.training:
            yield from (found for found in (part.running_mean, part.running_var) if found is not None)


def _check(value: float, progress: Progress, schedule: Schedule) -> None:
    if progress.first_loss is None and math.isfinite(value):
        progress.first_loss = value
    first = progress.first_loss
    diverged = first is not None and value > _DIVERGED * max(1.0, abs(first))
    if not math.isfinite(value) or diverged:
        message = (
            f"training broke down at step {progress.step}: the loss is {value:g} (it began at "
            f"{'nothing finite' if first is None else f'{first:g}'}): look for odd images among the good ones, "
            f"try another --seed, fewer --steps, or a --learning-rate below {schedule.learning_rate:g}"
        )
        raise DataError(message)


def _look(
    model: nn.Module, validate: Callable[[], float], progress: Progress, history: History, processes: Processes
) -> None:
    """Look at the validation share, and keep the state where it is the best so far."""
    found = 0.0
    if processes.leads:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            found = validate()
        model.train(was_training)
    found = processes.first(found)
    if not math.isfinite(found):
        message = (
            f"training broke down at step {progress.step}: the loss of the validation share is {found:g}: "
            "look for odd images among the good ones, try another --seed, or a lower --learning-rate"
        )
        raise DataError(message)
    better = found < progress.best
    history.look(progress.step, found, best=better)
    if better:
        progress.best, progress.worse = found, 0
        progress.best_state = copy.deepcopy(model.state_dict())
    else:
        progress.worse += 1
