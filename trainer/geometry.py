"""Owns the geometry of a build: from flags and the first images to the manifest's regions and tiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.samples import Sample
from edge_runtime.bundle.recipe import GeometrySpec, ImageScoreRule, SizeSpec, TilingSpec
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import PixelFormat, Size
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.imaging.tiles import TilePlan
from trainer.config import DEFAULT_SIZE, BuildConfig
from trainer.data.facts import ImageFacts, look
from trainer.data.plane_cache import PlaneCache
from trainer.regions import make_regions

_DEPTHS = (8, 10, 12, 14, 16)
_BATCH_PX = (
    256 * 256
)  # that a graph sees at once: inputs so large keep cores busy one by one, and none runs to fill a batch
_MAX_BATCH = 4
_ALWAYS_FINE = 512  # px, of a core or a halo, however small the region is
_BEYOND = 4  # times the region's longest side: all that a graph sees further out is reflection


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSurvey:
    """What the images that a build learns from have in common."""

    size: Size
    pixel_format: PixelFormat
    bit_depth: int
    file_format: PixelFormat | None = None  # what the files were said to hold; None where they tell it themselves


def survey(
    samples: Sequence[Sample], stated: PixelFormat | None = None, cache: PlaneCache | None = None
) -> FrameSurvey:
    """Look at every image that a build learns from once, held-out ones included, before hours are spent.

    Args:
        samples: the images.
        stated: what their pixels are, where the files cannot tell.
        cache: knows what was seen of an image before; None where there is none.

    Raises:
        DataError: one cannot be read, they differ in size or depth, or none of them shows anything.
    """
    first = look(samples[0], stated, cache)
    colour, peak, varies = False, 0, False
    for sample in samples:
        facts = first if sample is samples[0] else look(sample, stated, cache)
        _check_alike(facts, first, sample, samples[0])
        colour = colour or facts.format.canonical.channels > 1
        peak = max(peak, facts.highest)
        varies = varies or facts.lowest < facts.highest
    if not varies:  # a network's borders would make even black images differ from place to place
        message = (
            f"the good images do not vary: each of {len(samples)} is of one value, such as black; check the camera"
        )
        raise DataError(message)
    if stated is not None:
        return FrameSurvey(size=first.size, pixel_format=stated.canonical, bit_depth=stated.depth, file_format=stated)
    # a 12-bit camera fills 16-bit files up to 4095: white is what the sensor can give, not what the file could hold
    wide = first.format.dtype == np.uint16
    depth = next(depth for depth in _DEPTHS if peak < 2**depth) if wide else 8
    kind = PixelFormat.RGB16 if colour else PixelFormat.MONO16
    # no format has 8 bits in words of 16: such pixels stay words that promise nothing
    named = kind.of_depth(depth) if depth != 8 or not wide else kind  # noqa: PLR2004 - bits
    return FrameSurvey(size=first.size, pixel_format=named, bit_depth=depth)


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
    regions, members = make_regions(config, found.size)
    geometry = GeometrySpec(
        pixel_format=found.pixel_format,
        bit_depth=found.bit_depth,
        frame=SizeSpec(width=found.size.width, height=found.size.height),
        regions=regions,
        resize_version=RESIZE_VERSION,
        demosaic_version=DEMOSAIC_VERSION,
        file_format=found.file_format,
    )
    return geometry, members


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
        core, halo = Size(*config.tile), config.halo or 0
    _check_reach(config, max(max(region.plane.size) for region in geometry.regions))
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
    input_px = (core.width + 2 * halo) * (core.height + 2 * halo)
    batch = max(1, min(_MAX_BATCH, _BATCH_PX // input_px)) if many else 1
    return TilingSpec(
        core=SizeSpec(width=core.width, height=core.height),
        halo=halo,
        stride=grid_stride,
        offset=(grid_stride - 1) / 2,
        batch=1 if placed else batch,  # each tile of a batch would copy its own statistics
        position_bound=placed,
        halo_kind="exact",  # until it is measured on what was fitted
        seam_error=0.0,
    )


def even_core(planes: Sequence[Size], core: Size, input_stride: int, *, square: bool = False) -> Size:
    """The smallest core that cuts each plane into as many rows and columns: the last ones reach beyond it as little as can be.

    Args:
        planes: of the regions, in pixels.
        core: in multiples of the stride.
        input_stride: what a core must be a multiple of.
        square: the smallest of those that are as wide as high.
    """

    def side(lengths: Sequence[int], most: int) -> int:
        longest = max(-(-length // -(-length // most)) for length in lengths)
        return -(-longest // input_stride) * input_stride

    width = side([plane.width for plane in planes], core.width)
    height = side([plane.height for plane in planes], core.height)
    return Size(max(width, height), max(width, height)) if square else Size(width, height)


def _check_reach(config: BuildConfig, longest: int) -> None:
    """A tile may be larger than the region, and a halo reach beyond it; time and memory for nothing but reflections are refused.

    Raises:
        ConfigError: a core or a halo many times the region's longest side.
    """
    most = max(_ALWAYS_FINE, _BEYOND * longest)
    tile = None if config.tile is None else max(config.tile)
    for flag, value in (("--tile", tile), ("--halo", config.halo)):
        if value is not None and value > most:
            message = f"{flag} {value}: the longest side of what is inspected has {longest} px, and a graph would see its reflection over and over: give {most} at most"
            raise ConfigError(message)
