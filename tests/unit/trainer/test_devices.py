"""How large a batch `--batch auto` takes: what is predicted, what a GPU has room for, and what all processes can."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from support.memory_tiles import MemoryTiles, surfaces
from torch import nn

from edge_runtime.errors import ConfigError, DataError
from trainer import devices
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.devices import MAX_BATCH, check_memory, choose_device, largest_batch, network_bytes, tried
from trainer.models.fastflow import FastFlowMethod
from trainer.models.method import FitData, FitSettings
from trainer.processes import Processes

SETTINGS = FitSettings(seed=0)


def gabor() -> Features:
    return load_features(
        "gabor", ("layer3",), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )


@dataclass(frozen=True)
class Sized(FastFlowMethod):
    """FastFlow with a memory of its own: so many bytes a tile of the batch, and a GPU that holds so many tiles."""

    a_tile: int = 1
    holds: int = 1 << 30
    tries: list[tuple[int, int, int | None]] = field(default_factory=list)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:  # noqa: ARG002
        """By the batch alone."""
        return self.a_tile * data.fit.batch

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> nn.Module:  # type: ignore[override]  # noqa: ARG002
        """Note what was tried; too many tiles are too many."""
        self.tries.append((data.fit.batch, data.fit.count, settings.steps))
        if data.fit.batch > self.holds:
            raise torch.OutOfMemoryError
        return nn.Identity()


def shares(batch: int, images: int | None, count: int = 100) -> FitData:
    """A tile an image."""
    return FitData(fit=MemoryTiles(surfaces(count, 16)[:images], 16, batch=batch), validation=None)


def free(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    """So much memory is free for a fit, and the network takes none of it."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=amount / 0.9 + 1e-3))
    monkeypatch.setattr(devices, "network_bytes", lambda *_: 0)


@pytest.mark.parametrize(
    ("room", "count", "expected"),
    [
        (1e9, 100, 64),
        (1e9, 63, 32),
        (1e9, 3, 2),
        (1e9, 1, 1),
        (800, 100, 8),
        (1599, 100, 8),
        (1600, 100, 16),
        (1, 100, 1),
    ],
)
def test_the_batch_is_the_largest_power_of_two_that_memory_and_tiles_allow(
    monkeypatch: pytest.MonkeyPatch, room: float, count: int, expected: int
) -> None:
    free(monkeypatch, room)
    method = Sized(a_tile=100)

    found = largest_batch(method, gabor(), lambda batch, images: shares(batch, images, count), SETTINGS)

    assert found == expected
    assert found <= MAX_BATCH
    assert method.tries == []  # main memory is not tried out: the system would kill


def test_processes_that_share_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 3200)
    monkeypatch.setattr(Processes, "least", lambda _, value: value)
    settings = replace(SETTINGS, processes=Processes(count=2, on_machine=2))

    assert largest_batch(Sized(a_tile=100), gabor(), shares, SETTINGS) == 32
    assert largest_batch(Sized(a_tile=100), gabor(), shares, settings) == 16


class OnGpu:
    """What is asked of features, as though they lay on a GPU."""

    mean = SimpleNamespace(device=torch.device("cuda"))


def test_a_gpu_is_tried_with_a_real_step_and_the_batch_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6400 / 0.9 + 1, 1 << 40))
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    method = Sized(a_tile=100, holds=20)

    assert largest_batch(method, OnGpu(), shares, SETTINGS) == 16  # type: ignore[arg-type]
    assert method.tries == [(64, 64, 1), (32, 32, 1), (16, 16, 1)]
    with pytest.raises(ConfigError, match="no room for one tile"):
        largest_batch(Sized(holds=0), OnGpu(), shares, SETTINGS)  # type: ignore[arg-type]


def test_a_try_is_a_fit_of_one_step_that_leaves_no_trace(tmp_path: Path) -> None:
    features = gabor()
    settings = FitSettings(seed=0, checkpoint=tmp_path / "x.checkpoint", resume=True)
    before = torch.random.get_rng_state()

    def data(batch: int, images: int | None) -> FitData:
        return FitData(fit=MemoryTiles(surfaces(9)[:images], 16, batch=batch), validation=None)

    assert tried(FastFlowMethod(), features, data, settings, 4)
    assert settings.history.asked == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


def test_images_that_do_not_vary_are_left_to_the_fit_to_refuse() -> None:
    class Refusing(Sized):
        def fit(self, *_: object) -> nn.Module:
            message = "do not vary"
            raise DataError(message)

    assert tried(Refusing(), gabor(), shares, SETTINGS, 2)


def test_the_network_takes_some_outputs_of_its_largest_layer() -> None:
    features = gabor()
    tiles = MemoryTiles(surfaces(1), 16)
    (layer,) = features(tiles.pixels)

    assert network_bytes(features, tiles) >= 2 * layer.numel() * 4
    assert all(not module._forward_hooks for module in features.modules())  # noqa: SLF001 - none may stay


def test_a_fit_without_room_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**30)
    with pytest.raises(ConfigError, match=r"needs 2\.0 GiB for this fit, 1\.1 GiB are free"):
        check_memory(Sized(a_tile=2**30), gabor(), shares(2, None), SETTINGS)


def test_more_processes_than_gpus_are_refused_and_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    assert choose_device("auto", Processes(rank=3, count=4, local=1, on_machine=2)) == torch.device("cuda", 1)
    assert chosen == [1]
    assert choose_device("cpu", Processes(rank=1, count=2, local=1, on_machine=2)) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"3 processes for 2 GPU"):
        choose_device("cuda", Processes(count=3, on_machine=3))
