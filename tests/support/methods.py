"""Methods of the registry on small generated parts: features without weights, short fits, narrow networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.training import Tiles
from torch import nn

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.engines import Engine, GraphShape
from trainer.backbones import Features
from trainer.backbones.features import PixelSpec
from trainer.demo.product import Contrast, Defect, DefectKind, render
from trainer.models import csflow, draem, efficientad, pdn
from trainer.models.method import FeatureRequest, FitData, FitSettings
from trainer.models.registry import METHODS

SIDE = 64
STEPS = {"csflow": 3, "draem": 80, "efficientad_s": 60, "efficientad_m": 60}
TEACHERS: dict[str, Path] = {}  # by method, while `narrow` holds


@contextmanager
def narrow(folder: Path) -> Iterator[None]:
    """Make networks that are trained from nothing narrow and fast to learn; their graphs have all parts.

    Args:
        folder: takes the weights of teachers that have learnt nothing.
    """
    layers = {name: tuple((width and 16, kernel) for width, kernel in kinds) for name, kinds in pdn.LAYERS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csflow, "HIDDEN", 64)
        patch.setattr(draem, "RECONSTRUCTION_WIDTH", 8)
        patch.setattr(draem, "DISCRIMINATION_WIDTH", 8)
        patch.setattr(draem, "LEARNING_RATE", 2e-3)
        patch.setattr(efficientad, "LEARNING_RATE", 3e-3)
        patch.setattr(pdn, "LAYERS", layers)
        patch.setattr(pdn, "OUTPUTS", 32)
        for size in layers:
            torch.manual_seed(0)
            path = folder / f"pdn_{size}.safetensors"
            save_file(pdn.PDN(size, pdn.OUTPUTS).state_dict(), path)
            TEACHERS[f"efficientad_{size[0]}"] = path
        yield
    TEACHERS.clear()


def parts(seeds: range) -> NDArray[np.uint8]:
    """(N, SIDE, SIDE, 3): good parts."""
    return np.stack([render(seed, width=SIDE, height=SIDE).image for seed in seeds])


def unseen_parts() -> NDArray[np.uint8]:
    """(N, SIDE, SIDE, 3): good parts and defective ones that no fit has seen."""
    spoilt = [
        render(200 + i, width=SIDE, height=SIDE, defect=Defect(kind=kind, contrast=Contrast.HIGH)).image
        for i, kind in enumerate(DefectKind)
    ]
    return np.concatenate([parts(range(100, 104)), np.stack(spoilt)])


def gabor(method: str) -> Features:
    """The filter bank, or the method's own features where it has no backbone."""
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
        validation = Tiles(torch.from_numpy(apart), features.grid_stride, batch)
    return FitData(fit=Tiles(torch.from_numpy(pixels), features.grid_stride, batch), validation=validation)


def settings(method: str, seed: int = 0) -> FitSettings:
    """A few steps for what is trained by gradients."""
    steps = STEPS.get(method, 20) if "steps" in METHODS[method].settings else None
    return FitSettings(seed=seed, steps=steps)


def fit(method: str, pixels: NDArray[np.uint8], *, batch: int = 4, seed: int = 0) -> nn.Module:
    """Fit to parts (N, SIDE, SIDE, 3)."""
    features = gabor(method)
    return METHODS[method].fit(features, shares(method, pixels, features, batch), settings(method, seed))


def shape(method: str, batch: int) -> GraphShape:
    """What the exported graph must have."""
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
