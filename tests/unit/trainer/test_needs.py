"""What is said and refused before a fit: the line's numbers, and graphs that no bundle can hold."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from support.good_images import gabor, images
from support.training import Tiles
from torch import nn

from edge_runtime.bundle.archive import MAX_BYTES
from edge_runtime.errors import ConfigError
from trainer import devices
from trainer.devices import check_memory
from trainer.models.csflow import SCALES, CSFlowMethod
from trainer.models.draem import DRAEMMethod
from trainer.models.fastflow import FastFlowMethod
from trainer.models.method import FitData, FitSettings, Method, state_bytes
from trainer.models.padim import PaDiMMethod
from trainer.models.patchcore import PatchCore, PatchCoreMethod
from trainer.models.registry import METHODS
from trainer.models.spade import SPADEMethod
from trainer.needs import MAX_GRAPH_BYTES, Smaller, check_graph, told

SETTINGS = FitSettings(seed=0)
LAYERS = ("layer1", "layer2", "layer3")


@dataclass(frozen=True)
class ManyTiles(Tiles):
    """As many tiles as one says, without their pixels."""

    claimed: int = 0

    @property
    def count(self) -> int:
        """What one says."""
        return self.claimed


@dataclass(frozen=True)
class Sized(PatchCoreMethod):
    """PatchCore whose graph is as large as one says."""

    size: int = 0

    def stand_in(self, features: object, data: object, settings: object) -> PatchCore:  # noqa: ARG002
        """What one says, beside the features."""
        return cast("PatchCore", OfSize(cast("nn.Module", features), self.size))


class OfSize(nn.Module):
    """Features and so many bytes."""

    def __init__(self, features: nn.Module, size: int) -> None:
        """Both, the bytes without their memory."""
        super().__init__()
        self.features = features
        self.register_buffer("bank", torch.empty(size, dtype=torch.uint8, device="meta"))


class Paper(nn.Module):
    """As much of EfficientNet-B5 as CS-Flow's size depends on, without its numbers: 512 channels at three scales."""

    channels = (512,) * SCALES

    def __init__(self) -> None:
        """Its weights in one."""
        super().__init__()
        self.weights = nn.Parameter(torch.empty(109_827_928 // 4, device="meta"))


def shares(claimed: int = 4) -> FitData:
    return FitData(fit=ManyTiles(images(1, 0, side=256), 4, claimed=claimed), validation=None)


def test_the_line_tells_memory_two_graphs_and_one_in_two_digits() -> None:
    assert told(SPADEMethod(), memory=1_949_000_000, graph=312_000_000) == (
        "spade: the fit takes about 1.9 GB of memory; the bundle will be about 0.62 GB, the graph in use takes 0.31 GB at least"
    )
    assert told(Sized(), memory=12_300_000, graph=49_900_000) == (
        "patchcore: the fit takes about 12 MB of memory; the bundle will be about 0.10 GB, the graph in use takes 50 MB at least"
    )
    assert told(Sized(), memory=23_960_000_000, graph=10) == (
        "patchcore: the fit takes about 24 GB of memory; the bundle will be about 1 MB, the graph in use takes 1 MB at least"
    )


def test_the_graphs_size_has_the_features_weights_in_it() -> None:
    features = gabor(*LAYERS)
    held = state_bytes(features)

    assert held > 0
    assert check_graph(Sized(size=1000), features, shares(), SETTINGS) == held + 1000


def test_the_memory_that_was_checked_is_what_the_method_predicts() -> None:
    features, data = gabor("layer3"), shares()

    assert check_memory(PatchCoreMethod(), features, data, SETTINGS) == PatchCoreMethod().predict_bytes(
        features, data, SETTINGS
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_graph_that_no_bundle_holds_is_refused_for_every_method_with_its_size_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    features = gabor(*LAYERS)
    size = MAX_GRAPH_BYTES - state_bytes(features)
    monkeypatch.setattr(type(method), "stand_in", lambda *_: OfSize(features, size))
    assert check_graph(method, features, shares(), SETTINGS) == MAX_GRAPH_BYTES

    monkeypatch.setattr(type(method), "stand_in", lambda *_: OfSize(features, size + 340_000_000))
    with pytest.raises(ConfigError) as refused:
        check_graph(method, features, shares(), SETTINGS)

    said = str(refused.value)
    assert f"--method {method.name}: the graph of this fit would take 2.32 GB, a bundle holds graphs of 1.98 GB" in said
    for flag in ("layers", "backbone", "coreset", "width"):
        assert (f"--{flag}" in said) == (flag in method.settings)


def test_two_graphs_of_the_largest_size_leave_room_in_a_bundle() -> None:
    assert 2 * MAX_GRAPH_BYTES < 0.995 * MAX_BYTES
    assert MAX_GRAPH_BYTES < 0.95 * 2**31  # what a protobuf message may take


def test_a_frame_graph_halves_what_each_may_take() -> None:
    features, data = gabor(*LAYERS), shares()
    method = Sized(size=MAX_GRAPH_BYTES // 2 - state_bytes(features))

    assert check_graph(method, features, data, SETTINGS, graphs=2) == MAX_GRAPH_BYTES // 2
    with pytest.raises(ConfigError, match=r"a bundle holds graphs of 0\.99 GB where there are two"):
        check_graph(replace(method, size=method.size + 1), features, data, SETTINGS, graphs=2)


def padim_tiles(share: float = 1.0) -> FitData:
    """So many tiles of 64 x 64 places, with a halo that must not count."""
    tiles = replace(ManyTiles(images(1, 0, side=512), 4, claimed=4), places=round(share**2 * 100), margin=32)
    return FitData(fit=tiles, validation=None)


def scales(scale: float) -> Smaller:
    """Tiles at ever smaller scales, from one on."""
    return Smaller(
        "--scale", lambda: ((f"--scale {scale * step / 20:.3g}", padim_tiles(step / 20)) for step in range(19, 0, -1))
    )


def test_padim_in_too_many_tiles_is_refused_with_its_size_and_the_nearest_scale_that_fits() -> None:
    features, method = gabor(*LAYERS), PaDiMMethod()
    at = scales(0.5)

    with pytest.raises(ConfigError, match=r"would take 16\.55 GB, .*--scale 0\.15 would fit; .*a smaller --scale"):
        check_graph(method, features, padim_tiles(), SETTINGS, smaller=at)
    assert check_graph(method, features, padim_tiles(0.3), SETTINGS, smaller=at) < MAX_GRAPH_BYTES
    with pytest.raises(ConfigError):
        check_graph(method, features, padim_tiles(0.35), SETTINGS, smaller=at)


def test_memory_that_is_not_there_is_refused_with_the_nearest_scale_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "free_bytes", lambda *_: 4.6e9)
    at = scales(1.0)

    with pytest.raises(ConfigError, match=r"padim needs .* GiB for this fit, .*--scale 0\.3 would fit; else lower"):
        check_memory(PaDiMMethod(), gabor(*LAYERS), padim_tiles(), SETTINGS, smaller=at)


def test_spades_banks_grow_with_the_images_until_they_are_refused() -> None:
    features = gabor(*LAYERS)

    assert check_graph(SPADEMethod(), features, shares(1000), SETTINGS) > 0
    with pytest.raises(ConfigError, match=r"spade: .* fewer images \(--limit\)"):
        check_graph(SPADEMethod(), features, shares(10_000), SETTINGS)


def test_cs_flow_on_the_papers_backbone_is_just_taken() -> None:
    size = check_graph(CSFlowMethod(), Paper(), shares(), SETTINGS)  # type: ignore[arg-type]

    assert 1_960_000_000 < size < MAX_GRAPH_BYTES


def test_networks_are_counted_without_being_drawn() -> None:
    features = SimpleNamespace(channels=(64, 128, 256))
    before = torch.random.get_rng_state()
    wide = state_bytes(DRAEMMethod().stand_in(features, shares(), SETTINGS))  # type: ignore[arg-type]
    narrow = state_bytes(DRAEMMethod().stand_in(features, shares(), replace(SETTINGS, width=0.25)))  # type: ignore[arg-type]
    FastFlowMethod().stand_in(features, shares(), SETTINGS)  # type: ignore[arg-type]

    assert torch.equal(torch.random.get_rng_state(), before)
    assert wide == pytest.approx(16 * narrow, rel=0.01)
