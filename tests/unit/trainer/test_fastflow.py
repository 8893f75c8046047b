from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.memory_tiles import MemoryTiles, surfaces

from trainer import training
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.models.fastflow import ConvolutionalSubnet, FastFlow, FastFlowMethod, make_flows
from trainer.models.method import FitData, FitSettings


def gabor(*layers: str, channels: int = 3) -> Features:
    return load_features(
        "gabor", layers, weights=None, pixels=PixelSpec(channels=channels, bit_depth=8), weights_dir=None
    )


def fitted(features: Features, side: int = 64) -> FastFlow:
    stride = features.grid_stride
    channels = features.pixels.channels
    data = FitData(
        fit=MemoryTiles(surfaces(6, side)[..., :channels], stride),
        validation=MemoryTiles(surfaces(2, side, seed=1)[..., :channels], stride),
    )
    return FastFlowMethod().fit(features, data, FitSettings(seed=0, steps=4))


@pytest.fixture(scope="module")
def model() -> FastFlow:
    return fitted(gabor("layer2", "layer3"))


def test_the_map_is_minus_the_likelihood_averaged_over_layers_at_the_finest_grid(model: FastFlow) -> None:
    tiles = surfaces(2, seed=9)
    with torch.no_grad():
        found = model(tiles).numpy()
        layers = model.standard(model.features(tiles))
        latents = [flow([layer])[0][0].numpy() for flow, layer in zip(model.flows, layers, strict=True)]

    fine, coarse = (np.exp(-(latent**2).mean(axis=1) / 2) for latent in latents)
    rows = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low = np.floor(rows).astype(int)
    high, share = np.minimum(low + 1, 3), rows - low
    down = coarse[:, low] * (1 - share)[None, :, None] + coarse[:, high] * share[None, :, None]
    raised = down[:, :, low] * (1 - share) + down[:, :, high] * share
    np.testing.assert_allclose(found, -(fine + raised) / 2, rtol=1e-5, atol=1e-6)
    assert found.min() >= -1
    assert found.max() <= 0


def test_training_raises_the_likelihood_of_good_tiles_it_has_not_seen() -> None:
    features, stride = gabor("layer3"), 16
    data = FitData(fit=MemoryTiles(surfaces(16), stride), validation=MemoryTiles(surfaces(4, seed=1), stride))
    short, long = (FastFlowMethod().fit(features, data, FitSettings(seed=0, steps=steps)) for steps in (1, 40))

    def likelihood(model: FastFlow) -> float:
        with torch.no_grad():
            layer = model.standard(features(surfaces(8, seed=2)))[0]
            (latent,), (log_determinant,) = model.flows[0]([layer])
        return float((log_determinant - latent.square().sum(dim=1) / 2).mean())

    assert likelihood(long) > likelihood(short) + 1


def test_a_model_takes_tiles_of_any_size(model: FastFlow) -> None:
    with torch.no_grad():
        assert model(surfaces(1, 96)).shape == (1, 12, 12)


def test_a_cell_does_not_change_with_what_lies_beyond_its_sight() -> None:
    model = fitted(gabor("layer1"))
    tiles = surfaces(1, 192)
    spoilt = tiles.clone()
    spoilt[:, :16, :16] = 255
    with torch.no_grad():
        before, after = model(tiles), model(spoilt)

    assert not torch.allclose(before[0, 0, 0], after[0, 0, 0])
    torch.testing.assert_close(after[0, -8:, -8:], before[0, -8:, -8:], rtol=0, atol=1e-6)


def test_kernels_take_turns_in_wide_networks_only() -> None:
    def kernels(channels: tuple[int, ...]) -> set[int]:
        subnets = [part for part in make_flows(channels).modules() if isinstance(part, ConvolutionalSubnet)]
        return {subnet.layers[0].kernel_size[0] for subnet in subnets}  # type: ignore[union-attr, index]

    with torch.device("meta"):
        assert kernels((64, 128, 256)) == {3}
        assert kernels((256, 512, 1024)) == {1, 3}


def test_a_fit_that_is_broken_off_and_resumed_gives_the_model_of_an_unbroken_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of other sizes after the resumption: what is cached of a tile must not depend on them."""
    features = gabor("layer3")
    data = FitData(fit=MemoryTiles(surfaces(7), 16), validation=MemoryTiles(surfaces(2, seed=1), 16))
    settings = FitSettings(seed=0, steps=5, checkpoint=tmp_path / "x.checkpoint")
    expected = FastFlowMethod().fit(features, data, settings).state_dict()
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    check = training._check  # noqa: SLF001 - the one place that knows the step

    def cut(value: float, progress: Any, schedule: training.Schedule) -> None:  # noqa: ANN401
        check(value, progress, schedule)
        if progress.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_check", cut)
    with pytest.raises(KeyboardInterrupt):
        FastFlowMethod().fit(features, data, settings)
    monkeypatch.setattr(training, "_check", check)
    found = FastFlowMethod().fit(features, data, replace(settings, resume=True)).state_dict()

    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_grey_tiles_are_fitted_too() -> None:
    model = fitted(gabor("layer3", channels=1))

    with torch.no_grad():
        assert bool(torch.isfinite(model(surfaces(1)[..., :1])).all())
