from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor
from torch.nn import functional

from edge_runtime.errors import DataError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.models.method import FitData, FitSettings, TileBatch
from trainer.models.padim import REGULARISATION, Embedding, PaDiMMethod, spreads

SETTINGS = FitSettings(seed=4)


@dataclass(frozen=True)
class Tiles:
    """Training tiles from memory."""

    pixels: Tensor
    batch: int
    places: int = 1
    margin: int = 0

    def __iter__(self) -> Iterator[TileBatch]:
        for part in self.pixels.split(self.batch):
            yield TileBatch(part, torch.ones(len(part), *self.grid, dtype=torch.bool))

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in cells."""
        return 4, 4

    @property
    def cells(self) -> int:
        """All of them count."""
        return len(self.pixels) * 16


def features() -> Features:
    return load_features(
        "gabor",
        ("layer1", "layer2", "layer3"),
        weights=None,
        pixels=PixelSpec(channels=3, bit_depth=8),
        weights_dir=None,
    )


def images(count: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_map_is_the_mahalanobis_distance_at_each_place() -> None:
    good, unseen = images(25, 0), images(2, 1)
    network = features()
    model = PaDiMMethod().fit(network, FitData(fit=Tiles(good, 4), validation=None), SETTINGS)

    with torch.inference_mode():
        found = model(unseen).numpy()
        embedding = Embedding(spreads(network, Tiles(good, 4)), SETTINGS.seed)
        fitted = embedding(network(good)).double().numpy()  # (N, D, h, w)
        patches = embedding(network(unseen)).double().numpy()
    for row, column in ((0, 0), (1, 2), (3, 3)):
        here = fitted[:, :, row, column]
        inverse = np.linalg.inv(np.cov(here, rowvar=False) + REGULARISATION * np.eye(here.shape[1]))
        for image in range(2):
            expected = mahalanobis(patches[image, :, row, column], here.mean(axis=0), inverse)
            assert found[image, row, column] == pytest.approx(expected, rel=1e-3)


def test_the_fit_does_not_depend_on_how_images_are_batched() -> None:
    good, unseen = images(12, 2), images(2, 3)
    network = features()

    with torch.inference_mode():
        one = PaDiMMethod().fit(network, FitData(fit=Tiles(good, 1), validation=None), SETTINGS)(unseen)
        many = PaDiMMethod().fit(network, FitData(fit=Tiles(good, 12), validation=None), SETTINGS)(unseen)

    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4)


def test_mixing_before_interpolation_gives_what_mixing_after_it_gives() -> None:
    maps = [torch.rand(1, 64, 16, 16), torch.rand(1, 128, 8, 8), torch.rand(1, 256, 4, 4)]
    embedding = Embedding([torch.rand(64), torch.rand(128), torch.rand(256)], seed=0)
    whole = [functional.interpolate(m, size=(16, 16), mode="bilinear", align_corners=False) for m in maps]

    expected = functional.conv2d(
        torch.cat(whole, dim=1), torch.cat([embedding.get_buffer(f"mixing_{i}") for i in range(3)], dim=1)
    )

    torch.testing.assert_close(embedding(maps), expected)


def test_mixing_is_semi_orthogonal_for_channels_of_like_spread_and_seeded() -> None:
    even = [torch.ones(64), torch.ones(128)]
    first, same, other = (
        torch.cat([embedding.get_buffer(f"mixing_{i}").flatten(1) for i in range(2)], dim=1)
        for embedding in (Embedding(even, 0), Embedding(even, 0), Embedding(even, 1))
    )

    assert first.shape == (100, 192)
    torch.testing.assert_close(first @ first.T, torch.eye(100))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_loud_channel_is_turned_down_by_the_root_and_a_dead_one_is_not_raised_without_end() -> None:
    spread = torch.ones(200)
    spread[0], spread[1] = 4.0, 0.0
    plain = Embedding([torch.ones(200)], 0).get_buffer("mixing_0").flatten(1)
    scaled = Embedding([spread], 0).get_buffer("mixing_0").flatten(1)
    gain = (scaled / plain)[0] / (scaled / plain)[0, 2]

    assert float(gain[0]) == pytest.approx(0.5, rel=1e-4)
    assert float(gain[1]) == pytest.approx((1 / (0.1 * float(spread.mean()))) ** 0.5, rel=1e-4)


def test_wide_networks_keep_550_channels_and_narrow_ones_all() -> None:
    assert Embedding([torch.ones(1792)], 0).kept == 550
    assert Embedding([torch.ones(448)], 0).kept == 100
    assert Embedding([torch.ones(70)], 0).kept == 70


def test_the_spread_is_the_deviation_between_parts_at_one_place() -> None:
    good = images(9, 5)
    network = features()
    with torch.inference_mode():
        found = spreads(network, Tiles(good, 4))
        maps = network(good)

    for spread, layer in zip(found, maps, strict=True):
        expected = layer.double().var(dim=0).mean(dim=(1, 2)).sqrt()
        torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-6)


def test_one_image_is_refused() -> None:
    with pytest.raises(DataError, match="needs 2 good images"):
        PaDiMMethod().fit(features(), FitData(fit=Tiles(images(1, 0), 1), validation=None), SETTINGS)
