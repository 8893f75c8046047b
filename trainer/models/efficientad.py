"""EfficientAD: a student that knows the teacher on good parts only, and an autoencoder for how parts belong together.

Batzner et al., WACV 2024, arXiv:2303.14535. Patch description networks of two sizes; the teacher's channels are scaled by
mean and deviation over the fit images; the student's first 384 outputs learn the teacher on the hardest 0.1 % of all
elements and are kept down on foreign pictures, its other 384 learn the autoencoder, which learns the teacher. Adam
1e-4, weight decay 1e-5, 70,000 steps, times 0.1 after 95 %. Each map is scaled to 0.1 (x - q0.9) / (q0.995 - q0.9), the
quantiles being those of the validation share, and the map is the mean of both; its maximum is the image score.

Departures. Images are reflected beyond their border, see `trainer.models.pdn`; the map so covers every cell and not 56 of 64
a side. A step is a batch (`--batch 1` is the paper's) and the hardest elements are chosen in each tile apart. Foreign
pictures, ImageNet in the paper, are those of `--textures`, best the folder that the teacher was distilled from, or else
drawn textures. Quantiles are of the maps' cells and not of upsampled pixels. Where they lie closer together than a
thousandth of the upper one, they are taken to lie so far apart: a constant map must not divide by 0. Where tiles are parts of a plane,
or have a halo, there is no autoencoder: it would see a part and not the whole, and its field has no end that a halo could cover.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import ConfigError, DataError
from trainer.backbones import Features
from trainer.data.textures import Textures, draw_textures, texture_source
from trainer.models import pdn
from trainer.models.autoencoder import SMALLEST, AutoEncoder
from trainer.models.efficientad_losses import efficientad_loss
from trainer.models.method import (
    FeatureRequest,
    FitData,
    FitSettings,
    TileBatch,
    TrainingTiles,
    added_bytes,
    with_contrast,
)
from trainer.models.scaling import channel_statistics
from trainer.models.seen import Joined
from trainer.training import Schedule, train

STEPS = 70_000
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-5
DROP_AT = 0.95
QUANTILES = (0.9, 0.995)
SCALE = 0.1
_NARROWEST = 1e-3  # share of the upper quantile
_KEPT_PER_PIXEL = {"small": 1_800, "medium": 3_600}  # values that a step keeps for the way back

NOTE = (
    "EfficientAD is patented (MVTec Software GmbH). This bundle's code is free, the use of the method may not be: "
    "clear the rights before you use it commercially."
)


class Networks(nn.Module):
    """Teacher, student and, for whole planes, autoencoder."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, teacher: Features, student: nn.Module, autoencoder: AutoEncoder | None, mean: Tensor, deviation: Tensor
    ) -> None:
        """Take the networks, and mean and deviation (D,) of the teacher's channels."""
        super().__init__()
        self.features = teacher
        self.student = student
        self.autoencoder = autoencoder
        self.register_buffer("mean", mean.clone().view(1, -1, 1, 1))
        self.register_buffer("deviation", deviation.view(1, -1, 1, 1))

    def teach(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, D, h, w), the teacher's description, scaled."""
        described: Tensor = self.features.network(images)[0]
        return (described - self.mean) / self.deviation

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """(B, H, W, C) integers -> (B, h, w) raw maps: student to teacher, and to the autoencoder where there is one."""
        images = self.features.images(tiles)
        taught = self.teach(images)
        learnt, recalled = self.student(images).chunk(2, dim=1)
        maps = [(taught - learnt).square().mean(dim=1)]
        if self.autoencoder is not None:
            maps.append((self.autoencoder(images) - recalled).square().mean(dim=1))
        return maps


class EfficientAD(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    start: Tensor
    width: Tensor

    def __init__(self, networks: Networks, quantiles: Tensor) -> None:
        """Take trained networks and the two quantiles (maps, 2) of each map on unseen good parts."""
        super().__init__()
        self.networks = networks
        low, high = quantiles.to(torch.float32).unbind(dim=1)
        width = torch.maximum(high - low, _NARROWEST * high)
        self.register_buffer("start", low.contiguous())
        self.register_buffer("width", torch.where(width > 0, width, 1.0))

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w): 0 at the maps' q0.9, 0.1 at their q0.995."""
        maps: list[Tensor] = self.networks(tiles)
        scaled = [SCALE * (values - self.start[index]) / self.width[index] for index, values in enumerate(maps)]
        return torch.stack(scaled).mean(dim=0)


@dataclass(frozen=True, slots=True)
class EfficientADMethod:
    """EfficientAD of one size as the trainer's registry knows it."""

    name: str
    size: str  # of the networks: small or medium
    layers: tuple[str, ...] = ()
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.MAX_RAW
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 0.0
    settings: frozenset[str] = frozenset({"steps", "learning_rate", "teacher", "textures"})
    validation: float = 0.1
    note: str = NOTE
    no_frame_graph: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The teacher."""
        return pdn.load_teacher(wanted.teacher, self.size, wanted.pixels)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """The teacher; the student sees as far."""
        return Joined(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Weights, slopes and moments of student and autoencoder, and what a step over one batch keeps."""
        height, width = (side * pdn.STRIDE for side in data.fit.grid)
        batch = min(data.fit.batch, data.fit.count)
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 4 * (held + batch * height * width * _KEPT_PER_PIXEL[self.size])

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> EfficientAD:  # noqa: ARG002 - as the Protocol has it
        """Teacher, student and autoencoder, the teacher's means and deviations, and two quantiles of each map."""
        with torch.device("meta"):
            student, autoencoder = pdn.PDN(self.size, 2 * pdn.OUTPUTS), next(_autoencoders(data.fit), None)
            mean, deviation = (torch.empty(sum(features.channels)) for _ in range(2))
            networks = Networks(features, student, autoencoder, mean, deviation)
            return EfficientAD(networks, torch.empty(1 if autoencoder is None else 2, 2))

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> EfficientAD:
        """Teach student and autoencoder on good tiles, then take the maps' quantiles on those set apart.

        Raises:
            ConfigError: tiles are too small, or no foreign pictures can be had.
            DataError: the images show nothing, none is set apart, or training broke down.
        """
        if data.validation is None:
            message = f"{self.name} scales its maps on good images that are set apart, and there are none: give --validation 0.1"
            raise DataError(message)
        source = texture_source(settings.textures)
        device = features.mean.device
        with torch.no_grad():
            mean, deviation = channel_statistics(lambda: _described(features, data.fit), "the teacher's description")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            student = pdn.PDN(self.size, 2 * pdn.OUTPUTS)
            autoencoder = next(_autoencoders(data.fit), None)
        networks = Networks(features, student, autoencoder, mean, deviation).to(device)

        def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:
            _check_teacher(networks, mean)
            return _loss(networks, batch, source, generator)

        schedule = Schedule(
            steps=STEPS, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, drop_at=(DROP_AT,), drop_by=0.1
        )
        train(networks, data.fit, loss, schedule, settings)
        networks.eval()
        with torch.no_grad():
            return EfficientAD(networks, map_quantiles(networks, data.validation)).to(device)


def map_quantiles(networks: Networks, tiles: TrainingTiles) -> Tensor:
    """(maps, 2) quantiles over the cells that count.

    Raises:
        DataError: no cell counts.
    """
    values = [[part[batch.kept].to("cpu", torch.float64) for part in networks(batch.tiles)] for batch in tiles]
    if not sum(len(parts[0]) for parts in values):
        message = "the good images that are set apart show nothing of the valid area: give more images or another area"
        raise DataError(message)
    columns = [torch.cat(parts).numpy() for parts in zip(*values, strict=True)]
    return torch.from_numpy(np.stack([np.quantile(column, QUANTILES) for column in columns])).to(networks.mean.device)


def _loss(networks: Networks, batch: TileBatch, source: Textures, generator: torch.Generator) -> Tensor:
    features = networks.features
    images = features.images(batch.tiles)
    foreign = draw_textures(source, len(images), (images.shape[2], images.shape[3]), generator)
    return efficientad_loss(
        teach=networks.teach,
        student=networks.student,
        autoencoder=networks.autoencoder,
        images=images,
        kept=batch.kept,
        foreign=(foreign - features.mean) / features.deviation,
        scale=(features.mean, features.deviation),
        generator=generator,
    )


def _check_teacher(networks: Networks, mean: Tensor) -> None:
    """Refuse to go on from a checkpoint whose teacher or images are others: it has brought their statistics along.

    Raises:
        ConfigError: they are.
    """
    if not torch.allclose(networks.mean.flatten(), mean, rtol=1e-3, atol=1e-3 * float(mean.abs().mean())):
        message = "--resume: the checkpoint is of another --teacher or of other images: give the same, or remove it and begin anew"
        raise ConfigError(message)


def _described(features: Features, tiles: TrainingTiles) -> Iterator[Tensor]:
    """(N, D) of every batch's cells that count."""
    for batch in with_contrast(tiles):
        yield features(batch.tiles)[0].permute(0, 2, 3, 1)[batch.kept]


def _autoencoders(tiles: TrainingTiles) -> Iterator[AutoEncoder]:
    """One where every tile shows a whole plane, none elsewhere.

    Raises:
        ConfigError: tiles are too small for it.
    """
    height, width = (side * pdn.STRIDE for side in tiles.grid)
    if min(height, width) < SMALLEST:
        message = (
            f"EfficientAD needs tiles of {SMALLEST} pixels a side, these are {width}x{height}: raise --size or --halo"
        )
        raise ConfigError(message)
    if tiles.whole:
        yield AutoEncoder(height, width, outputs=pdn.OUTPUTS, stride=pdn.STRIDE)
