"""What holds of halos: an exact one gives the map of the whole plane, and the smallest exact one is found."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.good_images import gabor
from support.toys import make_recipe
from support.training import Tiles
from torch import nn

from edge_runtime.imaging.frames import Frame, PixelFormat, Size, read_image
from edge_runtime.imaging.tiles import TilePlan
from edge_runtime.scorer import Scorer
from trainer.demo.product import render
from trainer.halo import EXACT, candidates, smallest_exact
from trainer.models.method import FitData, FitSettings
from trainer.models.patchcore import PatchCoreMethod
from trainer.torch_engine import TorchEngine

LAYERS = ("layer1", "layer2")
STRIDE, GRID_STRIDE = 8, 4
CORE = Size(64, 64)
HALO = 40  # exact for these layers: an eleven wide filter on a grid of 4, its octaves and 3x3 cells on a grid of 8
few = settings(max_examples=8, deadline=None)


@cache
def pictures() -> tuple[NDArray[np.uint8], ...]:
    """Real frames where they are at hand, generated ones else; (H, W, 3)."""
    folder = os.environ.get("TAKT_DATA")
    if folder is None:
        return tuple(render(seed, width=300, height=260).image for seed in range(2))
    paths = sorted((Path(folder) / "ball_screw" / "test" / "good").iterdir())[:2]
    return tuple(read_image(path).as_format(PixelFormat.RGB8) for path in paths)


@cache
def fitted() -> nn.Module:
    """PatchCore on tiles of the first picture."""
    plan = TilePlan(plane=Size(256, 128), core=CORE, halo=HALO, stride=GRID_STRIDE)
    tiles = np.empty((plan.count, plan.input.height, plan.input.width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        plan.cut(pictures()[0][:128, :256], number, tile)
    kept = torch.from_numpy(np.stack([plan.kept(number) for number in range(plan.count)]))
    data = FitData(fit=Tiles(torch.from_numpy(tiles), GRID_STRIDE, kept=kept, whole=False), validation=None)
    return PatchCoreMethod().fit(gabor(*LAYERS), data, FitSettings(seed=0, coreset=100))


def scored(pixels: NDArray[np.uint8], core: Size, halo: int) -> NDArray[np.float32]:
    """The stitched map of a frame."""
    size = Size(pixels.shape[1], pixels.shape[0])
    recipe = make_recipe(frame=size, core=core, halo=halo, stride=GRID_STRIDE, batch=2, pixel_format=PixelFormat.RGB8)
    engine = TorchEngine(fitted(), recipe.graph_shape(image_score=False), torch.device("cpu"))
    return Scorer(recipe, engine, valid_areas={}).score(Frame(pixels, PixelFormat.RGB8)).regions[0].grid


@few
@given(st.integers(65, 200), st.integers(65, 180), st.integers(0, 7), st.integers(0, 7))
def test_tiled_with_an_exact_halo_and_whole_agree_to_1e4_of_the_range(
    width: int, height: int, right: int, down: int
) -> None:
    """Whatever the frame's size, and wherever the plan lies on it in steps of the network's stride."""
    picture = pictures()[1]
    pixels = np.ascontiguousarray(
        picture[STRIDE * down : STRIDE * down + height, STRIDE * right : STRIDE * right + width]
    )
    whole = Size(*(-(-side // STRIDE) * STRIDE for side in (width, height)))

    expected = scored(pixels, whole, HALO)

    found = scored(pixels, CORE, HALO)
    assert np.abs(found - expected).max() <= EXACT * (expected.max() - expected.min())


def test_a_narrower_halo_leaves_seams() -> None:
    pixels = np.ascontiguousarray(pictures()[1][:128, :192])
    expected = scored(pixels, Size(192, 128), 8)
    assert np.abs(scored(pixels, CORE, 8) - expected).max() > 100 * EXACT * (expected.max() - expected.min())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(lambda values: sorted(values, reverse=True)))
def test_the_smallest_exact_halo_is_found_where_wider_ones_are_no_worse(errors: list[float]) -> None:
    errors = [error**4 for error in errors]
    halos = [16 * index for index in range(len(errors))]
    exact = [halo for halo, error in zip(halos, errors, strict=True) if error <= EXACT]

    assert smallest_exact(lambda halo: errors[halo // 16], halos) == (min(exact) if exact else None)


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    yield
    fitted.cache_clear()
    pictures.cache_clear()


@pytest.mark.parametrize(
    ("core", "planes", "widest"),
    [
        (Size(512, 96), [Size(4096, 96)], 256),  # one row: no seam above or below, and all that may be looked for
        (Size(512, 96), [Size(4096, 97)], 96),
        (Size(512, 96), [Size(4096, 96), Size(96, 200)], 96),
        (Size(128, 512), [Size(600, 400)], 128),
        (Size(512, 512), [Size(600, 400)], 256),
    ],
)
def test_halos_are_looked_for_up_to_the_shorter_side_that_has_seams(
    core: Size, planes: list[Size], widest: int
) -> None:
    assert candidates(core, 16, planes) == list(range(0, widest + 1, 16))
