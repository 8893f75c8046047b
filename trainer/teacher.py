"""Owns `takt teacher`: a backbone's features -> a patch description network that gives the same much faster.

Batzner et al., WACV 2024, arXiv:2303.14535, appendix. The backbone sees a picture of 512 pixels a side, the network the same at
256, so that both describe it at 64x64 places. Target: the layers of PatchCore, each averaged over 3x3 cells, joined,
brought to 384 channels by adaptive averaging, and scaled by mean and deviation of each channel over up to 10,000
pictures. Mean squared difference; one picture in ten is grey; Adam 1e-4, weight decay 1e-5, batches of 16, 60,000 steps.

Departures. The smaller picture is the mean of 2x2 pixels of the larger one, and not another scaling of the file. Any backbone
and any folder will do; the paper takes Wide ResNet-101 and ImageNet.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.store import check_writable
from edge_runtime.bundle.training import dump_training
from edge_runtime.commands.arguments import write_bytes
from edge_runtime.errors import ConfigError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import RANDOM, weights_folder
from trainer.data.pictures import Pictures
from trainer.data.textures import find_pictures
from trainer.models import pdn
from trainer.models.method import FitSettings, TileBatch
from trainer.models.patchcore import embed
from trainer.models.scaling import channel_statistics
from trainer.processes import Processes
from trainer.training import Schedule, train

SIDE = 512  # of what the backbone sees; the network sees half
STEPS = 60_000
BATCH = 16
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-5
GREY = 0.1  # share of the pictures
MEASURED = 10_000  # pictures that the channels are measured on
LAYERS = ("layer2", "layer3")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSettings:
    """What the user may set."""

    backbone: str
    size: str = "small"
    layers: tuple[str, ...] = LAYERS
    weights: str | None = None
    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    batch: int = BATCH
    workers: int = 2
    seed: int = 0
    device: str = "cpu"  # as torch calls it


def distil(
    settings: TeacherSettings, images: Path, out: Path, *, resume: bool = False, processes: Processes | None = None
) -> list[float]:
    """Distil a teacher from a backbone and write it, and beside it, as `.training.json`, how the loss went.

    Args:
        settings: what, how long and where.
        images: folder of pictures.
        out: a .safetensors file.
        resume: go on from the checkpoint beside `out`.
        processes: that share the steps; the first one writes. Alone when None.

    Returns:
        The loss of every step since this process began.

    Raises:
        TaktError: another process is gone.
        ConfigError: no backbone, pictures or checkpoint; or the file cannot be written.
        DataError: a picture cannot be read, or training broke down.
    """
    if out.suffix != ".safetensors":
        message = f"--out {out}: a teacher is written as .safetensors: give the file that ending"
        raise ConfigError(message)
    if settings.weights == RANDOM:
        message = "--weights random: a teacher of random numbers teaches nothing: give the backbone's weights"
        raise ConfigError(message)
    processes = processes or Processes()
    if processes.leads:
        check_writable(out)
    paths = find_pictures(images, flag="--images")
    device = torch.device(settings.device)
    backbone = load_features(
        settings.backbone,
        settings.layers,
        weights=settings.weights,
        pixels=PixelSpec(channels=3, bit_depth=8),
        weights_dir=weights_folder(),
    ).to(device)
    sizes = {"side": SIDE, "stride": 2 * pdn.STRIDE, "batch": settings.batch, "workers": settings.workers}
    mean, deviation = _measured(backbone, Pictures(paths[:MEASURED], **sizes, device=device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = pdn.PDN(settings.size, pdn.OUTPUTS).to(device)

    def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:
        tiles = some_grey(batch.tiles, generator)
        with torch.no_grad():
            wanted = (target(backbone, tiles) - mean) / deviation
        given: Tensor = network(pdn_images(tiles))
        return (given - wanted).float().square().mean()

    schedule = Schedule(steps=settings.steps, learning_rate=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    fit_settings = FitSettings(
        seed=settings.seed,
        identity={
            "backbone": settings.backbone,
            "weights' digest": str(backbone.origin.digest or backbone.origin.source),
            "--layers": ",".join(settings.layers),
            "--size": settings.size,
        },
        checkpoint=out.with_name(f"{out.name}.checkpoint"),
        resume=resume,
        processes=processes,
    )
    losses = train(network, Pictures(paths, **sizes, device=device), loss, schedule, fit_settings)
    processes.leave()
    record = fit_settings.history.record()
    if processes.leads and record is not None:
        write_bytes(out, _file(network, _told(settings, backbone, images, len(paths))))
        write_bytes(out.with_suffix(".training.json"), dump_training(record))
    return losses


def target(backbone: Features, tiles: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 384, S / 8, S / 8): what the network learns to give, before it is scaled."""
    joined = embed(backbone(tiles))
    batch, channels, height, width = joined.shape
    columns = joined.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    described = functional.adaptive_avg_pool1d(columns, pdn.OUTPUTS)
    grid = described.reshape(batch, height, width, pdn.OUTPUTS).permute(0, 3, 1, 2)
    side = tiles.shape[1] // (2 * pdn.STRIDE)
    if (height, width) == (side, side):
        return grid
    return functional.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)


def pdn_images(tiles: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S / 2, S / 2), normalised as a PDN takes it."""
    images = functional.avg_pool2d(tiles.permute(0, 3, 1, 2).to(torch.float32) / 255, 2)
    mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (pdn.MEAN, pdn.DEVIATION))
    return (images - mean) / deviation


def some_grey(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Take the colour out of one picture in ten, so that the network also knows monochrome cameras."""
    chosen = torch.rand(len(tiles), 1, 1, 1, generator=generator, device=tiles.device) < GREY
    luma = tiles.new_tensor((0.299, 0.587, 0.114), dtype=torch.float32)
    grey = (tiles.to(torch.float32) @ luma).round().clamp(0, 255).to(torch.uint8).unsqueeze(3)
    return torch.where(chosen, grey, tiles)


def _measured(backbone: Features, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the target's channels, each (1, 384, 1, 1)."""

    def columns() -> Iterator[Tensor]:
        for batch in pictures:
            yield target(backbone, batch.tiles).permute(0, 2, 3, 1).flatten(0, 2)

    with torch.no_grad():
        mean, deviation = channel_statistics(columns, "the backbone's features of the pictures")
    return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def _told(settings: TeacherSettings, backbone: Features, images: Path, count: int) -> Mapping[str, str]:
    """What the file says of itself; a bundle's LICENCES.json repeats licence and note."""
    origin = backbone.origin
    note = (
        f"distilled in {settings.steps} steps from {origin.backbone} ({origin.source}, {','.join(settings.layers)}) "
        f"on {count} pictures of {images.resolve().name}, seed {settings.seed}"
    )
    return {"size": settings.size, "licence": origin.licence, "note": note}


def _file(network: nn.Module, told: Mapping[str, str]) -> bytes:
    state = {
        name: values.detach().to("cpu", torch.float32).contiguous() for name, values in network.state_dict().items()
    }
    # one entry: the format keeps entries in no order, and the same fit must give the same file
    return save(state, metadata={pdn.TOLD: json.dumps(told, sort_keys=True)})
