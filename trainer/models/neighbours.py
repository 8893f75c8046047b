"""Owns nearest neighbours inside a graph: exact, in blocks of static shape, so that no product outgrows its block.

Which rows are nearest is found with matrix products; their distances are then computed from the differences
themselves, because |x|^2 + |c|^2 - 2xc cancels near zero, and all the more in low precision.
"""

import torch
from torch import Tensor

BLOCK_FLOATS = 16 * 2**20  # of one product: 64 MB


def half_norms(bank: Tensor) -> Tensor:
    """(..., N, D) -> (..., N): half of each row's squared norm, as `closeness` wants it."""
    return 0.5 * bank.square().sum(dim=-1)


def closeness(queries: Tensor, bank: Tensor, halves: Tensor) -> Tensor:
    """(..., Q, D), (..., N, D), (..., N) -> (..., Q, N): xc - |c|^2 / 2, largest for the nearest row."""
    return queries @ bank.transpose(-1, -2) - halves.unsqueeze(-2)


def nearest_distances(queries: Tensor, bank: Tensor, halves: Tensor, count: int) -> Tensor:
    """Distances to the nearest rows of a bank.

    Args:
        queries: (Q, D).
        bank: (N, D), of `count` rows at least; best with its mean taken off, since norms are small then.
        halves: (N,), the bank's half norms.
        count: of neighbours.

    Returns:
        (Q, count), nearest first.
    """
    rows = min(len(bank), max(count, BLOCK_FLOATS // len(queries)))
    values: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, len(bank), rows):
        block = slice(start, min(start + rows, len(bank)))
        near = closeness(queries, bank[block], halves[block])
        value, place = near.topk(min(count, near.shape[1]), dim=1)
        values.append(value)
        places.append(place + start)
    place = places[0]
    if len(places) > 1:
        best = torch.cat(values, dim=1).topk(count, dim=1).indices
        place = torch.cat(places, dim=1).gather(1, best)
    exact = torch.stack(
        [(queries - bank[place[:, rank]]).square().sum(dim=1) for rank in range(count)], dim=1
    )  # one rank at a time: all of them together would hold `count` copies of the queries
    return exact.topk(count, dim=1, largest=False).values.sqrt()  # products may have put near ties in the wrong order
