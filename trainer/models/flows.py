"""Owns the parts of normalising flows: permutations and affine couplings, invertible, with their log-determinants.

Dinh et al., ICLR 2017, arXiv:1605.08803 (affine coupling); Ardizzone et al., arXiv:1907.02392 (soft clamp, condition).

A flow maps a list of tensors, one by scale, (B, D, ...) each with the channels in dimension 1; most flows have one scale.
A log-determinant is that of the channels at each place: (B, ...) without dimension 1. Their sum over places and scales is
the log-determinant of the whole map where no place's coefficients depend on what the same coupling changes, which holds
for every coupling.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def soft_clamp(values: Tensor, limit: float) -> Tensor:
    """Squeeze to (-limit, limit), with slope 1 at 0 after a factor of pi / 2: limit * 2 / pi * atan(values / limit)."""
    return limit * (2 / math.pi) * torch.atan(values / limit)


class Permutation(nn.Module):
    """Channels in a fixed drawn order, the same at every place; one order by scale."""

    def __init__(self, channels: int, scales: int = 1) -> None:
        """Draw the orders from torch's generator."""
        super().__init__()
        self.scales = scales
        for scale in range(scales):
            order = torch.randperm(channels)
            self.register_buffer(f"order_{scale}", order)
            self.register_buffer(f"back_{scale}", order.argsort())

    def forward(self, maps: list[Tensor], conditions: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:  # noqa: ARG002 - as a coupling has it
        """[(B, D, ...)] -> the same permuted, and log-determinants of 0."""
        moved = [part.index_select(1, self.get_buffer(f"order_{scale}")) for scale, part in enumerate(maps)]
        return moved, [torch.zeros_like(part[:, 0]) for part in maps]

    def inverse(self, maps: list[Tensor], conditions: list[Tensor] | None) -> list[Tensor]:  # noqa: ARG002 - as a coupling has it
        """The channels back in their places."""
        return [part.index_select(1, self.get_buffer(f"back_{scale}")) for scale, part in enumerate(maps)]


class AffineCoupling(nn.Module):
    """One part of the channels is scaled and shifted by what a network makes of the other part."""

    def __init__(self, channels: int, subnet: nn.Module, *, clamp: float, changes_first: bool = False) -> None:
        """Take the network.

        Args:
            channels: D, of every scale.
            subnet: [(B, kept + condition channels, ...)] -> [(B, 2 x changed, ...)], logarithms of scales first.
            clamp: largest magnitude of a scale's logarithm.
            changes_first: change the first `changed_channels` channels and not the last.
        """
        super().__init__()
        self.subnet = subnet
        self.clamp = clamp
        self.changes_first = changes_first
        changed = changed_channels(channels)
        self.sizes = [changed, channels - changed] if changes_first else [channels - changed, changed]

    def forward(self, maps: list[Tensor], conditions: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
        """[(B, D, ...)], [(B, P, ...)] -> [(B, D, ...)], [(B, ...)] log-determinants."""
        kept, changed = self._split(maps)
        scales, shifts = self._coefficients(kept, conditions)
        moved = [part * scale.exp() + shift for part, scale, shift in zip(changed, scales, shifts, strict=True)]
        return self._join(kept, moved), [scale.sum(dim=1) for scale in scales]

    def inverse(self, maps: list[Tensor], conditions: list[Tensor] | None) -> list[Tensor]:
        """What `forward` made the maps of."""
        kept, moved = self._split(maps)
        scales, shifts = self._coefficients(kept, conditions)
        changed = [(part - shift) * (-scale).exp() for part, scale, shift in zip(moved, scales, shifts, strict=True)]
        return self._join(kept, changed)

    def _coefficients(self, kept: list[Tensor], conditions: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
        seen = kept
        if conditions is not None:
            seen = [torch.cat([part, known], dim=1) for part, known in zip(kept, conditions, strict=True)]
        halves = [found.chunk(2, dim=1) for found in self.subnet(seen)]
        return [soft_clamp(scale, self.clamp) for scale, _ in halves], [shift for _, shift in halves]

    def _split(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What is kept, and what is changed."""
        parts = [torch.split(part, self.sizes, dim=1) for part in maps]
        kept, changed = (1, 0) if self.changes_first else (0, 1)
        return [part[kept] for part in parts], [part[changed] for part in parts]

    def _join(self, kept: list[Tensor], changed: list[Tensor]) -> list[Tensor]:
        pairs = zip(changed, kept, strict=True) if self.changes_first else zip(kept, changed, strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]


class Flow(nn.Module):
    """Permutations and couplings one after the other."""

    def __init__(self, steps: Iterable[Permutation | AffineCoupling]) -> None:
        """Take the steps, the data's side first."""
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, maps: list[Tensor], conditions: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """[(B, D, ...)], [(B, P, ...)] -> latent [(B, D, ...)], log-determinants [(B, ...)]."""
        totals = [torch.zeros_like(part[:, 0]) for part in maps]
        for step in self.steps:
            maps, found = step(maps, conditions)
            totals = [total + part for total, part in zip(totals, found, strict=True)]
        return maps, totals

    def inverse(self, latent: list[Tensor], conditions: list[Tensor] | None = None) -> list[Tensor]:
        """Latent [(B, D, ...)] -> what `forward` made it of."""
        for step in reversed(self.steps):
            latent = step.inverse(latent, conditions)  # type: ignore[operator]  # ModuleList forgets the class
        return latent


def changed_channels(channels: int) -> int:
    """How many of the channels a coupling changes: half, the smaller one."""
    return channels // 2


def negative_log_likelihood(latent: Tensor, log_determinant: Tensor) -> Tensor:
    """(B, D, ...), (B, ...) -> (B, ...) under a standard normal latent, without its constant."""
    return 0.5 * latent.square().sum(dim=1) - log_determinant
