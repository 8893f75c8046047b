"""A small fit as torchrun starts it, in as many processes as it likes; the first writes the weights.

torchrun ... shared_fit.py METHOD OUT [--resume] [--kill RANK STEP | --fail RANK STEP]
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
from support.memory_tiles import MemoryTiles, surfaces
from torch import nn

from edge_runtime.errors import DataError, TaktError
from trainer import training
from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.checkpoint import Progress
from trainer.models.method import FitData, FitSettings, TileBatch
from trainer.models.registry import find_method
from trainer.processes import Processes, joined

STEPS = 6


def fit(method: str, out: Path, processes: Processes, *, resume: bool = False) -> None:
    """Seven tiles in batches of three: the last batch has one tile, and one of two processes none of it."""
    features = load_features(
        "gabor", ("layer3",), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )
    data = FitData(fit=MemoryTiles(surfaces(7), 16, batch=3), validation=MemoryTiles(surfaces(2, seed=1), 16, batch=3))
    settings = FitSettings(
        seed=0,
        steps=STEPS,
        checkpoint=out.with_name(f"{out.name}.checkpoint"),
        resume=resume,
        processes=processes,
    )
    model = find_method(method).fit(features, data, settings)
    if processes.leads:
        torch.save({"weights": model.state_dict(), "losses": settings.history.losses}, out)


def fit_toy(out: Path, processes: Processes) -> None:
    """Batch normalisation, and weights that nothing reaches; every process writes its own state."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"seen": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "unseen": nn.Linear(2, 2)})
    if processes.rank:
        nn.init.constant_(model["seen"][0].weight, float(processes.rank))  # type: ignore[index]  # the first one's count

    def loss(batch: TileBatch, generator: torch.Generator) -> torch.Tensor:
        inputs = batch.tiles.to(torch.float32).mean(dim=(1, 2)) / 255
        found: torch.Tensor = model["seen"](inputs + torch.rand(inputs.shape, generator=generator))
        return found.square().mean(dim=1).sub(0.5).square().mean()

    schedule = training.Schedule(steps=STEPS, learning_rate=0.1, weight_decay=0.1, clip_norm=0.5)
    tiles = MemoryTiles(surfaces(20, 16), 16, batch=10)
    training.train(model, tiles, loss, schedule, FitSettings(seed=0, processes=processes))
    torch.save({"weights": model.state_dict()}, out.with_name(f"{out.name}.{processes.rank}"))


def ending(rank: int, step: int, *, killed: bool) -> None:
    """Let one process end in a step."""
    check = training._check  # noqa: SLF001 - the one place that knows the step

    def checked(value: float, progress: Progress, schedule: training.Schedule) -> None:
        check(value, progress, schedule)
        if progress.step == step and os.environ["RANK"] == str(rank):
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            message = "the lamp went out"
            raise DataError(message)

    training._check = checked  # noqa: SLF001


def main() -> int:
    """As a command of Takt ends: its message and status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill", nargs=2, type=int)
    parser.add_argument("--fail", nargs=2, type=int)
    options = parser.parse_args()
    training._SAVE_EVERY_S = -1.0  # noqa: SLF001
    torch.set_num_threads(1)
    if options.kill or options.fail:
        ending(*(options.kill or options.fail), killed=options.kill is not None)
    try:
        with joined() as processes:
            if options.method == "toy":
                fit_toy(options.out, processes)
            else:
                fit(options.method, options.out, processes, resume=options.resume)
    except TaktError as error:
        sys.stderr.write(f"takt: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
