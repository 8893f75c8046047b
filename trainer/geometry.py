"""Owns the geometry of a build: from flags and the first images to the manifest's regions and tiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.samples import Sample
from edge_runtime.bundle.manifest import CropSpec, GeometrySpec, ImageScoreRule, RegionSpec, SizeSpec, TilingSpec
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Frame, PixelFormat, Size, encode_png, read_image, read_mask
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.imaging.tiles import TilePlan
from trainer.config import DEFAULT_SIZE, BuildConfig, RegionConfig

_DEPTHS = (8, 10, 12, 14, 16)
_TILE_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSurvey:
    """What the images that a build learns from have in common."""

    size: Size
    pixel_format: PixelFormat
    bit_depth: int


def survey(samples: Sequence[Sample]) -> FrameSurvey:
    """Look at every image that a build learns from once, held-out ones included, before hours are spent.

    Raises:
        DataError: one cannot be read, they differ in size or depth, or none of them shows anything.
    """
    first = read_image(samples[0].path)
    colour, peak, varies = first.format.channels > 1, 0, False
    for sample in samples:
        frame = first if sample is samples[0] else read_image(sample.path)
        _check_alike(frame, first, sample, samples[0])
        colour = colour or frame.format.channels > 1
        peak = max(peak, int(frame.pixels.max()))
        varies = varies or int(frame.pixels.min()) < int(frame.pixels.max())
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


def _check_alike(frame: Frame, first: Frame, sample: Sample, reference: Sample) -> None:
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
    default_halo: Callable[[Size], int],
) -> TilingSpec:
    """How planes are cut.

    Args:
        config: size, or tile and halo.
        geometry: the regions.
        grid_stride: plane pixels a cell of the map.
        input_stride: what core and halo must be multiples of.
        position_bound: the method keeps statistics for places of one plane.
        image_score: where the method's image score comes from.
        default_halo: by the core, where several tiles are cut and no halo is given; one tile has no seam, and no halo.

    Raises:
        ConfigError: a size is no multiple of the stride, or the method cannot be tiled.
    """
    if config.tile is None:
        core, halo = Size(*(config.size or DEFAULT_SIZE)), 0
    else:
        core, halo = Size(config.tile, config.tile), config.halo or 0
    for region in geometry.regions:
        tiles = TilePlan(plane=region.plane.size, core=core, halo=0, stride=1).count
        if image_score is ImageScoreRule.GRAPH and tiles > 1:  # before the stride: no other halo would help
            message = (
                f"--method {config.method} gives one score for all that its graph sees, and region {region.name} would take "
                f"{tiles} tiles, whose scores make none of the whole: use --size, or --method patchcore"
            )
            raise ConfigError(message)
    plans = [TilePlan(plane=r.plane.size, core=core, halo=halo, stride=input_stride) for r in geometry.regions]
    many = any(plan.count > 1 for plan in plans)
    if config.frame_graph and not many:
        message = (
            f"--frame-graph: one tile of {core} holds the whole region, so its graph sees it all: leave the flag out"
        )
        raise ConfigError(message)
    if many and config.halo is None:
        halo = default_halo(core)
    placed = position_bound and sum(plan.count for plan in plans) > 1
    return TilingSpec(
        core=SizeSpec(width=core.width, height=core.height),
        halo=halo,
        stride=grid_stride,
        offset=(grid_stride - 1) / 2,
        batch=_TILE_BATCH if many and not placed else 1,  # each tile of a batch would copy its own statistics
        position_bound=placed,
        halo_kind="exact",  # until it is measured on what was fitted
        seam_error=0.0,
    )
