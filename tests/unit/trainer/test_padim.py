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
from trainer.models.method import FitSettings, TileBatch
from trainer.models.padim import REGULARISATION, Embedding, PaDiMMethod, shares

SETTINGS = FitSettings(seed=4)


@dataclass(frozen=True)
class Tiles:
    """Training tiles from memory."""

    pixels: Tensor
    batch: int

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
    model = PaDiMMethod().fit(network, Tiles(good, 4), SETTINGS)

    with torch.inference_mode():
        found = model(unseen).numpy()
        embedding = Embedding(network.channels, SETTINGS.seed)
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
        one = PaDiMMethod().fit(network, Tiles(good, 1), SETTINGS)(unseen)
        many = PaDiMMethod().fit(network, Tiles(good, 12), SETTINGS)(unseen)

    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4)


def test_mixing_before_interpolation_gives_what_mixing_after_it_gives() -> None:
    maps = [torch.rand(1, 64, 16, 16), torch.rand(1, 128, 8, 8), torch.rand(1, 256, 4, 4)]
    embedding = Embedding((64, 128, 256), seed=0)
    whole = [functional.interpolate(m, size=(16, 16), mode="bilinear", align_corners=False) for m in maps]

    expected = torch.cat(
        [functional.conv2d(m, embedding.get_buffer(f"mixing_{i}")) for i, m in enumerate(whole)], dim=1
    )

    torch.testing.assert_close(embedding(maps), expected)


def test_each_layers_mixing_is_semi_orthogonal_and_seeded() -> None:
    embedding, same, other = Embedding((64, 128), 0), Embedding((64, 128), 0), Embedding((64, 128), 1)
    matrix = embedding.get_buffer("mixing_1").flatten(1)

    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)))
    assert torch.equal(matrix, same.get_buffer("mixing_1").flatten(1))
    assert not torch.equal(matrix, other.get_buffer("mixing_1").flatten(1))


def test_layers_share_the_channels_in_proportion() -> None:
    assert shares((64, 128, 256)) == (14, 29, 57)
    assert shares((256, 512, 1024)) == (79, 157, 314)
    assert shares((30, 40)) == (30, 40)


def test_one_image_is_refused() -> None:
    with pytest.raises(DataError, match="needs 2 good images"):
        PaDiMMethod().fit(features(), Tiles(images(1, 0), 1), SETTINGS)
