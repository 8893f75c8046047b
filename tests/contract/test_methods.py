"""What every method in the registry must do, whatever it computes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.engines import Engine, EngineName, GraphShape, Precision, TileGraph, open_engine
from edge_runtime.engines.openvino import to_ir
from edge_runtime.errors import DataError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.demo.product import Contrast, Defect, DefectKind, render
from trainer.export import to_onnx
from trainer.models.method import FitData, FitSettings, TileBatch
from trainer.models.registry import METHODS
from trainer.torch_engine import TorchEngine

SIDE = 64


@dataclass(frozen=True)
class Tiles:
    """Training tiles from memory, all cells kept."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3)
    stride: int
    batch: int = 4

    def __iter__(self) -> Iterator[TileBatch]:
        for start in range(0, len(self.pixels), self.batch):
            tiles = torch.from_numpy(self.pixels[start : start + self.batch])
            yield TileBatch(tiles, torch.ones(len(tiles), *self.grid, dtype=torch.bool))

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        order = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(seed)).numpy()
        yield from Tiles(self.pixels[order], self.stride, self.batch)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in cells."""
        return SIDE // self.stride, SIDE // self.stride

    @property
    def cells(self) -> int:
        """All of them count."""
        return len(self.pixels) * self.grid[0] * self.grid[1]


def parts(seeds: range) -> NDArray[np.uint8]:
    return np.stack([render(seed, width=SIDE, height=SIDE).image for seed in seeds])


def gabor(method: str) -> Features:
    pixels = PixelSpec(channels=3, bit_depth=8)
    return load_features("gabor", METHODS[method].layers, weights=None, pixels=pixels, weights_dir=None)


def fit(method: str, pixels: NDArray[np.uint8], *, batch: int = 4, seed: int = 0) -> nn.Module:
    features = gabor(method)
    tiles = Tiles(pixels, features.grid_stride, batch)
    return METHODS[method].fit(features, FitData(fit=tiles, validation=None), FitSettings(seed=seed))


def shape(method: str, batch: int) -> GraphShape:
    cells = SIDE // gabor(method).grid_stride
    return GraphShape(
        batch=batch,
        height=SIDE,
        width=SIDE,
        channels=3,
        dtype=np.dtype(np.uint8),
        map_height=cells,
        map_width=cells,
        position_bound=False,
        image_score=False,
    )


def score(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Maps of frames, one batch after the other."""
    size = len(engine.tiles)
    maps = []
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        engine.tiles[: len(part)] = part
        maps.append(engine.run().map[: len(part)].copy())
    return np.concatenate(maps)


@pytest.fixture(scope="module", params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def fitted(method: str) -> nn.Module:
    return fit(method, parts(range(16)))


@pytest.fixture(scope="module")
def unseen() -> NDArray[np.uint8]:
    """Good parts and defective ones that no fit has seen."""
    spoilt = [
        render(200 + i, width=SIDE, height=SIDE, defect=Defect(kind=kind, contrast=Contrast.HIGH)).image
        for i, kind in enumerate(DefectKind)
    ]
    return np.concatenate([parts(range(100, 104)), np.stack(spoilt)])


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_and_ir_compute_what_torch_computes(
    method: str, fitted: nn.Module, unseen: NDArray[np.uint8], batch: int
) -> None:
    contract = shape(method, batch)
    onnx = to_onnx(fitted, contract)
    expected = score(TorchEngine(fitted, contract, torch.device("cpu")), unseen)
    allowed = 1e-3 * float(expected.max() - expected.min())

    for engine, files in ((EngineName.ONNXRUNTIME, (onnx,)), (EngineName.OPENVINO, to_ir(onnx))):
        graph = TileGraph(engine=engine, precision=Precision.F32, shape=contract, files=files, digest="0" * 64)
        found = score(open_engine(graph), unseen)
        assert np.abs(found - expected).max() <= allowed, engine


def test_a_score_does_not_depend_on_what_else_is_in_the_batch(
    method: str, fitted: nn.Module, unseen: NDArray[np.uint8]
) -> None:
    alone = score(TorchEngine(fitted, shape(method, 1), torch.device("cpu")), unseen)
    together = score(TorchEngine(fitted, shape(method, len(unseen)), torch.device("cpu")), unseen)

    np.testing.assert_allclose(
        together, alone, atol=1e-5 * float(alone.max() - alone.min()) + 1e-5 * float(alone.max())
    )


def test_the_same_seed_gives_the_same_scores_and_another_seed_another_model(
    method: str, fitted: nn.Module, unseen: NDArray[np.uint8]
) -> None:
    engine = TorchEngine(fitted, shape(method, 1), torch.device("cpu"))
    again = TorchEngine(fit(method, parts(range(16))), shape(method, 1), torch.device("cpu"))

    np.testing.assert_array_equal(score(again, unseen), score(engine, unseen))


def test_a_painted_defect_raises_the_score_where_it_is_painted(method: str, fitted: nn.Module) -> None:
    engine = TorchEngine(fitted, shape(method, 1), torch.device("cpu"))
    for seed in range(100, 104):
        good = render(seed, width=SIDE, height=SIDE)
        spoilt = good.image.copy()
        spoilt[28:36, 8:16] = (255, 0, 255)
        before, after = score(engine, np.stack([good.image, spoilt]))

        assert after.max() > before.max()
        row, column = np.unravel_index(int(after.argmax()), after.shape)
        cell = SIDE // after.shape[0]
        assert 20 <= row * cell <= 44
        assert 0 <= column * cell <= 24


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_images_are_refused_and_do_not_become_nan(method: str, level: int) -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit(method, np.full((6, SIDE, SIDE, 3), level, dtype=np.uint8))


def test_one_image_again_and_again_is_refused_by_what_needs_variation_between_images() -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit("padim", np.repeat(parts(range(1)), 6, axis=0))


def test_memory_is_predicted_at_least_as_large_as_what_is_kept(method: str, fitted: nn.Module) -> None:
    features = gabor(method)
    tiles = Tiles(parts(range(16)), features.grid_stride)
    kept = sum(t.numel() * t.element_size() for n, t in fitted.named_buffers() if not n.startswith("features"))

    assert METHODS[method].predict_bytes(features, FitData(fit=tiles, validation=None), FitSettings(seed=0)) >= kept
