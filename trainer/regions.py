"""Owns the regions of a build: from a person's crops, polygons and masks to regions that fit the frame."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.recipe import CropSpec, RegionSpec, SizeSpec
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Size, encode_png, read_mask
from edge_runtime.imaging.geometry import check_crop, check_polygon
from edge_runtime.layout import make_region
from trainer.config import DEFAULT_SIZE, BuildConfig, RegionConfig

_SMALLEST_PLANE = 16  # px that scaling leaves of a side, where the crop has as many


def make_regions(config: BuildConfig, frame: Size) -> tuple[tuple[RegionSpec, ...], dict[str, bytes]]:
    """The regions, checked against the frame by the very code that inspects them, and the masks as members.

    Raises:
        ConfigError: a region does not fit the frame, or leaves nothing to inspect.
        DataError: a mask cannot be read.
    """
    whole = RegionConfig(name="frame", crop=config.crop, valid_area=config.valid_area)
    specs: list[RegionSpec] = []
    members: dict[str, bytes] = {}
    for wanted in config.region or (whole,):
        masks = {}
        if wanted.valid_area is not None:
            masks[f"geometry/{wanted.name}.png"] = _mask(wanted.name, wanted.valid_area, frame)
        crop = _crop(wanted, frame)
        plane = _plane(config, crop.size)
        smallest = config.smallest_region if wanted.smallest_region is None else wanted.smallest_region
        spec = RegionSpec(
            name=wanted.name,
            crop=crop,
            plane=SizeSpec(width=plane.width, height=plane.height),
            polygon=wanted.polygon,
            valid_area=next(iter(masks), None),
            smallest_region_px=smallest,
        )
        make_region(spec, frame, masks)
        specs.append(spec)
        members |= {name: encode_png(mask.astype(np.uint8) * 255) for name, mask in masks.items()}
    return tuple(specs), members


def _mask(name: str, file: str, frame: Size) -> NDArray[np.bool_]:
    try:
        mask = read_mask(Path(file))
    except DataError as error:
        message = f"region {name}: valid-area mask {error}"
        raise DataError(message) from error
    found = Size(mask.shape[1], mask.shape[0])
    if found != frame:
        message = (
            f"region {name}: valid-area mask {file} is {found}, the frame {frame}: draw it on a frame of the camera"
        )
        raise ConfigError(message)
    if not mask.any():
        message = f"region {name}: valid-area mask {file} is black all over its {found}, which covers every pixel: paint white what is inspected"
        raise ConfigError(message)
    return mask


def _crop(wanted: RegionConfig, frame: Size) -> CropSpec:
    if wanted.polygon is not None:
        check_polygon(wanted.name, wanted.polygon, frame)
    if wanted.crop is not None:
        x1, y1, x2, y2 = wanted.crop
    elif wanted.polygon is not None:
        xs, ys = [x for x, _ in wanted.polygon], [y for _, y in wanted.polygon]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs) + 1, max(ys) + 1
    else:
        x1, y1, x2, y2 = 0, 0, frame.width, frame.height
    check_crop(wanted.name, (x1, y1, x2, y2), frame)
    return CropSpec(x1=x1, y1=y1, x2=x2, y2=y2)


def _plane(config: BuildConfig, crop: Size) -> Size:
    if config.tile is None:
        return Size(*(config.size or DEFAULT_SIZE))
    scale = config.scale or 1.0
    plane = Size(max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    if min(plane) < min(_SMALLEST_PLANE, *crop):
        message = f"--scale {scale:g} leaves {plane} pixels of {crop}: nothing is to be seen there: raise it"
        raise ConfigError(message)
    return plane
