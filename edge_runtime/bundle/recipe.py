"""Owns the recipe: what the trainer decided about a model and what calibration and runtime obey.

Geometry, tiling, graphs, map policy, image-score rule, provenance. Drafts and sealed bundles are recipes with more.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from edge_runtime.engines import GraphShape
from edge_runtime.imaging.frames import PixelFormat, Size

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Strict(BaseModel):
    """Frozen, no unknown fields, no conversions between types, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class SizeSpec(Strict):
    """Width and height in pixels."""

    width: Positive
    height: Positive

    @property
    def size(self) -> Size:
        """The same as the tuple that `imaging` takes."""
        return Size(self.width, self.height)


class CropSpec(Strict):
    """A box in frame pixels, x2 and y2 exclusive."""

    x1: Count
    y1: Count
    x2: Positive
    y2: Positive

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(self.x2 - self.x1, self.y2 - self.y1)


class RegionSpec(Strict):
    """One named part of the frame that is inspected on its own."""

    name: Name
    crop: CropSpec
    plane: SizeSpec  # the crop after scaling: what tiles are cut from
    polygon: tuple[tuple[int, int], ...] | None = None  # frame pixels; valid inside
    valid_area: str | None = None  # member: PNG of the frame's size, valid where above 0
    smallest_region_px: Count = 0  # listed areas below this are left out; never decides


class GeometrySpec(Strict):
    """Which pixels of a frame are inspected."""

    pixel_format: PixelFormat
    bit_depth: Annotated[int, Field(ge=8, le=16)]  # 2**bit_depth - 1 is white
    frame: SizeSpec
    regions: Annotated[tuple[RegionSpec, ...], Field(min_length=1)]
    resize_version: int
    demosaic_version: int
    file_format: PixelFormat | None = None  # of image files that cannot tell: a mosaic, or a depth in 16-bit words

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pixel_format.canonical != self.pixel_format:
            message = f"pixel_format {self.pixel_format}: graphs take mono or RGB"
            raise ValueError(message)
        if self.pixel_format.states_depth and self.bit_depth != self.pixel_format.depth:
            message = f"bit_depth {self.bit_depth}: {self.pixel_format} has {self.pixel_format.depth}"
            raise ValueError(message)
        if self.file_format is not None and not self.file_format.goes_into(self.pixel_format):
            message = f"file_format {self.file_format} does not become pixel_format {self.pixel_format}"
            raise ValueError(message)
        names = [region.name for region in self.regions]
        if len(set(names)) != len(names):
            message = f"region names {names} are not unique"
            raise ValueError(message)
        for region in self.regions:
            crop = region.crop
            if not (crop.x1 < crop.x2 <= self.frame.width and crop.y1 < crop.y2 <= self.frame.height):
                message = f"region {region.name}: crop {crop} is empty or leaves the frame {self.frame.size}"
                raise ValueError(message)
        return self


class TilingSpec(Strict):
    """How planes are cut into graph inputs."""

    core: SizeSpec
    halo: Count
    stride: Positive  # plane pixels a cell of the map
    offset: float  # plane pixel under the centre of cell 0
    batch: Positive
    position_bound: bool
    halo_kind: Literal["exact", "approximate"]  # whether tiles give the map of the whole plane
    seam_error: Annotated[
        float, Field(ge=0)
    ]  # measured after the fit, share of the map's range; 0 where no tile meets another


class GraphRole(StrEnum):
    """What a graph sees at once."""

    TILE = "tile"
    FRAME = "frame"  # the whole plane


class GraphSpec(Strict):
    """One graph's input and where its bytes are."""

    role: GraphRole
    batch: Positive
    height: Positive  # of its input, halo included
    width: Positive
    files: tuple[str, ...]  # members: (onnx,) or (xml, bin)


class ImageScoreRule(StrEnum):
    """Where the image score comes from."""

    MAX_RAW = "max_raw"  # maximum of the stitched map at the feature grid
    POOLED_MAX = "pooled_max"  # maximum of the stitched map averaged over `pooled_cells` x `pooled_cells` cells
    MAX_SMOOTHED = "max_smoothed"  # maximum of the upsampled and smoothed map
    GRAPH = "graph"  # the graph's own output, single-tile plans only


class BackgroundSpec(Strict):
    """Mean and spread of every region's raw map over the validation share: the image score is taken from what exceeds them."""

    frames: Annotated[int, Field(ge=2)]  # that it was taken from
    gain: float  # how many times larger a defect has to be without it, by the validation share; why it is here
    members: dict[Name, str]  # by region: (2, h, w) float32, mean and spread at the feature grid


class MapPolicySpec(Strict):
    """What is done to the stitched map before it is shown, measured or scored."""

    upsampling: Literal["bilinear"]
    sigma: Annotated[float, Field(ge=0, le=100)]  # plane pixels
    image_score: ImageScoreRule
    pooled_cells: Annotated[int, Field(ge=1, le=99)] | None = None  # odd; given for `pooled_max` and for no other rule
    background: BackgroundSpec | None = None  # None: the image score is taken from the raw map

    @model_validator(mode="after")
    def _check(self) -> Self:
        pooled = self.image_score is ImageScoreRule.POOLED_MAX
        if pooled != (self.pooled_cells is not None) or (self.pooled_cells or 1) % 2 == 0:
            message = f"pooled_cells is {self.pooled_cells}: an odd number with pooled_max, absent otherwise"
            raise ValueError(message)
        if self.background is not None and self.image_score is ImageScoreRule.GRAPH:
            message = "background: the image score comes from the graph, which knows no map to standardise"
            raise ValueError(message)
        return self


class SplitsSpec(Strict):
    """Content digests (SHA-256 of the file) of every image that had a part in the bundle."""

    fit: tuple[Digest, ...]
    validation: tuple[Digest, ...]
    calibration: tuple[Digest, ...]


class ProvenanceSpec(Strict):
    """Where a bundle comes from."""

    method: str
    backbone: str
    dataset: str
    dataset_fingerprint: Digest
    splits: SplitsSpec
    seed: int
    packages: dict[str, str]
    config: dict[str, JsonValue]
    fit_seconds: Annotated[float, Field(ge=0)]
    peak_memory_mb: Annotated[float, Field(ge=0)]


class Recipe(Strict):
    """What the trainer decided and calibration and runtime obey."""

    product: str
    takt_version: str
    created: str  # UTC, a label only
    geometry: GeometrySpec
    tiling: TilingSpec
    map_policy: MapPolicySpec
    provenance: ProvenanceSpec

    @model_validator(mode="after")
    def _check_background(self) -> Self:
        background, names = self.map_policy.background, {region.name for region in self.geometry.regions}
        if background is not None and set(background.members) != names:
            message = f"background: given for {sorted(background.members)}, regions are {sorted(names)}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_tiles(self) -> Self:
        core = self.tiling.core
        for region in self.geometry.regions:
            fits = region.plane.width <= core.width and region.plane.height <= core.height
            if self.map_policy.image_score is ImageScoreRule.GRAPH and not fits:
                message = (
                    f"image_score graph: region {region.name}'s plane {region.plane.size} takes several tiles of {core.size}; "
                    "a score of the graph is of one tile"
                )
                raise ValueError(message)
        return self

    def seen_by(self, graph: GraphSpec) -> Self:
        """The recipe as one of its graphs carries it out: a frame graph's plan has one core, which covers the plane."""
        if graph.role is GraphRole.TILE:
            return self
        margin = 2 * self.tiling.halo
        core = SizeSpec(width=graph.width - margin, height=graph.height - margin)
        return self.model_copy(update={"tiling": self.tiling.model_copy(update={"core": core, "batch": graph.batch})})

    def frame_graph(self, input_stride: int, files: tuple[str, ...]) -> GraphSpec:
        """The graph that sees the only region's plane at once, rounded up to the network's stride, with the tiles' halo."""
        plane, margin = self.geometry.regions[0].plane, 2 * self.tiling.halo
        height, width = (-(-side // input_stride) * input_stride + margin for side in (plane.height, plane.width))
        return GraphSpec(role=GraphRole.FRAME, batch=1, height=height, width=width, files=files)

    def tile_graph(self, files: tuple[str, ...]) -> GraphSpec:
        """The graph that sees a tile."""
        core, margin = self.tiling.core, 2 * self.tiling.halo
        return GraphSpec(
            role=GraphRole.TILE,
            batch=self.tiling.batch,
            height=core.height + margin,
            width=core.width + margin,
            files=files,
        )

    def graph_shape(self, *, image_score: bool) -> GraphShape:
        """Static shapes of the tile graph."""
        halo, core = self.tiling.halo, self.tiling.core
        height, width = core.height + 2 * halo, core.width + 2 * halo
        return GraphShape(
            batch=self.tiling.batch,
            height=height,
            width=width,
            channels=self.geometry.pixel_format.channels,
            dtype=np.dtype(self.geometry.pixel_format.dtype),
            map_height=height // self.tiling.stride,
            map_width=width // self.tiling.stride,
            position_bound=self.tiling.position_bound,
            image_score=image_score,
        )


def no_frame_graph(recipe: Recipe) -> str | None:
    """Why a recipe's graph cannot be run on whole frames under the same thresholds; None where it can."""
    tiling, regions = recipe.tiling, recipe.geometry.regions
    if len(regions) > 1:
        return f"a frame graph is of one region, there are {len(regions)}"
    if tiling.position_bound or recipe.map_policy.image_score is ImageScoreRule.GRAPH:
        return "the method's graph is of tiles only"
    if tiling.halo_kind != "exact":
        return (
            f"the halo of {tiling.halo} px is approximate: tiles and whole frames differ by {tiling.seam_error:.2g} of the "
            "map's range, so one threshold does not serve both"
        )
    return None
