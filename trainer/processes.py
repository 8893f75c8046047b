"""Owns what the processes of one fit do together, where torchrun started several; alone, none of it does anything.

Every process sees the same batches in the same order and takes its part of each. Gradients are averaged, each process'
weighing as many tiles as it saw. Where the loss of a batch is a mean over its tiles, the result is that of one process but for
rounding. It is not exactly where tiles of one batch have unlike numbers of cells that count and the mean is over cells
(FastFlow, CS-Flow), where chance is drawn in the loss (CFLOW, DRAEM, EfficientAD: each process draws its own), and where
batch normalisation is trained (DRAEM: a process normalises over its own part; running means are averaged).
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from edge_runtime.errors import ConfigError, TaktError

_PATIENCE = timedelta(minutes=15)  # for the slowest of the others
_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by torchrun
_FAILED = "failed"
_GRACE_S = 1.0  # torchrun ends all as soon as one has ended: the one that tells must have told


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """One process among those of a fit."""

    rank: int = 0
    count: int = 1
    local: int = 0  # rank on this machine: which GPU
    on_machine: int = 1  # how many share this machine's memory

    @property
    def leads(self) -> bool:
        """Whether this one writes, shows and decides."""
        return self.rank == 0

    def part(self, tiles: int) -> slice:
        """Which of a batch's tiles are this process'; perhaps none."""
        return slice(self.rank * tiles // self.count, (self.rank + 1) * tiles // self.count)

    def align(self, module: nn.Module) -> None:
        """Give all the first one's weights and buffers."""
        if self.count > 1:
            for values in module.state_dict().values():
                with _together():
                    distributed.broadcast(values, src=0)

    def average(self, loss: float, tiles: int, parameters: Sequence[Tensor], statistics: Iterable[Tensor]) -> float:
        """Average a step over all processes, by tiles: gradients and statistics in place.

        Args:
            loss: of this process' tiles; anything where it has none.
            tiles: how many it has.
            parameters: those that are trained; some may have no gradient here or anywhere.
            statistics: what the step changed beside them.

        Returns:
            The mean loss, the same in every process.

        Raises:
            TaktError: another process is gone.
        """
        if self.count == 1:
            return loss
        known = [parameter.grad is not None for parameter in parameters]
        told = torch.tensor([loss * tiles if tiles else 0.0, tiles, *known], dtype=torch.float64)
        told = self._sum(told.to(parameters[0].device))
        share = tiles / float(told[1])
        for parameter, somewhere in zip(parameters, told[2:].tolist(), strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._sum(parameter.grad.mul_(share))
        for values in statistics:
            self._sum(values.mul_(share))
        return float(told[0] / told[1])

    def first(self, value: float) -> float:
        """The first process' value, in all of them."""
        if self.count == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        with _together():
            distributed.broadcast(told, src=0)
        return float(told)

    def least(self, value: int) -> int:
        """The smallest value of any."""
        if self.count == 1:
            return value
        told = torch.tensor([value])
        with _together():
            distributed.all_reduce(told, op=distributed.ReduceOp.MIN)
        return int(told)

    def gather(self, values: Tensor) -> list[Tensor]:
        """Every process' values, on the CPU, by rank; of one shape."""
        if self.count == 1:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.count)]
        with _together():
            distributed.all_gather(found, values)
        return found

    def leave(self) -> None:
        """Have nothing to do with the others any more: after the fit each goes its own way."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def _sum(self, values: Tensor) -> Tensor:
        with _together():
            distributed.all_reduce(values)
        return values


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the processes that torchrun started beside this one; alone where it did not start this one.

    Of a failure, one process tells: the first that failed. The others end with the same status and say nothing.

    Raises:
        ConfigError: the others cannot be met.
    """
    if not all(name in os.environ for name in _TOLD) or int(os.environ["WORLD_SIZE"]) == 1:
        yield Processes()
        return
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    processes = Processes(
        rank=rank, count=count, local=local, on_machine=int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
    )
    store = _meet(processes)
    if not processes.leads:
        logging.getLogger("takt").setLevel(logging.ERROR)
    try:
        yield processes
    except TaktError as error:
        if not _tells(store):
            time.sleep(_GRACE_S)
            raise SystemExit(error.exit_code) from None
        raise
    processes.leave()
    if not processes.leads:
        # nothing is left to do, and threads of gloo that still let go of tensors while the interpreter is torn down end
        # a process that has done all of its work with an abort (github.com/pytorch/pytorch/pull/179291)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)


def _meet(processes: Processes) -> Store:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    try:
        store: Store = next(rendezvous("env://", processes.rank, processes.count, timeout=_PATIENCE))[0]
        distributed.init_process_group(
            backend,
            store=PrefixStore("takt", store),
            rank=processes.rank,
            world_size=processes.count,
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        message = (
            f"process {processes.rank} of {processes.count} cannot meet the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({error}): check torchrun's --nnodes and --rdzv-endpoint, or start without torchrun"
        )
        raise ConfigError(message) from error
    return store


def _tells(store: Store) -> bool:
    """Whether this is the first process that failed."""
    with suppress(RuntimeError):  # torchrun, which keeps the store, may be gone
        return int(store.add(_FAILED, 1)) == 1
    return True


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # this process' own
    except RuntimeError as error:
        message = (
            "another process of this fit has ended, or was silent for "
            f"{_PATIENCE.total_seconds() / 60:.0f} minutes: look for its message, then go on with --resume"
        )
        raise TaktError(message) from error
