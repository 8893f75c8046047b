"""Owns what EfficientAD's student and autoencoder are taught by.

Batzner et al., WACV 2024, arXiv:2303.14535, section 3 and algorithm 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.models.autoencoder import AutoEncoder

HARD_QUANTILE = 0.999
STRENGTH = (0.8, 1.2)  # of brightness, contrast or saturation
_LUMA = (0.299, 0.587, 0.114)


def efficientad_loss(
    *,
    teach: Callable[[Tensor], Tensor],
    student: nn.Module,
    autoencoder: AutoEncoder | None,
    images: Tensor,
    kept: Tensor,
    foreign: Tensor,
    scale: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Student to teacher on the hardest elements, the penalty on foreign pictures, and the autoencoder's two losses.

    Args:
        teach: the teacher's description, scaled; (B, 3, H, W) normalised -> (B, D, h, w).
        student: -> (B, 2 D, h, w).
        autoencoder: -> (B, D, h, w), or None.
        images: (B, 3, H, W) normalised.
        kept: (B, h, w) bool, the cells that count.
        foreign: (B, 3, H, W) normalised, pictures of other things.
        scale: mean and deviation that normalised images and `foreign`.
        generator: of all chance.
    """
    with torch.no_grad():
        taught = teach(images)
    channels = taught.shape[1]
    distances = (taught - student(images)[:, :channels]).float().square()
    loss: Tensor = hard_loss(distances, kept) + student(foreign)[:, :channels].float().square().mean()
    if autoencoder is None:
        return loss
    changed = jittered(images, scale, generator)
    with torch.no_grad():
        taught = teach(changed)
    recalled = autoencoder(changed, generator)
    learnt = student(changed)[:, channels:]
    to_teacher: Tensor = (taught - recalled).float().square().mean(dim=1)
    to_student: Tensor = (recalled - learnt).float().square().mean(dim=1)
    return loss + to_teacher[kept].mean() + to_student[kept].mean()


def hard_loss(distances: Tensor, kept: Tensor) -> Tensor:
    """Mean over tiles of the mean of those elements that are at or above the tile's 0.999 quantile.

    Args:
        distances: (B, D, h, w) squared differences.
        kept: (B, h, w) bool; tiles without any cell are left out.
    """
    losses = []
    for tile, cells in zip(distances, kept, strict=True):
        elements = tile[:, cells].flatten()
        if len(elements):
            # the quantile lies between two elements, or on one: those from it on are the largest so many
            hardest = len(elements) - math.ceil(HARD_QUANTILE * (len(elements) - 1))
            losses.append(elements.topk(hardest, sorted=False).values.mean())
    return torch.stack(losses).mean()


def jittered(images: Tensor, scale: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
    """Change each image's brightness, contrast or saturation by a factor of 0.8 to 1.2.

    Args:
        images: (B, 3, H, W) normalised.
        scale: mean and deviation that normalised them.
        generator: of which and how much.
    """
    count, device = len(images), images.device
    mean, deviation = scale
    plain = images * deviation + mean
    kind = torch.randint(3, (count, 1, 1, 1), generator=generator, device=device)
    draws = torch.rand(count, 1, 1, 1, generator=generator, device=device)
    factor = STRENGTH[0] + draws * (STRENGTH[1] - STRENGTH[0])
    grey = (plain * torch.tensor(_LUMA, device=device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    # each blends with something: black, the image's mean grey, the pixel's own grey
    towards = torch.where(kind == 1, grey.mean(dim=(2, 3), keepdim=True), grey) * (kind > 0)
    changed = (towards + factor * (plain - towards)).clamp(0, 1)
    return (changed - mean) / deviation
