"""Owns giving a stand-in its values: arbitrary ones, of a size that a network keeps about as it goes."""

import torch
from torch import Tensor, nn


def made_real(module: nn.Module) -> nn.Module:
    """Give memory and values to what lies on the meta device, in place; what has values keeps them.

    Rows of matrices and kernels are drawn so that what goes through them keeps its size: numbers that vanish or outgrow
    their type would be slower or quicker than fitted ones. The draws do not touch torch's own generator.
    """
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        for name, values in part.named_parameters(recurse=False):
            if values.is_meta:
                part.register_parameter(name, nn.Parameter(_drawn(values, generator), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(part, name, _drawn(buffer, generator))
    return module


def _drawn(values: Tensor, generator: torch.Generator) -> Tensor:
    """Of the same shape and type, on the CPU."""
    made = torch.empty_like(values, device="cpu", requires_grad=False)
    if not values.is_floating_point():
        return made.zero_()  # orders of channels, say: any number that may stand there
    if values.ndim < 2:  # noqa: PLR2004 - biases, norms, variances: these must be above 0
        return made.uniform_(0.5, 1.5, generator=generator)
    return made.normal_(0.0, (values[0].numel()) ** -0.5, generator=generator)
