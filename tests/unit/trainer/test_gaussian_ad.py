from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from support.good_images import RGB, gabor, images
from support.training import Tiles

from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models import gaussian_ad
from trainer.models.gaussian_ad import PAPER_LAYERS, GaussianADMethod, ledoit_wolf
from trainer.models.method import FeatureRequest, FitData, FitSettings

LAYERS = ("layer1", "layer2", "layer3")
SETTINGS = FitSettings(seed=0)


@pytest.mark.parametrize(("count", "channels"), [(5, 40), (30, 40), (500, 40), (50, 3)])
def test_the_shrunk_covariance_is_sklearns(count: int, channels: int) -> None:
    random = np.random.default_rng(0)
    samples = random.normal(size=(count, channels)) @ random.normal(size=(channels, channels)) + 3.0

    mean, covariance = ledoit_wolf(torch.from_numpy(samples))
    wanted = LedoitWolf().fit(samples)

    np.testing.assert_allclose(mean.numpy(), wanted.location_, rtol=1e-9)
    np.testing.assert_allclose(covariance.numpy(), wanted.covariance_, rtol=1e-9, atol=1e-12)


def test_the_score_is_the_sum_of_the_layers_mahalanobis_distances() -> None:
    features = gabor(*LAYERS)
    good, unseen = images(20, 0), images(4, 1)
    tiles = Tiles(good, features.grid_stride)
    model = GaussianADMethod().fit(features, FitData(fit=tiles, validation=None), SETTINGS)

    with torch.inference_mode():
        found_map, found = model(unseen)
        fitted = [layer.mean(dim=(2, 3)).double().numpy() for layer in features(good)]
        asked = [layer.mean(dim=(2, 3)).double().numpy() for layer in features(unseen)]
    for image in range(4):
        wanted = 0.0
        for bank, vectors in zip(fitted, asked, strict=True):
            estimate = LedoitWolf().fit(bank)
            wanted += mahalanobis(vectors[image], estimate.location_, np.linalg.inv(estimate.covariance_))
        assert float(found[image]) == pytest.approx(wanted, rel=1e-3)
        assert found_map[image].shape == tiles.grid
        assert (found_map[image] == found[image]).all()


def test_the_fit_does_not_depend_on_how_images_are_batched() -> None:
    features = gabor(*LAYERS)
    good, unseen = images(12, 2), images(2, 3)
    one, many = (
        GaussianADMethod().fit(
            features, FitData(fit=Tiles(good, features.grid_stride, batch), validation=None), SETTINGS
        )
        for batch in (1, 12)
    )

    with torch.inference_mode():
        torch.testing.assert_close(one(unseen), many(unseen), rtol=1e-3, atol=1e-3)


def test_two_images_are_refused() -> None:
    tiles = Tiles(images(2, 0), 4)
    with pytest.raises(DataError, match="needs 3 good images"):
        GaussianADMethod().fit(gabor(*LAYERS), FitData(fit=tiles, validation=None), SETTINGS)


def test_one_image_again_and_again_is_refused() -> None:
    tiles = Tiles(images(1, 0).repeat(8, 1, 1, 1), 4)
    with pytest.raises(DataError, match="do not vary"):
        GaussianADMethod().fit(gabor(*LAYERS), FitData(fit=tiles, validation=None), SETTINGS)


@pytest.mark.parametrize(
    ("file", "named", "backbone"),
    [
        ("tf_efficientnet_b4.aa_in1k.safetensors", False, "tf_efficientnet_b4.aa_in1k"),
        ("tf_efficientnet_b4.aa_in1k.safetensors", True, "resnet18.tv_in1k"),
        ("other.safetensors", False, "resnet18.tv_in1k"),
    ],
)
def test_the_papers_backbone_is_the_default_where_its_weights_are_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, *, named: bool, backbone: str
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def record(wanted: FeatureRequest, layers: tuple[str, ...]) -> Features:
        asked.append((wanted.backbone, layers))
        return gabor("layer1")

    monkeypatch.setattr(gaussian_ad, "backbone_features", record)
    (tmp_path / file).touch()
    GaussianADMethod().features(
        FeatureRequest(
            backbone="resnet18.tv_in1k",
            named=named,
            layers=None,
            weights=None,
            weights_dir=tmp_path,
            teacher=None,
            pixels=RGB,
        )
    )

    assert asked == [(backbone, PAPER_LAYERS if backbone.startswith("tf") else LAYERS)]
