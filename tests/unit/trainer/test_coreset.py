from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances_argmin_min

from trainer.bench.coreset import plain, radius
from trainer.models.coreset import StreamingCoreset, first_centre, greedy, projection

CPU = torch.device("cpu")


def clustered(count: int, channels: int = 16, seed: int = 0) -> torch.Tensor:
    """Points in a few tight clusters and some far away: bounds go stale at different speeds."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, channels)) * 5
    points = centres[random.integers(12, size=count)] + random.normal(size=(count, channels))
    points[:20] += 30 * random.normal(size=(20, channels))
    return torch.tensor(points, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 50])
def test_lazy_selection_makes_exactly_the_picks_of_the_plain_loop(seed: int, count: int) -> None:
    points = clustered(9000, seed=seed)  # more than one pool

    assert greedy(points, count, seed=seed).tolist() == plain(points, count, seed=seed).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_after_many_picks_lazy_selection_covers_as_well_as_the_plain_loop(seed: int) -> None:
    """Points as far away as each other to the last bit may swap places; the radius must not change."""
    points = clustered(9000, seed=seed)

    lazy, loop = greedy(points, 600, seed=seed), plain(points, 600, seed=seed)

    assert radius(points, lazy) == pytest.approx(radius(points, loop), rel=1e-4)


def test_every_point_may_be_selected_and_none_twice() -> None:
    points = clustered(300)

    assert sorted(greedy(points, 300, seed=0).tolist()) == list(range(300))


def test_selection_stops_when_all_further_points_coincide_with_one_selected() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).repeat(50, 1)

    assert len(greedy(points, 10, seed=0)) == 2


def test_the_covering_radius_is_the_largest_distance_to_the_nearest_centre() -> None:
    points = clustered(2000)
    chosen = greedy(points, 60, seed=1)

    _, distances = pairwise_distances_argmin_min(points.numpy(), points[chosen].numpy())

    assert radius(points, chosen) == pytest.approx(distances.max(), rel=1e-4)


def test_selection_starts_at_the_point_farthest_from_ten_drawn_ones() -> None:
    points = clustered(500)
    points[123] = 1000.0

    assert first_centre(points, seed=3) == 123


def test_few_channels_are_not_projected_and_many_keep_their_distances_roughly() -> None:
    assert projection(128, seed=0) is None
    matrix = projection(512, seed=0)
    assert matrix is not None
    points = torch.randn(200, 512, generator=torch.Generator().manual_seed(1))

    ratio = torch.pdist(points @ matrix) / torch.pdist(points)

    assert 0.9 < float(ratio.mean()) < 1.1
    assert float(ratio.std()) < 0.1


def test_up_to_its_cap_streaming_selects_what_one_exact_selection_does() -> None:
    points = clustered(3000)
    coreset = StreamingCoreset(16, wanted=200, cap=3000, seed=5, device=CPU)
    for part in points.split(170):
        coreset.add(part)

    assert torch.equal(coreset.select(200), points[greedy(points, 200, seed=5)])
    assert coreset.seen == 3000


@pytest.mark.parametrize(("wanted", "cap"), [(300, 2000), (300, 400), (50, 6000)])
def test_beyond_its_cap_streaming_never_holds_more_and_still_covers_every_patch(wanted: int, cap: int) -> None:
    points = clustered(12000)
    coreset = StreamingCoreset(16, wanted=wanted, cap=cap, seed=0, device=CPU)
    held = []
    for part in points.split(100):
        coreset.add(part)
        held.append(coreset.held)
    bank = coreset.select(wanted)

    exact = points[greedy(points, wanted, seed=0)]
    streamed = max(float(torch.cdist(block, bank).amin(dim=1).max()) for block in points.split(4000))
    best = max(float(torch.cdist(block, exact).amin(dim=1).max()) for block in points.split(4000))

    assert max(held) <= cap
    assert any(before > after for before, after in pairwise(held))
    assert min(held[cap // 100 :]) <= 2 * wanted + 100  # no more than that is selected while patches come
    assert coreset.seen == 12000
    assert min(wanted, cap // 2) <= len(bank) <= wanted
    assert streamed <= 2 * best  # thinning adds at most its own covering radius
