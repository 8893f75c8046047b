"""What every method in the registry must do, whatever it computes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from edge_runtime.bundle.manifest import ImageScoreRule
from edge_runtime.engines import Engine, EngineName, GraphShape, Precision, TileGraph, open_engine
from edge_runtime.engines.openvino import to_ir
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.backbones.features import PixelSpec
from trainer.demo.product import Contrast, Defect, DefectKind, render
from trainer.export import to_onnx
from trainer.models import draem, efficientad, pdn
from trainer.models.method import FeatureRequest, FitData, FitSettings, TileBatch
from trainer.models.registry import METHODS
from trainer.torch_engine import TorchEngine

SIDE = 64
SEES_ALL = {"fastflow"}  # sixteen convolutions one after the other: each cell sees more than this small a tile
STEPS = {"csflow": 3, "draem": 80, "efficientad_s": 60, "efficientad_m": 60}  # CS-Flow: a second each
TEACHERS: dict[str, Path] = {}


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
        """An order by seed."""
        order = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(seed)).numpy()
        yield from Tiles(self.pixels[order], self.stride, self.batch)

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.pixels)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in cells."""
        return SIDE // self.stride, SIDE // self.stride

    @property
    def cells(self) -> int:
        """All of them count."""
        return len(self.pixels) * self.grid[0] * self.grid[1]

    @property
    def whole(self) -> bool:
        """They are whole planes."""
        return True


def parts(seeds: range) -> NDArray[np.uint8]:
    return np.stack([render(seed, width=SIDE, height=SIDE).image for seed in seeds])


def gabor(method: str) -> Features:
    """The method's own features where it has no backbone."""
    request = FeatureRequest(
        backbone="gabor",
        named=True,
        layers=None,
        weights=None,
        weights_dir=None,
        teacher=TEACHERS.get(method),
        pixels=PixelSpec(channels=3, bit_depth=8),
    )
    return METHODS[method].features(request)


def shares(method: str, pixels: NDArray[np.uint8], features: Features, batch: int = 4) -> FitData:
    """All to fit to; where the method sets images apart, parts of its own, or the same where they show nothing."""
    validation = None
    if METHODS[method].validation > 0:
        apart = parts(range(50, 54)) if pixels.min() < pixels.max() else pixels
        validation = Tiles(apart, features.grid_stride, batch)
    return FitData(fit=Tiles(pixels, features.grid_stride, batch), validation=validation)


def settings(method: str, seed: int = 0) -> FitSettings:
    """A few steps for what is trained by gradients."""
    steps = STEPS.get(method, 20) if "steps" in METHODS[method].settings else None
    return FitSettings(seed=seed, steps=steps)


def fit(method: str, pixels: NDArray[np.uint8], *, batch: int = 4, seed: int = 0) -> nn.Module:
    features = gabor(method)
    return METHODS[method].fit(features, shares(method, pixels, features, batch), settings(method, seed))


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
        image_score=METHODS[method].image_score is ImageScoreRule.GRAPH,
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


def image_scores(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of frames, one by one: the graph's own, or the map's maximum."""
    found = []
    for frame in pixels:
        engine.tiles[:] = frame
        output = engine.run()
        found.append(output.map[0].max() if output.image_score is None else output.image_score[0])
    return np.array(found, dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def _narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that are trained from nothing are narrow here and learn fast; their graphs have all parts."""
    layers = {name: tuple((width and 16, kernel) for width, kernel in kinds) for name, kinds in pdn.LAYERS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draem, "RECONSTRUCTION_WIDTH", 8)
        patch.setattr(draem, "DISCRIMINATION_WIDTH", 8)
        patch.setattr(draem, "LEARNING_RATE", 2e-3)
        patch.setattr(efficientad, "LEARNING_RATE", 3e-3)
        patch.setattr(pdn, "LAYERS", layers)
        patch.setattr(pdn, "OUTPUTS", 32)
        for size in layers:
            torch.manual_seed(0)
            path = tmp_path_factory.mktemp("teacher") / "pdn.safetensors"
            save_file(pdn.PDN(size, pdn.OUTPUTS).state_dict(), path)
            TEACHERS[f"efficientad_{size[0]}"] = path
        yield


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
    whole = image_scores(TorchEngine(fitted, contract, torch.device("cpu")), unseen)

    for engine, files in ((EngineName.ONNXRUNTIME, (onnx,)), (EngineName.OPENVINO, to_ir(onnx))):
        graph = TileGraph(engine=engine, precision=Precision.F32, shape=contract, files=files, digest="0" * 64)
        opened = open_engine(graph)
        assert np.abs(score(opened, unseen) - expected).max() <= allowed, engine
        assert np.abs(image_scores(opened, unseen) - whole).max() <= 1e-3 * (whole.max() - whole.min()), engine


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

        low, high = image_scores(engine, np.stack([good.image, spoilt]))
        assert high > low
        if after.min() == after.max():
            continue  # a score of the whole image marks no place
        assert after.max() > before.max()
        cell = SIDE // after.shape[0]
        slack = max(8, cell)
        rise = after - before
        painted = np.zeros(rise.shape, dtype=bool)
        painted[(28 - slack) // cell : (36 + slack) // cell, max(0, 8 - slack) // cell : (16 + slack) // cell] = True
        assert rise[painted].mean() > rise[~painted].mean()
        if method in SEES_ALL:
            continue
        row, column = np.unravel_index(int(after.argmax()), after.shape)
        assert 28 - slack <= row * cell <= 36 + slack
        assert 8 - slack <= column * cell <= 16 + slack


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_images_are_refused_and_do_not_become_nan(method: str, level: int) -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit(method, np.full((6, SIDE, SIDE, 3), level, dtype=np.uint8))


def test_one_image_again_and_again_is_refused_by_what_needs_variation_between_images() -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit("padim", np.repeat(parts(range(1)), 6, axis=0))


def test_memory_is_predicted_at_least_as_large_as_what_is_kept(method: str, fitted: nn.Module) -> None:
    features = gabor(method)
    data = shares(method, parts(range(16)), features)
    kept = sum(t.numel() * t.element_size() for n, t in fitted.named_buffers() if not n.startswith("features"))

    assert METHODS[method].predict_bytes(features, data, settings(method)) >= kept
