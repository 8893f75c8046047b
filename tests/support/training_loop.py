"""What tests of the training loop share: a model small enough to follow by hand, and a power cut."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from trainer import training
from trainer.models.method import TileBatch
from trainer.training import Loss, Schedule

SCHEDULE = Schedule(steps=12, learning_rate=0.05)


@dataclass
class Tiles:
    """Nine tiles of one cell in batches of two; notes the order in which they are asked for."""

    pixels: Tensor = field(default_factory=lambda: torch.arange(9, dtype=torch.uint8).reshape(9, 1, 1, 1))
    orders: list[list[int]] = field(default_factory=list)

    def __iter__(self) -> Iterator[TileBatch]:
        yield from self._batches(self.pixels)

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """An order by seed."""
        order = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(seed))
        self.orders.append(order.tolist())
        yield from self._batches(self.pixels[order])

    def _batches(self, pixels: Tensor) -> Iterator[TileBatch]:
        for start in range(0, len(pixels), 2):
            part = pixels[start : start + 2]
            yield TileBatch(part, torch.ones(len(part), 1, 1, dtype=torch.bool))

    @property
    def batch(self) -> int:
        """Two."""
        return 2

    @property
    def count(self) -> int:
        """How many tiles."""
        return len(self.pixels)

    @property
    def cells(self) -> int:
        """One a tile."""
        return len(self.pixels)

    @property
    def grid(self) -> tuple[int, int]:
        """One cell."""
        return 1, 1


class PowerCut(BaseException):
    """Ends a fit as a kill would: nothing catches it."""


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


def squares(model: nn.Module) -> Loss:
    """Learn a number of each tile, with noise that the loop's generator draws."""

    def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:
        inputs = batch.tiles.to(torch.float32).reshape(-1, 1) / 9
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return (model(inputs + noise) - inputs.sin()).square().mean()

    return loss


def cut_after(calls: int, loss: Loss) -> Loss:
    """The same loss, with the power going off in call number `calls` + 1."""
    done = 0

    def cut(batch: TileBatch, generator: torch.Generator) -> Tensor:
        nonlocal done
        if done == calls:
            raise PowerCut
        done += 1
        return loss(batch, generator)

    return cut


def constant(values: list[float], model: nn.Module) -> Loss:
    """A loss that takes the given values, step by step."""
    left = iter(values)

    def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - as the loop calls it
        return next(model.parameters()).sum() * 0 + next(left)

    return loss


def weight() -> nn.Linear:
    """One number, at 0."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def pull(model: nn.Linear, force: float = 1.0) -> Loss:
    """A loss whose gradient is always `-force`."""
    return lambda _batch, _generator: -force * model.weight.sum()


def saving_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
