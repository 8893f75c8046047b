"""Owns mean and deviation of a network's channels over many images, in two passes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edge_runtime.errors import DataError
from trainer.models.method import check_varies

_QUIET = 1e-3  # of the mean deviation: a quieter channel would be blown up to nothing but noise


def channel_statistics(columns: Callable[[], Iterable[Tensor]], what: str) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) of each channel.

    The mean is found first and the squares of differences from it are summed then: sums of squares would cancel.

    Args:
        columns: begins another pass, of (N, D) descriptions each.
        what: of what, for errors.

    Raises:
        DataError: there are none, or they do not vary.
    """
    count, total = 0, torch.zeros(())
    for part in columns():
        total = total.to(part.device) + part.sum(dim=0, dtype=torch.float64)
        count += len(part)
    if count == 0:
        message = "there is no tile to fit to: the valid area leaves nothing"
        raise DataError(message)
    mean = total / count
    squares = torch.zeros_like(mean)
    for part in columns():
        squares += (part.to(torch.float64) - mean).square().sum(dim=0)
    check_varies(float(squares.mean()) / count, what)
    deviation = (squares / count).sqrt()
    return mean.to(torch.float32), deviation.clamp(min=_QUIET * deviation.mean()).to(torch.float32)
