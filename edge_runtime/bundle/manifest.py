"""Owns the manifest: everything about a bundle that is not a graph's or an image's bytes.

Three schemas. `Recipe` is what the trainer decided and everybody else obeys: geometry, tiling, map policy, image-score
rule, provenance. A draft is a recipe with graphs and torch's reference maps; a sealed bundle is a recipe with artefacts
and their thresholds.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from edge_runtime.decision import Thresholds
from edge_runtime.engines import EngineName, GraphShape, Precision
from edge_runtime.imaging.frames import PixelFormat, Size

FORMAT_VERSION = 1

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


class ReferenceSpec(Strict):
    """What torch computed for one region of one frame that the fit never saw."""

    digest: Digest  # of the image file
    variant: str  # how the frame was changed before it was scored
    pixels: Digest  # of the changed frame's pixels: another decoder or painter shows here
    region: Name
    score: float
    map: str  # member: (h, w) float32, the stitched map at the feature grid


class DraftManifest(Recipe):
    """A fitted model before it has artefacts: graphs, torch's references, no threshold."""

    format_version: Literal[1]
    graphs: tuple[GraphSpec, ...]  # files: (onnx,)
    has_image_score: bool
    references: tuple[ReferenceSpec, ...]
    sealable: bool  # false where the weights are random
    members: dict[str, Digest]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_graphs(self, self.graphs, "the draft")
        _check_graph_score(self.map_policy, has_image_score=self.has_image_score)
        return self


class RegionThresholds(Strict):
    """Thresholds of one region of one artefact, in raw scores."""

    reject: float
    review: float | None
    pixel: float | None
    policy: str
    guarantee: str  # "none", or what the policy promises
    n_good: Count
    n_defective: Count
    display_low: float  # raw map value at the lower end of the heatmap's colours
    display_high: float
    tile_order: tuple[Count, ...] = ()  # the plan's tiles, riskiest first; empty where no good frame told

    @model_validator(mode="after")
    def _check(self) -> Self:
        Thresholds(reject=self.reject, review=self.review)  # its own rules, before a frame meets them
        return self

    @property
    def image(self) -> Thresholds:
        """The image thresholds as `decide` takes them."""
        return Thresholds(reject=self.reject, review=self.review)


class ParityEvidence(Strict):
    """How close an artefact came to torch, and on what."""

    frames: Count
    kinds: dict[str, Count]  # how many frames of each variant
    map_range: float
    map_max_abs: float
    score_range: float
    score_max_abs: float
    tolerance: float  # share of the range
    worst: str  # the frame with the largest difference
    decision_flips: Count
    flip_limit: Count
    near_threshold: tuple[str, ...]  # frames too close to the threshold to count


class FrameEvidence(Strict):
    """That the frame graph computes what torch computed of tiles, so that the artefact's thresholds hold for it."""

    parity: ParityEvidence
    parity_scores: str  # member: JSON
    latency_ms: Annotated[float, Field(ge=0)]


class ArtefactSpec(Strict):
    """A fitted model in one precision for one engine: its graphs, with thresholds for all of them."""

    name: Name
    engine: EngineName
    precision: Precision
    graphs: tuple[GraphSpec, ...]  # the tile graph, and where there is one the frame graph
    parity: ParityEvidence  # of the tile graph, as all that follows
    thresholds: dict[Name, RegionThresholds]
    scores: str  # member: JSON, the calibration scores behind the thresholds
    parity_scores: str  # member: JSON, torch's and its own scores on the parity frames
    latency_ms: Annotated[float, Field(ge=0)]  # median of one whole inspection where it was sealed
    frame: FrameEvidence | None  # where there is a frame graph

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.frame is not None) != (self.graph(GraphRole.FRAME) is not None):
            message = f"artefact {self.name}: a frame graph and its evidence come together, found one of them"
            raise ValueError(message)
        return self

    def graph(self, role: GraphRole) -> GraphSpec | None:
        """Its graph of a role, or None."""
        return next((graph for graph in self.graphs if graph.role is role), None)


class GoldenExpectation(Strict):
    """What one graph of an artefact gave for one region of a golden frame."""

    artefact: Name
    graph: GraphRole
    region: Name
    score: float
    map: str  # member: (h, w) float32, the stitched map


class GoldenSpec(Strict):
    """One lossless frame with what every artefact must make of it."""

    name: str
    frame: str  # member: PNG
    expected: tuple[GoldenExpectation, ...]


class Manifest(Recipe):
    """A sealed bundle."""

    format_version: Literal[1]
    artefacts: Annotated[tuple[ArtefactSpec, ...], Field(min_length=1)]  # the first is the default
    has_image_score: bool
    normalisation: Literal["threshold_relative"]
    golden: Annotated[tuple[GoldenSpec, ...], Field(min_length=1)]
    golden_tolerance: Annotated[float, Field(gt=0, le=0.1)]  # share of the map's and the score's range
    licences: str  # member: JSON
    report: str | None  # member: HTML
    members: dict[str, Digest]  # every member but the manifest and the signature

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [artefact.name for artefact in self.artefacts]
        if len(set(names)) != len(names):
            message = f"artefact names {names} are not unique"
            raise ValueError(message)
        regions = {region.name for region in self.geometry.regions}
        for artefact in self.artefacts:
            if set(artefact.thresholds) != regions:
                message = (
                    f"artefact {artefact.name}: thresholds for {sorted(artefact.thresholds)}, regions {sorted(regions)}"
                )
                raise ValueError(message)
            for region in self.geometry.regions:
                _check_tile_order(artefact, region, self.tiling)
            _check_graphs(self, artefact.graphs, f"artefact {artefact.name}")
        _check_graph_score(self.map_policy, has_image_score=self.has_image_score)
        return self

    def artefact(self, name: str | None) -> ArtefactSpec:
        """The named artefact, or the default.

        Raises:
            KeyError: there is none of that name.
        """
        if name is None:
            return self.artefacts[0]
        return {artefact.name: artefact for artefact in self.artefacts}[name]


def _check_tile_order(artefact: ArtefactSpec, region: RegionSpec, tiling: TilingSpec) -> None:
    columns = -(-region.plane.width // tiling.core.width)
    count = columns * -(-region.plane.height // tiling.core.height)
    order = artefact.thresholds[region.name].tile_order
    if order and (len(order) != count or set(order) != set(range(count))):
        message = (
            f"artefact {artefact.name}: tile_order of region {region.name} has {len(order)} entries, {len(set(order))} of them "
            f"distinct: it must name each of the plan's {count} tiles, 0 to {count - 1}, once, or be empty"
        )
        raise ValueError(message)


def _check_graph_score(policy: MapPolicySpec, *, has_image_score: bool) -> None:
    if policy.image_score is ImageScoreRule.GRAPH and not has_image_score:
        message = "image_score graph: has_image_score is false, so the graph gives none"
        raise ValueError(message)


def _check_graphs(recipe: Recipe, graphs: tuple[GraphSpec, ...], whose: str) -> None:
    """One tile graph of the plan's size; at most one frame graph, where tiles and whole are the same."""
    roles = [graph.role for graph in graphs]
    if roles not in ([GraphRole.TILE], [GraphRole.TILE, GraphRole.FRAME]):
        message = f"{whose}: graphs are {[str(role) for role in roles]}: tile first, and at most one frame"
        raise ValueError(message)
    tile = recipe.tile_graph(graphs[0].files)
    if graphs[0] != tile:
        found = f"{graphs[0].batch}x{graphs[0].height}x{graphs[0].width}"
        message = f"{whose}: the tile graph takes {found}, the tiling says {tile.batch}x{tile.height}x{tile.width}"
        raise ValueError(message)
    if len(graphs) == 1:
        return
    why = no_frame_graph(recipe)
    if why is not None:
        message = f"{whose}: a frame graph is there, and {why}"
        raise ValueError(message)
    frame, tiling, plane = graphs[1], recipe.tiling, recipe.geometry.regions[0].plane
    sides = ((frame.height - 2 * tiling.halo, plane.height), (frame.width - 2 * tiling.halo, plane.width))
    if frame.batch != 1 or any(core < side or core % tiling.stride for core, side in sides):
        message = (
            f"{whose}: the frame graph takes {frame.batch}x{frame.height}x{frame.width}: one frame, whose plane of "
            f"{plane.size} and halo {tiling.halo} it covers in steps of {tiling.stride}"
        )
        raise ValueError(message)


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


def dump(manifest: Strict) -> bytes:
    """Manifest bytes: JSON, keys in schema order, two spaces, one newline at the end."""
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def packages() -> dict[str, str]:
    """Versions of what can change a score, of those installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only building asks

    found: dict[str, Any] = {}
    for name in ("takt-inspect", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "onnx", "torch", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
