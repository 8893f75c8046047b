"""Image files as samples, and the planes of toy recipes, for tests of what is trained on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support.toys import make_recipe

from calibration.samples import Label, Sample, Split, file_digest
from edge_runtime.bundle.recipe import RegionSpec
from edge_runtime.imaging.frames import PixelFormat, Size, encode_png
from trainer.data.augment import Augmentation, Views
from trainer.data.plane_cache import PlaneCache
from trainer.data.planes import Planes
from trainer.data.selection import Selection
from trainer.data.tiles import FrameTiles


def write_frame(path: Path, pixels: NDArray[Any]) -> Sample:
    """Write a PNG; returns it as a sample."""
    path.write_bytes(encode_png(pixels))
    return Sample(path=path, name=path.name, label=Label.GOOD, split=Split.TRAIN, folder=".", digest=file_digest(path))


def make_planes(
    frame: Size,
    core: Size,
    *,
    halo: int = 0,
    stride: int = 8,
    pixel_format: PixelFormat = PixelFormat.MONO8,
    regions: tuple[RegionSpec, ...] | None = None,
    valid_areas: dict[str, NDArray[np.bool_]] | None = None,
    cache: PlaneCache | None = None,
) -> Planes:
    """Planes of a toy recipe."""
    recipe = make_recipe(frame=frame, core=core, halo=halo, stride=stride, pixel_format=pixel_format, regions=regions)
    return Planes(recipe, valid_areas or {}, cache)


def make_tiles(
    planes: Planes,
    selection: Selection,
    samples: list[Sample],
    *,
    kinds: Iterable[Augmentation] = (),
    batch: int = 3,
    workers: int = 0,
) -> FrameTiles:
    """What a method is given of them."""
    return FrameTiles(
        planes,
        selection,
        samples,
        views=Views(kinds=tuple(kinds), seed=1),
        batch=batch,
        workers=workers,
        device=torch.device("cpu"),
        quiet=True,
    )
