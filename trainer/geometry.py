"""Owns the geometry of a build: from flags and the first images to the manifest's regions and tiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.samples import Sample
from edge_runtime.bundle.manifest import CropSpec, GeometrySpec, ImageScoreRule, RegionSpec, SizeSpec, TilingSpec
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import PixelFormat, Size, encode_png, read_mask
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.imaging.tiles import TilePlan
from trainer.config import DEFAULT_HALO, DEFAULT_SIZE, BuildConfig, RegionConfig
from trainer.data.facts import ImageFacts, look
from trainer.data.plane_cache import PlaneCache

_DEPTHS = (8, 10, 12, 14, 16)
_TILE_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSurvey:
    """What the images that a build learns from have in common."""

    size: Size
    pixel_format: PixelFormat
    bit_depth: int


def survey(samples: Sequence[Sample], cache: PlaneCache | None = None) -> FrameSurvey:
    """Look at every image that a build learns from once, held-out ones included, before hours are spent.

    Args:
        samples: the images.
        cache: knows what was seen of an image before; None where there is none.

    Raises:
        DataError: one cannot be read, they differ in size or depth, or none of them shows anything.
    """
    first = look(samples[0], cache)
    colour, peak, varies = first.format.channels > 1, 0, False
    for sample in samples:
        facts = first if sample is samples[0] else look(sample, cache)
        _check_alike(facts, first, sample, samples[0])
        colour = colour or facts.format.channels > 1
        peak = max(peak, facts.highest)
        varies = varies or facts.lowest < facts.highest
    if not varies:  # a network's borders would make even black images differ from place to place
        message = (
            f"the good images do not vary: each of {len(samples)} is of one value, such as black; check the camera"
        )
        raise DataError(message)
    wide = first.format.dtype == np.uint16
    if colour:
        pixel_format = PixelFormat.RGB16 if wide else PixelFormat.RGB8
    else:
        pixel_format = PixelFormat.MONO16 if wide else PixelFormat.MONO8
    # a 12-bit camera fills 16-bit files up to 4095: white is what the sensor can give, not what the file could hold
    depth = next(depth for depth in _DEPTHS if peak < 2**depth) if wide else 8
    return FrameSurvey(size=first.size, pixel_format=pixel_format, bit_depth=depth)


def _check_alike(frame: ImageFacts, first: ImageFacts, sample: Sample, reference: Sample) -> None:
    if frame.size != first.size:
        message = (
            f"{sample.path}: is {frame.size}, {reference.path.name} is {first.size}: a bundle inspects frames of one size; "
            "crop or sort the images, one bundle for each size"
        )
        raise DataError(message)
    if frame.format.dtype != first.format.dtype:
        message = f"{sample.path}: is {frame.format}, {reference.path.name} is {first.format}: give images of one depth"
        raise DataError(message)


def make_geometry(config: BuildConfig, found: FrameSurvey) -> tuple[GeometrySpec, dict[str, bytes]]:
    """Regions and pixel format, and the masks as members.

    Raises:
        ConfigError: a region does not fit the frame.
        DataError: a mask cannot be read.
    """
    default = RegionConfig(name="frame", crop=config.crop, valid_area=config.valid_area)
    regions, members = [], {}
    for region in config.region or (default,):
        crop = _crop(region, found.size)
        member = None
        if region.valid_area is not None:
            member = f"geometry/{region.name}.png"
            members[member] = encode_png(read_mask(Path(region.valid_area)).astype(np.uint8) * 255)
        plane = _plane(config, crop.size)
        regions.append(
            RegionSpec(
                name=region.name,
                crop=crop,
                plane=SizeSpec(width=plane.width, height=plane.height),
                polygon=region.polygon,
                valid_area=member,
            )
        )
    geometry = GeometrySpec(
        pixel_format=found.pixel_format,
        bit_depth=found.bit_depth,
        frame=SizeSpec(width=found.size.width, height=found.size.height),
        regions=tuple(regions),
        resize_version=RESIZE_VERSION,
    )
    return geometry, members


def _crop(region: RegionConfig, frame: Size) -> CropSpec:
    if region.crop is not None:
        x1, y1, x2, y2 = region.crop
    elif region.polygon:
        xs, ys = [x for x, _ in region.polygon], [y for _, y in region.polygon]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs) + 1, max(ys) + 1
    else:
        x1, y1, x2, y2 = 0, 0, frame.width, frame.height
    if not (0 <= x1 < x2 <= frame.width and 0 <= y1 < y2 <= frame.height):
        message = (
            f"region {region.name}: crop {x1},{y1},{x2},{y2} is empty or leaves the frame {frame}: "
            "give X1,Y1,X2,Y2 in frame pixels, X2 and Y2 exclusive"
        )
        raise ConfigError(message)
    return CropSpec(x1=x1, y1=y1, x2=x2, y2=y2)


def _plane(config: BuildConfig, crop: Size) -> Size:
    if config.tile is None:
        return Size(*(config.size or DEFAULT_SIZE))
    scale = config.scale or 1.0
    return Size(max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))


def make_tiling(
    config: BuildConfig,
    geometry: GeometrySpec,
    *,
    grid_stride: int,
    input_stride: int,
    position_bound: bool,
    image_score: ImageScoreRule,
) -> TilingSpec:
    """How planes are cut.

    Args:
        config: size, or tile and halo.
        geometry: the regions.
        grid_stride: plane pixels a cell of the map.
        input_stride: what core and halo must be multiples of.
        position_bound: the method keeps statistics for places of one plane.
        image_score: where the method's image score comes from.

    Raises:
        ConfigError: a size is no multiple of the stride, or the method cannot be tiled.
    """
    if config.tile is None:
        core, halo = Size(*(config.size or DEFAULT_SIZE)), 0
    else:
        core, halo = Size(config.tile, config.tile), DEFAULT_HALO if config.halo is None else config.halo
    for region in geometry.regions:
        tiles = TilePlan(plane=region.plane.size, core=core, halo=0, stride=1).count
        if image_score is ImageScoreRule.GRAPH and tiles > 1:  # before the stride: no other halo would help
            message = (
                f"--method {config.method} gives one score for all that its graph sees, and region {region.name} would take "
                f"{tiles} tiles, whose scores make none of the whole: use --size, or --method patchcore"
            )
            raise ConfigError(message)
        plan = TilePlan(plane=region.plane.size, core=core, halo=halo, stride=input_stride)
        if position_bound and (plan.count > 1 or len(geometry.regions) > 1):
            message = (
                f"--method {config.method} keeps statistics for every place of one plane; {plan.count} tiles of "
                f"{len(geometry.regions)} region(s) have no common places: use --size with one region, or --method patchcore"
            )
            raise ConfigError(message)
    many = any(
        TilePlan(plane=r.plane.size, core=core, halo=halo, stride=input_stride).count > 1 for r in geometry.regions
    )
    return TilingSpec(
        core=SizeSpec(width=core.width, height=core.height),
        halo=halo,
        stride=grid_stride,
        offset=(grid_stride - 1) / 2,
        batch=_TILE_BATCH if many else 1,
        position_bound=False,
    )
