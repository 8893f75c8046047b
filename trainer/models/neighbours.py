"""Owns nearest neighbours inside a graph: exact, in blocks of static shape, so that no product outgrows its block.

Which rows are nearest is found with matrix products; their distances are then computed from the differences
themselves, because |x|^2 + |c|^2 - 2xc cancels near zero, and all the more in low precision.

Inference engines are quick at the maximum of a row and slow at its place, let alone its k largest places. So a row is cut
into groups, the k groups of the largest maxima are found first, and the k largest within them: they are in no other. Figures are in
docs/decisions/0016-neighbours-in-graphs.md.
"""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK_FLOATS = 4 * 2**20  # of one product: 16 MB, which a cache still holds
GROUP = 64  # rows of a bank whose maximum is taken at once
_NEVER = 1e30  # half norm of a row that must not match; infinity would make NaN of a product with 0


def half_norms(bank: Tensor) -> Tensor:
    """(..., N, D) -> (..., N): half of each row's squared norm, as `closeness` wants it."""
    return 0.5 * bank.square().sum(dim=-1)


def grouped(bank: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Make a bank ready to be searched.

    Args:
        bank: (..., N, D); best with its mean taken off, since norms are small then.
        kept: (..., N) bool, the rows that may match; all when None.

    Returns:
        (..., M, D) and (..., M): the bank, lengthened to whole groups by rows that never match, and its half norms.
    """
    missing = grouped_rows(bank.shape[-2]) - bank.shape[-2]
    halves = half_norms(bank)
    if kept is not None:
        halves = halves.masked_fill(~kept, _NEVER)
    return functional.pad(bank, (0, 0, 0, missing)), functional.pad(halves, (0, missing), value=_NEVER)


def grouped_rows(rows: int) -> int:
    """How many rows a bank has when it is `grouped`."""
    return rows + -rows % GROUP


def closeness(queries: Tensor, bank: Tensor, halves: Tensor) -> Tensor:
    """(..., Q, D), (..., N, D), (..., N) -> (..., Q, N): xc - |c|^2 / 2, largest for the nearest row."""
    return queries @ bank.transpose(-1, -2) - halves.unsqueeze(-2)


def largest(near: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest numbers of each row and their places, as `topk` gives them.

    Args:
        near: (..., N) of N whole groups.
        count: of numbers, a group's size at most.

    Returns:
        (..., count) values, largest first, and (..., count) places.
    """
    groups = near.reshape(*near.shape[:-1], near.shape[-1] // GROUP, GROUP)
    chosen = _top(groups.amax(dim=-1), min(count, groups.shape[-2]))[1]  # (..., k)
    rows = groups.gather(-2, chosen.unsqueeze(-1).expand(*chosen.shape, GROUP)).flatten(-2)
    values, within = _top(rows, count)
    return values, members(chosen, GROUP).gather(-1, within)


def members(groups: Tensor, size: int) -> Tensor:
    """Places of all members of groups of one size: (..., k) numbers of groups -> (..., k * size).

    Places are looked up and not divided for: exporters divide integers by way of floats, which low precision spoils.
    """
    return (groups.unsqueeze(-1) * size + torch.arange(size, device=groups.device)).flatten(-2)


def nearest_distances(queries: Tensor, bank: Tensor, halves: Tensor, count: int) -> Tensor:
    """Distances to the nearest rows of a bank.

    Args:
        queries: (Q, D).
        bank: (N, D), `grouped`, of `count` rows at least that may match.
        halves: (N,), its half norms.
        count: of neighbours.

    Returns:
        (Q, count), nearest first.
    """
    rows = GROUP * max(1, BLOCK_FLOATS // len(queries) // GROUP)
    values: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, len(bank), rows):
        block = slice(start, min(start + rows, len(bank)))
        value, place = largest(closeness(queries, bank[block], halves[block]), count)
        values.append(value)
        places.append(place + start)
    place = places[0]
    if len(places) > 1:
        best = _top(torch.cat(values, dim=1), count)[1]
        place = torch.cat(places, dim=1).gather(1, best)
    exact = torch.stack(
        [(queries - bank[place[:, rank]]).square().sum(dim=1) for rank in range(count)], dim=1
    )  # one rank at a time: all of them together would hold `count` copies of the queries
    if count == 1:
        return exact.sqrt()
    return exact.topk(count, dim=1, largest=False).values.sqrt()  # products may have put near ties in the wrong order


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:
        found = values.max(dim=-1, keepdim=True)
        return found.values, found.indices
    ranked = values.topk(count, dim=-1)
    return ranked.values, ranked.indices
