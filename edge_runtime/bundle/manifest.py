"""Owns the manifest: everything about a bundle that is not a graph's or an image's bytes.

Two schemas, both recipes with more: a draft has graphs and torch's reference maps, a sealed bundle has artefacts and
their thresholds.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edge_runtime.bundle.recipe import (
    Count,
    Digest,
    GraphRole,
    GraphSpec,
    ImageScoreRule,
    MapPolicySpec,
    Name,
    Recipe,
    RegionSpec,
    Strict,
    TilingSpec,
    no_frame_graph,
)
from edge_runtime.decision import Thresholds
from edge_runtime.engines import EngineName, Precision

FORMAT_VERSION = 1


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
