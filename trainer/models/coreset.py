"""Owns the choice of a memory bank: greedy k-centre selection, exact, and in bounded memory.

Sener and Savarese, ICLR 2018, arXiv:1708.00489; as used in PatchCore (Roth et al., CVPR 2022, arXiv:2106.08265).
"""

from collections.abc import Callable

import torch
from torch import Tensor

PROJECTED = 128
_START_POINTS = 10
_POOL = 4096  # candidates that are kept exact from pick to pick; 1024 to 8192 do nearly as well


def projection(channels: int, seed: int) -> Tensor | None:
    """Random Gaussian projection (channels, 128); None where there are no more channels than that.

    Distances survive it up to a small factor (Johnson and Lindenstrauss, 1984), and selection needs no more.
    """
    if channels <= PROJECTED:
        return None
    generator = torch.Generator().manual_seed(seed)
    matrix: Tensor = torch.randn(channels, PROJECTED, generator=generator) / PROJECTED**0.5
    return matrix


def first_centre(points: Tensor, seed: int) -> int:
    """The point farthest, on average, from 10 points drawn at random: where selection starts."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(points), generator=generator)[:_START_POINTS].to(points.device)
    return int(_squared_distances(points, points[drawn]).sqrt().mean(dim=1).argmax())


def greedy(points: Tensor, count: int, *, seed: int, on_pick: Callable[[int], None] = lambda _: None) -> Tensor:
    """Indices of `count` points, each the farthest from those before it.

    Exact and lazy. A distance to the nearest centre only falls as centres are added, so an old distance is an upper
    bound. A pool of the points with the largest bounds is kept exact; as long as the pool's farthest point lies at or
    above every bound outside, it is the farthest of all. When it falls below, all bounds are brought up to date with
    one matrix product over the centres picked since, and a new pool is taken.

    Args:
        points: (N, D) float32, on any device.
        count: how many to select, 1 to N.
        seed: of the first centre.
        on_pick: called with the number selected so far, now and then.

    Returns:
        (count,) int64, in the order of selection; fewer where all further points coincide with one selected.
    """
    points = points - points.mean(dim=0)  # smaller norms: less cancellation in the products below
    norms = points.square().sum(dim=1)
    chosen = [first_centre(points, seed)]
    bounds = _squared_distances(points, points[chosen]).squeeze(1)
    bounded = 1  # centres that `bounds` knows of
    while len(chosen) < count:
        if bounded < len(chosen):
            _lower(bounds, points, norms, points[chosen[bounded:]])
            bounded = len(chosen)
        bounds[chosen] = 0.0
        picked = _pick_from_pool(points, bounds, count - len(chosen))
        if not picked:
            break
        chosen.extend(picked)
        on_pick(len(chosen))
    return torch.tensor(chosen, dtype=torch.int64, device=points.device)


def _pick_from_pool(points: Tensor, bounds: Tensor, wanted: int) -> list[int]:
    """Picks that are certain with the bounds as they are; empty where every point coincides with a centre."""
    size = min(_POOL, len(points))
    exact, pool = torch.topk(bounds, size)
    floor = float(exact[-1]) if size < len(points) else 0.0
    members = points[pool]
    norms = members.square().sum(dim=1)
    picked: list[int] = []
    while len(picked) < wanted:
        farthest = int(exact.argmax())
        reach = float(exact[farthest])
        if reach <= 0.0 or (picked and reach < floor):
            break
        picked.append(int(pool[farthest]))
        centre = members[farthest]
        distance = norms + norms[farthest] - 2 * (members @ centre)
        torch.minimum(exact, distance.clamp_(min=0.0), out=exact)
        exact[farthest] = 0.0
    return picked


def _lower(bounds: Tensor, points: Tensor, norms: Tensor, centres: Tensor) -> None:
    """Bring bounds up to date with more centres, in blocks that stay in the cache."""
    for start in range(0, len(points), 4096):
        block = slice(start, start + 4096)
        products = points[block] @ centres.T
        nearest = (centres.square().sum(dim=1) - 2 * products).amin(dim=1) + norms[block]
        torch.minimum(bounds[block], nearest.clamp_(min=0.0), out=bounds[block])


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M) squared L2 distances."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


class StreamingCoreset:
    """Patches in, a coreset out, in memory bounded by a cap and not by the number of images.

    Patches gather in a buffer. Whenever it is full it is thinned by greedy selection to twice as many as are wanted in the
    end, so that every patch ever seen lies near one kept; the final selection is made from what is left. A selection from
    selections covers nearly as well as one from all (Malkomes et al., NeurIPS 2015), and more than twice the number gained
    nothing on real patches. Up to the cap nothing is thinned and the selection is the exact greedy one.
    """

    def __init__(self, channels: int, *, wanted: int, cap: int, seed: int, device: torch.device) -> None:
        """Make an empty coreset.

        Args:
            channels: of a patch.
            wanted: patches to be selected in the end, at most.
            cap: patches held at a time.
            seed: of projection and selection.
            device: where the buffer lies.
        """
        matrix = projection(channels, seed)
        self._matrix = None if matrix is None else matrix.to(device)
        self._cap = max(cap, 2)
        self._left = max(1, min(self._cap // 2, 2 * wanted))
        self._seed = seed
        self._parts: list[Tensor] = []
        self.held = 0  # patches in the buffer
        self.seen = 0

    def add(self, patches: Tensor) -> None:
        """Take patches (N, channels)."""
        self.seen += len(patches)
        for part in torch.split(patches, max(self._cap // 4, 1)):
            self._parts.append(part)
            self.held += len(part)
            if self.held > self._cap:
                self._keep(self._left)

    def select(self, count: int, *, on_pick: Callable[[int], None] = lambda _: None) -> Tensor:
        """(up to `count`, channels): the coreset."""
        return self._keep(min(count, self.held), on_pick=on_pick)

    def _keep(self, count: int, *, on_pick: Callable[[int], None] = lambda _: None) -> Tensor:
        buffer = torch.cat(self._parts)
        points = buffer if self._matrix is None else buffer @ self._matrix
        kept = buffer[greedy(points, count, seed=self._seed, on_pick=on_pick)]
        self._parts, self.held = [kept], len(kept)
        return kept
