"""DRAEM: repair the image, compare it with what it was, and mark what differs; learnt from drawn anomalies.

Zavrtanik et al., ICCV 2021, arXiv:2108.07610. Anomalies are textures laid over good images where turned Perlin noise of
2^0 to 2^5 cells is above 0.5, seen through by beta ~ U(0, 0.8). Losses L2 + SSIM + focal, each of weight 1; Adam 1e-4,
times 0.1 after 400 and 600 of 700 epochs. The map is the softmax of the anomalous channel at every pixel; the image score
is the maximum of its mean over 21x21 pixels.

Departures. Textures are those of a folder (`--textures`; the paper takes photographs of textures) or drawn ones, since no
data set of textures comes with Takt: they are less various. Half of the tiles stay without an anomaly and 30 % are
turned by up to 45 degrees; the paper gives the angles and no shares. The mean over 21x21 pixels counts pixels
of the plane only; with zeros around it, a defect at the border would score less. Images enter as [0, 1], without the
statistics of ImageNet, as in the paper. The decoders mirror the encoders' widths; other reproductions narrow the first's
sooner. `--width` narrows both networks: at a quarter of the channels a step and an inspection take a sixteenth of
the multiplications, which is what a CPU bears. Sides are multiples of 32, since the deepest level has a 32nd of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import ConfigError
from trainer.backbones import Features
from trainer.backbones.pixels import PixelFeatures
from trainer.data.alterations import alter
from trainer.data.perlin import perlin_mask
from trainer.data.textures import Textures, seeded, texture_source
from trainer.models import unet
from trainer.models.draem_losses import focal_loss, l2_loss, ssim_loss
from trainer.models.method import FeatureRequest, FitData, FitSettings, TileBatch, added_bytes, with_contrast
from trainer.models.seen import Stacked
from trainer.training import Schedule, train

RECONSTRUCTION_WIDTH = 128  # channels of the first level
DISCRIMINATION_WIDTH = 64
MAX_TRANSPARENCY = 0.8
POOLED = 21
EPOCHS = 700
DROPS = (400, 600)  # epochs
LEARNING_RATE = 1e-4
_DRAWN_WIDTH = 8  # channels of the first level, to see how far the networks look
_SPOILT = 0.5  # share of tiles that get an anomaly
_TURNED = 0.3  # share of tiles that are turned
_MAX_ANGLE = math.pi / 4
_SMALLEST = 64  # pixels: batch normalisation needs more than one value a channel at the deepest level
_KEPT_PER_WIDTH = 40  # values a pixel and a channel of the first level that a step keeps for the way back


class DRAEM(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    def __init__(self, features: Features, reconstruction: nn.Module, discrimination: nn.Module) -> None:
        """Take the two networks."""
        super().__init__()
        self.features = features
        self.reconstruction = reconstruction
        self.discrimination = discrimination

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, H, W) probability of an anomaly, [0, 1]."""
        images = self.features(tiles)[0]
        logits: Tensor = self.discrimination(images, self.reconstruction(images))
        return torch.softmax(logits, dim=1)[:, 1]


@dataclass(frozen=True, slots=True)
class DRAEMMethod:
    """DRAEM as the trainer's registry knows it."""

    name: str = "draem"
    layers: tuple[str, ...] = ()
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.POOLED_MAX
    pooled_windows: tuple[int, int, int] | None = (POOLED, POOLED, POOLED)  # a cell is a pixel
    sigma: float = 0.0
    settings: frozenset[str] = frozenset({"steps", "learning_rate", "width", "textures"})
    validation: float = 0.0
    note: str = ""
    no_frame_graph: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The pixels themselves."""
        return PixelFeatures(pixels=wanted.pixels, input_stride=unet.STRIDE)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:
        """Both networks, of few channels: how far they see does not depend on the number."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            drawn = DRAEM(features, unet.Reconstruction(_DRAWN_WIDTH), unet.Discrimination(_DRAWN_WIDTH)).train()
            for module in drawn.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # after one pass every level has values of one size, as after training
            drawn.to(features.mean.device)(tiles[:1])
        return Stacked(drawn.eval())

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Weights, slopes and moments, and what a step over one batch keeps for the way back."""
        batch = min(data.fit.batch, data.fit.count)
        height, width = data.fit.grid
        kept = _KEPT_PER_WIDTH * sum(_widths(settings.width))
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 4 * (held + batch * height * width * kept)

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> DRAEM:
        """The two networks.

        Raises:
            ConfigError: tiles are too small.
        """
        if min(data.fit.grid) < _SMALLEST:
            message = (
                f"--method draem: tiles are {data.fit.grid[1]}x{data.fit.grid[0]}, it needs {_SMALLEST} pixels a side"
            )
            raise ConfigError(message)
        return DRAEM(features, *_networks("meta", settings.width))

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> DRAEM:
        """Learn to repair and to mark drawn anomalies on good tiles.

        Raises:
            ConfigError: no textures can be had.
            DataError: the images show nothing, or training broke down.
        """
        source = texture_source(settings.textures)
        batches = sum(1 for _ in with_contrast(data.fit))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            reconstruction, discrimination = _networks("cpu", settings.width)
        model = DRAEM(features, reconstruction, discrimination).to(features.mean.device)

        def loss(batch: TileBatch, generator: torch.Generator) -> Tensor:
            return draem_loss(model, batch, source, generator)

        schedule = Schedule(
            steps=EPOCHS * max(1, batches),
            learning_rate=LEARNING_RATE,
            drop_at=tuple(drop / EPOCHS for drop in DROPS),
        )
        model.train()
        features.eval()
        train(model, data.fit, loss, schedule, settings)
        return model.eval()


def draem_loss(model: DRAEM, batch: TileBatch, source: Textures, generator: torch.Generator) -> Tensor:
    """L2 + SSIM + focal of one batch, on which anomalies are drawn first."""
    images, kept = turned(model.features(batch.tiles)[0], batch.kept, generator)
    spoilt, anomalous = with_anomalies(images, source, generator)
    repaired = model.reconstruction(spoilt)
    logits = model.discrimination(spoilt, repaired)
    with torch.autocast(images.device.type, enabled=False):  # variances cancel in low precision
        repaired, logits = repaired.float(), logits.float()
        reconstruction = l2_loss(repaired, images, kept) + ssim_loss(repaired, images, kept)
        return reconstruction + focal_loss(logits, anomalous, kept)


def with_anomalies(images: Tensor, source: Textures, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lay a texture over half of the images, where a mask says so: I (1 - M) + beta I M + (1 - beta) A M.

    Args:
        images: (B, 3, H, W) in [0, 1], left as they are.
        source: of the textures A.
        generator: of all chance.

    Returns:
        (B, 3, H, W) images and (B, H, W) bool masks M, empty where an image stays good.
    """
    rng = seeded(generator)
    count, _, height, width = images.shape
    spoilt = images.clone()
    masks = torch.zeros(count, height, width, dtype=torch.bool, device=images.device)
    for index in range(count):
        if rng.random() >= _SPOILT:
            continue
        mask = torch.from_numpy(perlin_mask(rng, height, width)).to(images.device)
        texture = torch.from_numpy(alter(rng, source.draw(rng, height, width))).permute(2, 0, 1).to(images)
        beta = rng.uniform(0, MAX_TRANSPARENCY)
        spoilt[index] = torch.where(mask, beta * images[index] + (1 - beta) * texture, images[index])
        masks[index] = mask
    return spoilt, masks


def turned(images: Tensor, kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn some of the images (B, 3, H, W) about their centres, and with them the pixels that count (B, H, W)."""
    count, _, height, width = images.shape
    draws = torch.rand(count, 2, generator=generator, device=images.device)
    chosen = (draws[:, 0] < _TURNED).view(-1, 1, 1)
    angle = (2 * draws[:, 1] - 1) * _MAX_ANGLE
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    # sampling goes by shares of the sides: an oblong image is turned in pixels and not in those
    first = torch.stack([cosine, -sine * (height / width), zero], dim=1)
    second = torch.stack([sine * (width / height), cosine, zero], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(images.shape), align_corners=False)
    there = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    counted = functional.grid_sample(kept.unsqueeze(1).to(images.dtype), grid, mode="nearest", align_corners=False)
    moved = torch.where(chosen, counted.squeeze(1) > 0, kept)
    return torch.where(chosen.unsqueeze(1), there, images), moved


def _networks(device: str, share: float) -> tuple[nn.Module, nn.Module]:
    reconstruction, discrimination = _widths(share)
    with torch.device(device):
        return unet.Reconstruction(reconstruction), unet.Discrimination(discrimination)


def _widths(share: float) -> tuple[int, int]:
    return max(1, round(share * RECONSTRUCTION_WIDTH)), max(1, round(share * DISCRIMINATION_WIDTH))
