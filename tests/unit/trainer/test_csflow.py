from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.memory_tiles import MemoryTiles, surfaces

from edge_runtime.errors import ConfigError
from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.models.csflow import KERNELS, PAPER_BACKBONES, CrossScaleSubnet, CSFlow, CSFlowMethod, make_flow
from trainer.models.method import FeatureRequest, FitData, FitSettings

WANTED = FeatureRequest(
    backbone="gabor",
    named=True,
    layers=None,
    weights=None,
    weights_dir=None,
    teacher=None,
    pixels=PixelSpec(channels=3, bit_depth=8),
)


@pytest.fixture(scope="module")
def model() -> CSFlow:
    data = FitData(fit=MemoryTiles(surfaces(6), 16), validation=MemoryTiles(surfaces(2, seed=1), 16))
    return CSFlowMethod().fit(CSFlowMethod().features(WANTED), data, FitSettings(seed=0, steps=2))


def test_the_scales_are_the_tile_at_its_own_half_and_quarter_size() -> None:
    features = CSFlowMethod().features(WANTED)
    single = load_features("gabor", ("layer3",), weights=None, pixels=WANTED.pixels, weights_dir=None)
    tiles = surfaces(1, 128)
    with torch.no_grad():
        found = features(tiles)

        for scale, layer in enumerate(found):
            side = 128 // 2**scale
            image = tiles[0].numpy().astype(np.float32) / 255
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            expected = single.network(torch.from_numpy(small).permute(2, 0, 1).unsqueeze(0))[0]
            torch.testing.assert_close(layer, expected, rtol=1e-4, atol=1e-3)
    assert features.strides == (16, 32, 64)
    assert (features.grid_stride, features.input_stride) == (16, 64)


def test_map_and_score_are_means_of_the_latents_squares(model: CSFlow) -> None:
    tiles = surfaces(2, seed=5)
    with torch.no_grad():
        found, scores = model(tiles)
        latent = [part.numpy() for part in model.flow(model.standard(model.features(tiles)))[0]]

    everything = np.concatenate([part.reshape(2, -1) for part in latent], axis=1)
    np.testing.assert_allclose(scores.numpy(), (everything**2).mean(axis=1), rtol=1e-4)
    fine, half, quarter = ((part**2).mean(axis=1) for part in latent)
    assert fine.shape == (2, 4, 4)
    rows = np.array([0, 0.25, 0.75, 1])  # of four cells over two, bilinear
    raised = np.einsum("bij,ri,cj->brc", half, *[np.stack([1 - rows, rows], axis=1)] * 2)
    np.testing.assert_allclose(found.numpy(), (fine + raised + quarter) / 3, rtol=1e-4)


def test_a_scale_hears_from_its_neighbours_and_from_no_other() -> None:
    torch.manual_seed(0)
    subnet = CrossScaleSubnet(4, 3)
    torch.nn.init.ones_(subnet.gain)
    maps = [torch.randn(1, 2, side, side, requires_grad=True) for side in (4, 2, 1)]

    heard = []
    for scale in range(3):
        gradients = torch.autograd.grad(subnet(maps)[scale].sum(), maps, allow_unused=True)
        heard.append([gradient is not None and bool(gradient.any()) for gradient in gradients])

    assert heard == [[True, True, False], [True, True, True], [False, True, True]]


def test_the_flow_has_the_papers_blocks_and_begins_as_the_identity_but_for_the_order_of_channels() -> None:
    flow = make_flow(6)
    subnets = [part for part in flow.modules() if isinstance(part, CrossScaleSubnet)]
    maps = [torch.randn(1, 6, side, side) for side in (4, 2, 1)]
    latent, log_determinants = flow(maps)

    assert [subnet.own[0].kernel_size[0] for subnet in subnets] == [kernel for kernel in KERNELS for _ in range(2)]  # type: ignore[union-attr, index]
    assert all(subnet.first[0].out_channels == 1024 for subnet in subnets)
    for part, before, determinant in zip(latent, maps, log_determinants, strict=True):
        torch.testing.assert_close(part.sort(dim=1).values, before.sort(dim=1).values)
        assert float(determinant.detach().abs().max()) == 0


def test_more_than_one_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes one layer"):
        CSFlowMethod().features(replace(WANTED, layers=("layer2", "layer3")))


def test_the_papers_network_serves_at_its_last_stage() -> None:
    wanted = replace(WANTED, backbone="tf_efficientnet_b5", weights="random")

    features = CSFlowMethod().features(wanted)

    assert features.channels == (512, 512, 512)
    assert features.strides == (32, 64, 128)


def test_the_papers_network_is_the_default_where_its_weights_are_at_hand(tmp_path: Path) -> None:
    (tmp_path / f"{PAPER_BACKBONES[0]}.safetensors").write_bytes(b"no weights")
    wanted = replace(WANTED, named=False, backbone="resnet18.tv_in1k", weights_dir=tmp_path)

    with pytest.raises(ConfigError, match=PAPER_BACKBONES[0]):  # found, and refused for what it holds
        CSFlowMethod().features(wanted)
