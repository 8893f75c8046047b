from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from edge_runtime.errors import DataError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.models.frozen import FeatureCache, Standardise, kept_at, mean_over, standardise
from trainer.models.method import TileBatch


def gabor() -> Features:
    return load_features(
        "gabor", ("layer1", "layer3"), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )


def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


class Counting(nn.Module):
    """Features that count the tiles that they saw."""

    def __init__(self) -> None:
        """None yet."""
        super().__init__()
        self.inner = gabor()
        self.seen = 0

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """As the inner ones."""
        self.seen += len(tiles)
        maps: list[Tensor] = self.inner(tiles)
        return maps


def test_a_cache_gives_what_the_network_gives_and_asks_it_once() -> None:
    features, tiles = Counting(), noise(3)
    cache = FeatureCache(features, 10**9)  # type: ignore[arg-type]

    first = cache.maps(tiles)
    again = cache.maps(tiles.flip(0))

    assert features.seen == 3
    for layer, other, whole in zip(first, again, gabor()(tiles), strict=True):
        assert torch.equal(layer, other.flip(0))
        torch.testing.assert_close(layer, whole)


def test_a_cache_holds_no_more_than_its_limit_and_gives_the_same_bits_all_the_same() -> None:
    features, tiles = Counting(), noise(4)
    one_tile = sum(layer[:1].numel() * 4 for layer in gabor()(tiles))
    small, large = FeatureCache(features, 2 * one_tile), FeatureCache(gabor(), 10**9)  # type: ignore[arg-type]

    for _ in range(2):
        pairs = zip(small.maps(tiles), large.maps(tiles), strict=True)
        assert all(torch.equal(layer, other) for layer, other in pairs)

    assert features.seen == 4 + 2


def batches(tiles: Tensor, kept: Tensor) -> Iterator[TileBatch]:
    for part, mask in zip(tiles.split(2), kept.split(2), strict=True):
        yield TileBatch(part, mask)


def test_standardised_channels_have_mean_0_and_deviation_1_over_the_cells_that_count() -> None:
    tiles, kept = noise(5), torch.zeros(5, 8, 8, dtype=torch.bool)
    kept[:, :4, 1:7] = True
    cache = FeatureCache(gabor(), 10**9)

    standard = standardise(cache, batches(tiles, kept))

    for layer in standard(cache.maps(tiles)):
        cells = layer.permute(0, 2, 3, 1)[kept_at(kept, layer)].double()
        torch.testing.assert_close(cells.mean(dim=0), torch.zeros(39).double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(cells.std(dim=0, correction=0), torch.ones(39).double(), atol=1e-3, rtol=0)


def test_a_channel_that_is_silent_is_not_blown_up() -> None:
    standard = Standardise([torch.zeros(4)], [torch.tensor([0.0, 1.0, 1.0, 2.0])])

    (found,) = standard([torch.full((1, 4, 1, 1), 0.5)])

    torch.testing.assert_close(found.flatten(), torch.tensor([5.0, 0.5, 0.5, 0.25]))


def test_without_a_cell_or_without_contrast_nothing_is_fitted() -> None:
    cache = FeatureCache(gabor(), 0)
    with pytest.raises(DataError, match="do not vary"):
        standardise(cache, batches(torch.full((2, 32, 32, 3), 9, dtype=torch.uint8), torch.ones(2, 8, 8).bool()))
    with pytest.raises(DataError, match=r"do not vary|no tile"):
        standardise(cache, iter(()))


def test_a_coarse_cell_counts_where_any_of_its_fine_cells_does() -> None:
    kept = torch.zeros(1, 8, 8, dtype=torch.bool)
    kept[0, 0, 3] = kept[0, 7, 7] = True

    found = kept_at(kept, torch.zeros(1, 5, 2, 2))

    assert found.tolist() == [[[True, False], [False, True]]]
    assert kept_at(kept, torch.zeros(1, 5, 8, 8)) is kept
    values = torch.tensor([[[1.0, 50.0], [70.0, 3.0]]])
    assert float(mean_over(values, found)) == 2.0
