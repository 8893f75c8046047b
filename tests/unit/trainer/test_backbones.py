from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from edge_runtime.errors import ConfigError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.backbones.weights import RANDOM

RGB = PixelSpec(channels=3, bit_depth=8)
LAYERS = ("layer1", "layer2")


def resnet(weights: str | None, folder: Path | None = None, layers: tuple[str, ...] = LAYERS) -> Features:
    return load_features("resnet18.tv_in1k", layers, weights=weights, pixels=RGB, weights_dir=folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of layers 1 to 3 as a file, from a randomly initialised network."""
    folder = tmp_path_factory.mktemp("weights")
    state = resnet(RANDOM, layers=("layer1", "layer2", "layer3")).network.cut.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "resnet18.tv_in1k.safetensors")
    return folder


def test_weights_come_from_the_explicit_file_before_the_folder(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "resnet18.tv_in1k.safetensors")
    state["conv1.weight"] = state["conv1.weight"] + 1
    other = tmp_path / "other.safetensors"
    save_file(state, other)

    from_folder, from_file = resnet(None, saved), resnet(str(other), saved)

    assert torch.equal(from_file.network.cut.conv1.weight, from_folder.network.cut.conv1.weight + 1)
    assert (from_file.origin.source, from_folder.origin.source) == ("other.safetensors", "resnet18.tv_in1k.safetensors")
    assert from_file.origin.digest != from_folder.origin.digest


def test_a_file_may_hold_more_layers_than_are_used_but_not_fewer(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "resnet18.tv_in1k.safetensors")
    short = tmp_path / "short.safetensors"
    save_file({key: value for key, value in state.items() if not key.startswith("layer3.1")}, short)

    resnet(str(short))  # uses layers 1 and 2

    with pytest.raises(ConfigError, match=r"lacks layer3\.1"):
        resnet(str(short), layers=("layer3",))


def test_weights_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "resnet18.tv_in1k.safetensors")
    state["conv1.weight"] = state["conv1.weight"][:, :1].contiguous()
    wrong = tmp_path / "wrong.safetensors"
    save_file(state, wrong)

    with pytest.raises(ConfigError, match="another shape"):
        resnet(str(wrong))


def test_pth_files_are_read_without_unpickling_objects(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "resnet18.tv_in1k.safetensors")
    torch.save(state, tmp_path / "good.pth")
    torch.save({"state_dict": state, "extra": Path("x")}, tmp_path / "objects.pth")

    assert torch.equal(resnet(str(tmp_path / "good.pth")).network.cut.conv1.weight, state["conv1.weight"])
    with pytest.raises(ConfigError, match="more than tensors"):
        resnet(str(tmp_path / "objects.pth"))


def test_damaged_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")

    with pytest.raises(ConfigError, match=r"broken\.safetensors"):
        resnet(str(broken))
    with pytest.raises(ConfigError, match="no such file"):
        resnet(str(tmp_path / "absent.safetensors"))


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [("resnet18.tv_in1k", ("layer9",)), ("resnet18.tv_in1k", ("layer2", "layer1")), ("gabor", ("layer2", "layer1"))],
)
def test_unknown_or_disordered_layers_are_refused(backbone: str, layers: tuple[str, ...]) -> None:
    weights = None if backbone == "gabor" else RANDOM
    with pytest.raises(ConfigError, match="--layers"):
        load_features(backbone, layers, weights=weights, pixels=RGB, weights_dir=None)


def test_any_module_of_a_network_is_a_layer() -> None:
    layers = ("bn1", "layer2.0.conv1", "layer2.1")
    features = load_features("resnet18", layers, weights=RANDOM, pixels=RGB, weights_dir=None)
    whole = timm.create_model("resnet18", pretrained=False).eval()
    state = features.network.cut.state_dict()
    whole.load_state_dict({key: state.get(key, value) for key, value in whole.state_dict().items()})
    seen: list[torch.Tensor] = []
    for layer in layers:
        whole.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        whole(images)
        for found, expected in zip(features.network(images), seen, strict=True):
            torch.testing.assert_close(found, expected)
    assert (features.strides, features.channels) == ((2, 8, 8), (64, 128, 128))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("blocks.9",), "has no blocks.9: its stages are act1, layer1"),
        (("layer2.0", "layer2.0"), "gives each layer once"),
        (("fc",), "no feature map"),
    ],
)
def test_modules_that_are_no_layers_are_refused(layers: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_features("resnet18", layers, weights=RANDOM, pixels=RGB, weights_dir=None)


def test_a_backbone_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="--backbone no_such_net"):
        load_features("no_such_net", LAYERS, weights=RANDOM, pixels=RGB, weights_dir=None)


def test_random_weights_say_so() -> None:
    assert resnet(RANDOM).origin.random


@pytest.mark.parametrize("backbone", ["gabor", "resnet18.tv_in1k"])
def test_maps_have_the_strides_and_channels_that_they_claim(backbone: str) -> None:
    layers = ("layer1", "layer2", "layer3")
    weights = None if backbone == "gabor" else RANDOM
    features = load_features(backbone, layers, weights=weights, pixels=RGB, weights_dir=None)

    maps = features(torch.zeros(2, 64, 96, 3, dtype=torch.uint8))

    assert features.strides == (4, 8, 16)
    shapes = [tuple(layer.shape) for layer in maps]
    assert shapes == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(features.channels, features.strides, strict=True)
    ]


def test_the_network_sees_scaled_and_normalised_rgb(saved: Path) -> None:
    features = resnet(None, saved)
    tiles = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    by_hand = (tiles.permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)

    with torch.inference_mode():
        for found, expected in zip(features(tiles), features.network.cut(by_hand), strict=True):
            torch.testing.assert_close(found, expected)


def test_sixteen_bit_tiles_of_the_same_light_give_the_same_features(saved: Path) -> None:
    eight = resnet(None, saved)
    twelve = load_features(
        "resnet18.tv_in1k", LAYERS, weights=None, pixels=PixelSpec(channels=3, bit_depth=12), weights_dir=saved
    )
    levels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    low = torch.from_numpy(levels.astype(np.uint8))
    high = torch.from_numpy(np.round(levels * (4095 / 255)).astype(np.uint16))

    with torch.inference_mode():
        for a, b in zip(eight(low), twelve(high), strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.05)


def test_grey_tiles_are_seen_as_rgb_of_equal_channels(saved: Path) -> None:
    grey = load_features(
        "resnet18.tv_in1k", LAYERS, weights=None, pixels=PixelSpec(channels=1, bit_depth=8), weights_dir=saved
    )
    tiles = torch.randint(0, 256, (1, 32, 32, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        for a, b in zip(grey(tiles), resnet(None, saved)(tiles.repeat(1, 1, 1, 3)), strict=True):
            torch.testing.assert_close(a, b)


def test_gabor_answers_to_its_own_orientation_and_not_to_plain_brightness() -> None:
    features = load_features("gabor", ("layer1",), weights=None, pixels=RGB, weights_dir=None)
    x = torch.arange(64).view(1, 1, 64, 1).expand(1, 64, 64, 3)
    stripes = (127.5 + 100 * torch.sin(2 * torch.pi * x / 8)).to(torch.uint8)  # the second octave's wavelength
    plain = torch.full_like(stripes, 128)

    with torch.inference_mode():
        striped, flat = features(stripes)[0], features(plain)[0]
    luminance = slice(18, 24)  # six orientations of the second octave
    answer = (striped - flat)[0, luminance].mean(dim=(1, 2))

    assert int(answer.argmax()) == 0  # waves along x
    assert float(answer[0]) > 10 * abs(float(answer[3]))
