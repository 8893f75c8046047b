"""Owns DRAEM's losses, each over the pixels that count.

SSIM: Wang et al., IEEE TIP 13 (2004) 600-612. Focal loss: Lin et al., ICCV 2017, arXiv:1708.02002.
"""

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for images of [0, 1]
GAMMA = 2.0


def masked_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Mean of (B, H, W) over the pixels that count; at least one must."""
    weights = kept.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def l2_loss(repaired: Tensor, images: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of (B, 3, H, W)."""
    return masked_mean((repaired - images).square().mean(dim=1), kept)


def ssim_loss(repaired: Tensor, images: Tensor, kept: Tensor) -> Tensor:
    """One minus the mean structural similarity of (B, 3, H, W)."""
    return 1.0 - masked_mean(ssim(repaired, images).mean(dim=1), kept)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """(B, C, H, W) structural similarity of Gaussian windows; beyond the border is 0, as in the convolution."""
    channels = first.shape[1]
    offsets = torch.arange(WINDOW, dtype=first.dtype, device=first.device) - WINDOW // 2
    taps = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    taps = taps / taps.sum()
    row, column = taps.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), taps.view(1, 1, -1, 1).repeat(channels, 1, 1, 1)

    def blur(values: Tensor) -> Tensor:
        across = functional.conv2d(values, row, padding=(0, WINDOW // 2), groups=channels)
        return functional.conv2d(across, column, padding=(WINDOW // 2, 0), groups=channels)

    mean_1, mean_2 = blur(first), blur(second)
    variance_1 = blur(first * first) - mean_1.square()
    variance_2 = blur(second * second) - mean_2.square()
    covariance = blur(first * second) - mean_1 * mean_2
    alike = (2 * mean_1 * mean_2 + _C1) * (2 * covariance + _C2)
    return alike / ((mean_1.square() + mean_2.square() + _C1) * (variance_1 + variance_2 + _C2))


def focal_loss(logits: Tensor, anomalous: Tensor, kept: Tensor) -> Tensor:
    """Mean of -(1 - p)^2 log p, p being the probability of the truth; good and anomalous pixels weigh the same.

    There is no alpha: with alpha as the anomalous class' weight and 1 - alpha as the other's, an alpha of 1 would leave
    the good pixels no weight at all.

    Args:
        logits: (B, 2, H, W), of good and of anomalous.
        anomalous: (B, H, W) bool.
        kept: (B, H, W) bool.
    """
    logarithms = functional.log_softmax(logits, dim=1)
    truth = torch.where(anomalous, logarithms[:, 1], logarithms[:, 0])
    return masked_mean(-(1 - truth.exp()).pow(GAMMA) * truth, kept)
