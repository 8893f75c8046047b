from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from support.good_images import gabor, images
from support.training import Tiles
from torch import Tensor
from torch.nn import functional

from trainer.backbones import Features
from trainer.models import spade
from trainer.models.method import FitData, FitSettings
from trainer.models.spade import NEIGHBOURS, SPADE, SPADEMethod

LAYERS = ("layer1", "layer2", "layer3")
SETTINGS = FitSettings(seed=0)


def fit(features: Features, good: Tensor, mask: Tensor | None = None) -> SPADE:
    tiles = Tiles(good, features.grid_stride, kept=None if mask is None else mask.expand(len(good), -1, -1))
    return SPADEMethod().fit(features, FitData(fit=tiles, validation=None), SETTINGS)


def score(model: SPADE, unseen: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    with torch.inference_mode():
        found, image_score = model(unseen)
    return found.numpy(), image_score.numpy()


def rows(layer: Tensor) -> NDArray[Any]:
    """(N, D, h, w) -> (N, P, D)."""
    flat: NDArray[Any] = layer.flatten(2).transpose(1, 2).numpy()
    return flat


def expected(features: Features, good: Tensor, unseen: Tensor, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The paper's two steps by sklearn: images first, then patches within those, layer by layer."""
    with torch.inference_mode():
        fitted, asked = features(good), features(unseen)
    images_index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(fitted[-1].mean(dim=(2, 3)).numpy())
    distances, near = images_index.kneighbors(asked[-1].mean(dim=(2, 3)).numpy())
    maps = []
    for image in range(len(unseen)):
        total = torch.zeros(1, 1, *asked[0].shape[-2:])
        for bank, layer in zip(fitted, asked, strict=True):
            patches = rows(bank)[near[image]].reshape(-1, layer.shape[1])
            index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(patches)
            found, _ = index.kneighbors(rows(layer)[image])
            part = torch.from_numpy(found.reshape(1, 1, *layer.shape[-2:])).to(torch.float32)
            total += functional.interpolate(part, size=total.shape[-2:], mode="bilinear", align_corners=False)
        maps.append(total[0, 0].numpy())
    return np.stack(maps), distances.mean(axis=1)


def test_map_and_score_are_what_sklearn_finds_in_the_50_nearest_of_60_images() -> None:
    features = gabor(*LAYERS)
    good, unseen = images(60, 0), images(3, 1)

    found, image_score = score(fit(features, good), unseen)
    wanted, wanted_score = expected(features, good, unseen, NEIGHBOURS)

    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(image_score, wanted_score, rtol=1e-4)


def test_the_nearest_images_decide_which_patches_may_match() -> None:
    features = gabor(*LAYERS)
    good, unseen = images(60, 0), images(3, 1)

    near, _ = expected(features, good, unseen, NEIGHBOURS)
    every, _ = expected(features, good, unseen, 60)

    assert (near > every * 1.0001).any()  # otherwise the test above would not see whether they do


def test_with_fewer_images_than_50_all_of_them_are_neighbours() -> None:
    features = gabor(*LAYERS)
    good, unseen = images(7, 0), images(2, 1)

    found, image_score = score(fit(features, good), unseen)
    wanted, wanted_score = expected(features, good, unseen, 7)

    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(image_score, wanted_score, rtol=1e-4)


@pytest.mark.parametrize("floats", [1, 500, 9000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, floats: int) -> None:
    features = gabor("layer2", "layer3")
    model, unseen = fit(features, images(12, 0)), images(2, 1)
    whole, _ = score(model, unseen)

    monkeypatch.setattr(spade, "BLOCK_FLOATS", floats)
    blocks, _ = score(model, unseen)

    np.testing.assert_allclose(blocks, whole, rtol=1e-5)


def test_a_cell_outside_the_valid_area_never_matches() -> None:
    features = gabor("layer2")
    good = images(5, 0)
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    found, _ = score(fit(features, good, left), good[:1])

    with torch.inference_mode():
        bank = features(good)[0][..., :2].permute(0, 2, 3, 1).reshape(-1, features.channels[0]).numpy()
        asked = rows(features(good[:1])[0])[0]
    wanted, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank).kneighbors(asked)
    np.testing.assert_allclose(found[0], wanted.reshape(4, 4), rtol=1e-4, atol=1e-4)
    assert found[0, :, :2].max() < 1e-3 < found[0, :, 2:].min()


def test_a_patch_of_the_bank_has_distance_zero_without_cancellation() -> None:
    features = gabor("layer2", "layer3")
    good = images(6, 0)

    assert score(fit(features, good), good[:2])[0].max() < 1e-4
