"""Searching for neighbours in groups finds what a plain search finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.neighbours import GROUP, grouped, largest, nearest_distances


@given(rows=st.integers(1, 5), groups=st.integers(1, 6), count=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_largest_are_those_of_topk(rows: int, groups: int, count: int, seed: int) -> None:
    near = torch.randn(rows, groups * GROUP, generator=torch.Generator().manual_seed(seed))
    values, places = largest(near, count)
    wanted = near.topk(count, dim=1)
    assert torch.equal(values, wanted.values)
    assert torch.equal(near.gather(1, places), wanted.values)


def test_the_largest_may_all_be_in_one_group_or_each_in_another() -> None:
    near = torch.zeros(2, 5 * GROUP)
    near[0, 70:75] = torch.arange(1.0, 6.0)
    near[1, ::GROUP] = torch.arange(1.0, 6.0)
    values, places = largest(near, 5)
    assert places.tolist() == [[74, 73, 72, 71, 70], [4 * GROUP, 3 * GROUP, 2 * GROUP, GROUP, 0]]
    assert values.tolist() == [[5.0, 4.0, 3.0, 2.0, 1.0]] * 2


@pytest.mark.parametrize("size", [1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 7])
def test_rows_that_only_fill_a_group_never_match(size: int) -> None:
    bank = torch.full((size, 3), 50.0)
    found = nearest_distances(torch.zeros(4, 3), *grouped(bank), 1)  # the filling, at 0, would be at distance 0
    assert torch.allclose(found, torch.full((4, 1), 7500.0).sqrt())


def test_rows_that_may_not_match_do_not() -> None:
    bank = torch.tensor([[0.0], [1.0], [5.0]])
    kept = torch.tensor([False, True, True])
    assert nearest_distances(torch.tensor([[0.0]]), *grouped(bank, kept), 2).tolist() == [[1.0, 5.0]]
