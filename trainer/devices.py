"""Owns what a fit takes of the machine: its device, what of its memory, and so how large a batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from torch import nn

from edge_runtime.errors import ConfigError, DataError
from trainer.backbones import Features
from trainer.history import History
from trainer.models.method import FitData, FitSettings, Method, TrainingTiles
from trainer.needs import SQUASHED, Smaller
from trainer.processes import Processes

MAX_BATCH = 64  # tiles, of `--batch auto`
_MEMORY_SHARE = 0.9  # of what is free; the rest is for the network and the system
_LAYERS_HELD = 4  # outputs as large as the largest that a pass through the network holds: two, as much in workspace


def free_bytes(device: torch.device, processes: Processes) -> float:
    """Memory that this process may still take; those on one machine share its main memory and have a GPU each."""
    if device.type == "cuda":
        return _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
    return float(_MEMORY_SHARE * psutil.virtual_memory().available / processes.on_machine)


def check_memory(
    method: Method, features: Features, data: FitData, settings: FitSettings, *, smaller: Smaller = SQUASHED
) -> int:
    """Memory that a fit will take, in bytes, by the method's prediction; one that would not fit is refused.

    Raises:
        ConfigError: it needs more memory than it may take.
    """
    needed = method.predict_bytes(features, data, settings)
    free = free_bytes(features.mean.device, settings.processes)
    if needed > free:
        fits = smaller.advice(lambda d: method.predict_bytes(features, d, settings), free)
        message = (
            f"--method {method.name} needs {needed / 2**30:.1f} GiB for this fit, {free / _MEMORY_SHARE / 2**30:.1f} GiB are free: "
            f"{fits}lower {smaller.side} or --batch, take fewer --layers, lower --fit-memory, or use another method"
        )
        raise ConfigError(message)
    return needed


def largest_batch(
    method: Method, features: Features, data: Callable[[int, int | None], FitData], settings: FitSettings
) -> int:
    """The largest power of two up to `MAX_BATCH` and the number of tiles whose fit has room; the least of all processes.

    Args:
        method: what is to be fitted.
        features: the first half of its graph.
        data: the shares in batches of so many tiles, of all images or of the first so many.
        settings: of the fit.

    Returns:
        Tiles in a batch; 1 where even that has no room by prediction, which `check_memory` refuses with the number.

    Raises:
        ConfigError: a GPU has no room for one tile.
    """
    device = features.mean.device
    count = data(1, None).fit.count
    free = free_bytes(device, settings.processes)
    a_tile = network_bytes(features, data(1, 1).fit)
    batch = 1
    while 2 * batch <= min(MAX_BATCH, count):
        doubled = 2 * batch
        if method.predict_bytes(features, data(doubled, None), settings) + doubled * a_tile > free:
            break
        batch = doubled
    while device.type == "cuda" and not tried(method, features, data, settings, batch):
        if batch == 1:
            message = (
                f"--batch auto: the GPU has no room for one tile of --method {method.name}: lower --size or --tile"
            )
            raise ConfigError(message)
        batch //= 2
    return settings.processes.least(batch)


def tried(
    method: Method,
    features: Features,
    data: Callable[[int, int | None], FitData],
    settings: FitSettings,
    batch: int,
) -> bool:
    """Make one real step, forward and back, on as many images as a batch takes; whether memory sufficed."""
    every = data(batch, None).fit
    images = 1
    while data(batch, images).fit.count < min(batch, every.count):
        images *= 2
    alone = replace(settings, steps=1, checkpoint=None, resume=False, history=History(), processes=Processes())
    try:
        with torch.random.fork_rng(devices=[]):
            method.fit(features, data(batch, images), alone)
    except torch.OutOfMemoryError:
        return False
    except DataError:  # so few images may not vary; whether all do is the fit's to say
        return True
    finally:
        if features.mean.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(features.mean.device)
    return True


def network_bytes(features: Features, tiles: TrainingTiles) -> int:
    """Memory of one tile's pass through the network, without gradients, from its largest output."""
    largest = 0

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal largest
        for part in output if isinstance(output, list | tuple) else [output]:
            if isinstance(part, torch.Tensor):
                largest = max(largest, part.numel() * part.element_size())

    handles = [module.register_forward_hook(look) for module in features.modules()]
    try:
        with torch.no_grad():
            for batch in tiles:
                features(batch.tiles)
                break
    finally:
        for handle in handles:
            handle.remove()
    return _LAYERS_HELD * largest


def choose_device(name: str, processes: Processes) -> torch.device:
    """The device of `--device`; a GPU computes in full f32 here, since references must.

    Raises:
        ConfigError: a GPU is asked for and there is none, or fewer than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        message = "--device cuda: torch sees no GPU here: use --device cpu, or check the driver"
        raise ConfigError(message)
    torch.backends.cuda.matmul.allow_tf32 = False  # references must be f32
    torch.backends.cudnn.allow_tf32 = False
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if processes.count == 1:
        return torch.device("cuda")
    if processes.on_machine > torch.cuda.device_count():
        message = (
            f"torchrun started {processes.on_machine} processes for {torch.cuda.device_count()} GPU(s): "
            "give --nproc-per-node the number of GPUs, or --device cpu"
        )
        raise ConfigError(message)
    torch.cuda.set_device(processes.local)
    return torch.device("cuda", processes.local)


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory of this process so far, the GPU's added."""
    on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return float((_peak_bytes() + on_gpu) / 2**20)


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: what getrusage tells holds also for the program that started this one
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", None)  # Windows
    if peak is not None:
        return int(peak)
    import resource  # noqa: PLC0415 - not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
