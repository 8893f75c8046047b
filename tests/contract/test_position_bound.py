"""What every method of places must do where a plan has several tiles: parity, its own place, and nothing from its neighbours."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.methods import gabor, parts, settings
from support.training import Tiles
from torch import nn

from edge_runtime.engines import Engine, EngineName, GraphShape, Precision, TileGraph, open_engine
from edge_runtime.engines.openvino import to_ir
from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.tiles import TilePlan
from trainer.export import to_onnx
from trainer.models.method import FitData
from trainer.models.registry import METHODS
from trainer.torch_engine import TorchEngine

PLAN = TilePlan(plane=Size(64, 64), core=Size(32, 32), halo=16, stride=4)
CPU = torch.device("cpu")


def cut(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Frames (N, 64, 64, 3) -> their tiles (4 N, 64, 64, 3) and the tiles' numbers."""
    tiles = np.empty((len(pixels) * PLAN.count, PLAN.input.height, PLAN.input.width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        PLAN.cut(pixels[number // PLAN.count], number % PLAN.count, tile)
    return tiles, np.tile(np.arange(PLAN.count, dtype=np.int32), len(pixels))


@dataclass(frozen=True)
class Case:
    """A method of places, fitted to the tiles of a plan."""

    method: str
    data: FitData
    fitted: nn.Module

    def shape(self, batch: int) -> GraphShape:
        """Of the exported graph."""
        height, width = self.data.fit.grid
        return GraphShape(
            batch=batch,
            height=PLAN.input.height,
            width=PLAN.input.width,
            channels=3,
            dtype=np.dtype(np.uint8),
            map_height=height,
            map_width=width,
            position_bound=True,
            image_score=False,
        )

    def torch(self, batch: int = 1) -> TorchEngine:
        """The fitted module as an engine."""
        return TorchEngine(self.fitted, self.shape(batch), CPU)

    def opened(self, batch: int, precision: Precision = Precision.F32) -> list[Engine]:
        """OpenVINO, and ONNX Runtime where it has the precision."""
        onnx = to_onnx(self.fitted, self.shape(batch))
        graph = TileGraph(
            engine=EngineName.OPENVINO,
            precision=precision,
            shape=self.shape(batch),
            files=to_ir(onnx),
            digest="0" * 64,
        )
        graphs = [graph]
        if precision is Precision.F32:
            graphs.append(replace(graph, engine=EngineName.ONNXRUNTIME, files=(onnx,)))
        return [open_engine(one) for one in graphs]


@pytest.fixture(scope="module", params=sorted(name for name, method in METHODS.items() if method.position_bound))
def case(request: pytest.FixtureRequest) -> Case:
    features = gabor(request.param)
    tiles, index = cut(parts(range(16)))
    stride = features.grid_stride
    fit = Tiles(
        torch.from_numpy(tiles), stride, index=torch.from_numpy(index), places=PLAN.count, margin=PLAN.halo // stride
    )
    data = FitData(fit=fit, validation=None)
    return Case(request.param, data, METHODS[request.param].fit(features, data, settings(request.param)))


def maps(engine: Engine, tiles: NDArray[np.uint8], index: NDArray[np.int32]) -> NDArray[np.float32]:
    """Maps of tiles, one batch after the other."""
    size, found = len(engine.tiles), []
    for start in range(0, len(tiles), size):
        part = slice(start, start + size)
        engine.tiles[: len(tiles[part])], engine.tile_index[: len(index[part])] = tiles[part], index[part]
        found.append(engine.run().map[: len(tiles[part])])
    return np.concatenate(found)


def test_onnx_and_ir_compute_what_torch_computes_at_every_place(case: Case) -> None:
    tiles, index = cut(parts(range(100, 102)))
    expected = maps(case.torch(), tiles, index)
    allowed = 1e-3 * float(expected.max() - expected.min())

    for batch in (1, 3):
        for engine in case.opened(batch):
            assert np.abs(maps(engine, tiles, index) - expected).max() <= allowed, (engine, batch)


def test_low_precision_looks_up_the_statistics_of_the_tile_it_was_told(case: Case) -> None:
    tiles, index = cut(parts(range(100, 101)))
    (engine,) = case.opened(1, Precision.BF16)
    found = maps(engine, tiles, index)
    expected = np.stack([maps(case.torch(), tiles, np.full_like(index, told)) for told in range(PLAN.count)])

    for tile in index:
        errors = np.abs(expected[:, tile] - found[tile]).mean(axis=(1, 2))
        assert int(errors.argmin()) == tile
        assert np.isfinite(found[tile]).all()


def test_a_tiles_map_does_not_depend_on_what_else_is_in_the_batch_nor_on_its_slot(case: Case) -> None:
    tiles, index = cut(parts(range(100, 102)))
    alone = maps(case.torch(), tiles, index)
    order = np.random.default_rng(0).permutation(len(tiles))
    together = maps(case.torch(len(tiles)), tiles[order], index[order])

    np.testing.assert_allclose(together, alone[order], atol=1e-4 * float(alone.max()))


def test_the_halo_gives_0_and_has_no_statistics(case: Case) -> None:
    tiles, index = cut(parts(range(100, 101)))
    found = maps(case.torch(), tiles, index)
    margin = PLAN.halo // (PLAN.input.width // found.shape[2])
    core = found[:, margin:-margin, margin:-margin]
    places = PLAN.count * core.shape[1] * core.shape[2]

    assert (core > 0).all()
    assert found.sum() == pytest.approx(core.sum())
    assert case.fitted.state_dict()["mean"].shape[:2].numel() == places


def test_the_graphs_size_and_the_fits_memory_are_predicted(case: Case) -> None:
    features, state = gabor(case.method), case.fitted.state_dict()
    held = sum(t.numel() * t.element_size() for name, t in state.items() if "features" not in name.split("."))
    method, wanted = METHODS[case.method], settings(case.method)

    foreseen = method.stand_in(features, case.data, wanted).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in foreseen.items()} == {
        name: (t.shape, t.dtype) for name, t in state.items()
    }
    assert method.predict_bytes(features, case.data, wanted) >= held


def test_what_is_good_in_one_tile_and_not_in_another_is_told_apart(case: Case) -> None:
    tiles, index = cut(parts(range(100, 104)))
    right = maps(case.torch(), tiles, index)
    wrong = maps(case.torch(), tiles, (index + 1) % PLAN.count)

    assert np.median(wrong.max(axis=(1, 2))) > 1.5 * np.median(right.max(axis=(1, 2)))
