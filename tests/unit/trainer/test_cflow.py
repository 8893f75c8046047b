import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.memory_tiles import MemoryTiles, surfaces

from edge_runtime.errors import DataError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.models.cflow import CFlow, CFlowMethod, encode_places, log_likelihood, log_likelihood_maps
from trainer.models.method import FitData, FitSettings

SETTINGS = FitSettings(seed=0, steps=3)


def gabor() -> Features:
    return load_features(
        "gabor", ("layer2", "layer3"), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )


def shares() -> FitData:
    return FitData(fit=MemoryTiles(surfaces(6), 8), validation=MemoryTiles(surfaces(5, seed=1), 8, batch=2))


@pytest.fixture(scope="module")
def model() -> CFlow:
    return CFlowMethod().fit(gabor(), shares(), SETTINGS)


def likelihoods(model: CFlow, tiles: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [part.numpy() for part in log_likelihood_maps(model.flows, model.standard(model.features(tiles)))]


def test_places_are_encoded_as_sines_and_cosines_of_column_and_row() -> None:
    found = encode_places(5, 7, torch.device("cpu")).reshape(5, 7, 128)

    for row, column, pair in ((0, 0, 0), (4, 6, 0), (3, 2, 9), (2, 5, 31)):
        rate = 10_000 ** (-2 * pair / 64)
        for place, first in ((column, 0), (row, 64)):
            expected = [math.sin(place * rate), math.cos(place * rate)]
            assert found[row, column, first + 2 * pair : first + 2 * pair + 2].tolist() == pytest.approx(
                expected, abs=1e-5
            )


def test_the_likelihood_is_that_of_the_latent_by_place_and_a_channels_share(model: CFlow) -> None:
    layer = model.standard(model.features(surfaces(1, seed=3)))[1]
    patch, place = layer[0, :, 2, 3].unsqueeze(0), encode_places(4, 4, layer.device)[2 * 4 + 3].unsqueeze(0)
    with torch.no_grad():
        (latent,), (log_determinant,) = model.flows[1]([patch], [place])
        found = log_likelihood(model.flows[1], patch, place)

    normal = torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum()
    torch.testing.assert_close(found[0], (normal + log_determinant[0]) / 39)
    assert float(found[0]) == pytest.approx(float(likelihoods(model, surfaces(1, seed=3))[1][0, 2, 3]), abs=1e-5)


def test_the_maxima_are_those_of_the_validation_share_and_in_the_state(model: CFlow) -> None:
    expected = [part.max() for part in likelihoods(model, surfaces(5, seed=1))]

    np.testing.assert_allclose(model.state_dict()["maxima"].numpy(), expected, rtol=1e-5)
    others = [part.max() for part in likelihoods(model, surfaces(6))]
    assert not np.allclose(others, expected, rtol=1e-5)


def test_maxima_take_cells_that_count_alone() -> None:
    kept = torch.zeros(5, 8, 8, dtype=torch.bool)
    kept[:, :4] = True
    data = shares()
    validation = MemoryTiles(surfaces(5, seed=1), 8, kept=kept)
    model = CFlowMethod().fit(gabor(), replace(data, validation=validation), SETTINGS)

    expected = [part[:, : part.shape[1] // 2].max() for part in likelihoods(model, surfaces(5, seed=1))]
    np.testing.assert_allclose(model.maxima.numpy(), expected, rtol=1e-5)


def test_the_map_sums_what_each_layers_likelihood_falls_short_of_the_stored_maximum(model: CFlow) -> None:
    tiles = surfaces(2, seed=3)
    parts = [
        np.exp(part - maximum) for part, maximum in zip(likelihoods(model, tiles), model.maxima.numpy(), strict=True)
    ]
    raised = torch.nn.functional.interpolate(torch.from_numpy(parts[1])[:, None], size=(8, 8), mode="bilinear")[:, 0]

    with torch.no_grad():
        np.testing.assert_allclose(model(tiles).numpy(), 2 - parts[0] - raised.numpy(), rtol=1e-4, atol=1e-5)


def test_a_better_tile_beside_it_does_not_change_a_tiles_map(model: CFlow) -> None:
    tile, other = surfaces(1, seed=3), surfaces(6)
    with torch.no_grad():
        alone, together = model(tile)[0], model(torch.cat([tile, other]))[0]

    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_without_a_validation_share_there_are_no_constants_and_no_model() -> None:
    with pytest.raises(DataError, match="validation"):
        CFlowMethod().fit(gabor(), replace(shares(), validation=None), SETTINGS)
