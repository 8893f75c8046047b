"""What every method in the registry must do, whatever it computes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.method_contract import PROPERTIES
from support.methods import fit, gabor, narrow, parts, score, settings, shape, shares
from torch import nn

from edge_runtime.engines import EngineName, Precision, TileGraph, open_engine
from edge_runtime.errors import DataError
from trainer.export import to_onnx
from trainer.models.method import FitData
from trainer.models.registry import METHODS
from trainer.torch_engine import TorchEngine


@pytest.fixture(scope="module", autouse=True)
def _narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with narrow(tmp_path_factory.mktemp("teachers")):
        yield


@pytest.fixture(scope="module", params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def fitted(method: str) -> nn.Module:
    return fit(method, parts(range(16)))


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_of_every_method(method: str, fitted: nn.Module, holds: Callable[[str, nn.Module], None]) -> None:
    holds(method, fitted)


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if not method.no_frame_graph))
def test_what_may_see_whole_frames_was_fitted_to_tiles_and_takes_an_oblong_of_another_size(name: str) -> None:
    """Nothing in its graph is of the tile's size: it is exported for another one and computes what torch computes."""
    features = gabor(name)
    data = shares(name, parts(range(8)), features)
    tiled = FitData(fit=replace(data.fit, whole=False), validation=data.validation)  # type: ignore[type-var]
    module = METHODS[name].fit(features, tiled, replace(settings(name), steps=2 if settings(name).steps else None))
    cells = 96 // features.grid_stride, 160 // features.grid_stride
    contract = replace(shape(name, 1), height=96, width=160, map_height=cells[0], map_width=cells[1])
    graph = TileGraph(
        engine=EngineName.ONNXRUNTIME,
        precision=Precision.F32,
        shape=contract,
        files=(to_onnx(module, contract),),
        digest="0" * 64,
    )
    frame = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), np.uint8)

    expected = score(TorchEngine(module, contract, torch.device("cpu")), frame)

    assert expected.shape == (1, *cells)
    assert np.abs(score(open_engine(graph), frame) - expected).max() <= 1e-3 * (expected.max() - expected.min())


def test_one_image_again_and_again_is_refused_by_what_needs_variation_between_images() -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit("padim", np.repeat(parts(range(1)), 6, axis=0))
