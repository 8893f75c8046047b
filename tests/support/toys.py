"""Toy engines and the recipes that fit them: the production Protocol and schemas, answers that a test can work out."""

from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_runtime.bundle.manifest import ArtefactSpec, ParityEvidence, RegionThresholds
from edge_runtime.bundle.recipe import (
    CropSpec,
    GeometrySpec,
    GraphRole,
    GraphSpec,
    ImageScoreRule,
    MapPolicySpec,
    ProvenanceSpec,
    Recipe,
    RegionSpec,
    SizeSpec,
    SplitsSpec,
    TilingSpec,
)
from edge_runtime.engines import Engine, EngineName, GraphOutput, Precision
from edge_runtime.errors import EngineError
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import PixelFormat, Size
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.inspector import Inspector
from edge_runtime.scorer import Scorer

Box = tuple[int, int, int, int]  # x1, y1, x2, y2

SICK = 255  # brightness at which `SickEngine` gives no number
DIGEST = "d" * 64


class BrightnessEngine:
    """An `Engine` whose map is the mean or the largest brightness of each cell, widened by `reach` on all sides.

    Exact: sums are whole numbers, so equal pixels give equal bits wherever they lie on the tile. Beyond the tile it
    sees the tile's last pixels repeated, as a padding network sees something that is not there.
    """

    def __init__(
        self, recipe: Recipe, *, measure: Literal["mean", "max"] = "max", reach: int = 0, image_score: bool = False
    ) -> None:
        """Make buffers for a recipe's graph; they start white, so that a slot nobody filled would show."""
        self.shape = recipe.graph_shape(image_score=image_score)
        shape = self.shape
        top = np.iinfo(shape.dtype).max
        self.tiles: NDArray[Any] = np.full(
            (shape.batch, shape.height, shape.width, shape.channels), top, dtype=shape.dtype
        )
        self.tile_index = np.full(shape.batch, -1, dtype=np.int32)
        self.stride = recipe.tiling.stride
        self.measure = measure
        self.reach = reach
        self.runs = 0

    def run(self) -> GraphOutput:
        """Measure every cell of every slot."""
        self.runs += 1
        maps = np.stack([self.measured(tile) for tile in self.tiles])
        return GraphOutput(maps, maps.max(axis=(1, 2)) if self.shape.image_score else None)

    def measured(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W, C) -> (h, w)."""
        side = self.stride + 2 * self.reach
        around = ((self.reach, self.reach), (self.reach, self.reach), (0, 0))
        seen = np.pad(tile.astype(np.int64), around, mode="edge")
        seen = seen.max(axis=2) if self.measure == "max" else seen.sum(axis=2)
        cells = sliding_window_view(seen, (side, side))[:: self.stride, :: self.stride]
        if self.measure == "max":
            return cells.max(axis=(2, 3)).astype(np.float32)
        return (cells.sum(axis=(2, 3)) / (side * side * tile.shape[2])).astype(np.float32)


class SickEngine(BrightnessEngine):
    """Gives `fault` where a cell holds a pixel of brightness `SICK`."""

    def __init__(self, recipe: Recipe, *, fault: float = float("nan")) -> None:
        """Make buffers and remember the fault."""
        super().__init__(recipe)
        self.fault = fault

    def measured(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W, C) -> (h, w)."""
        healthy = super().measured(tile)
        return np.where(healthy < SICK, healthy, np.float32(self.fault))


class FailingEngine(BrightnessEngine):
    """Raises on the runs whose number, counted from 1, is in `failing`."""

    def __init__(self, recipe: Recipe, *, failing: tuple[int, ...]) -> None:
        """Make buffers and remember when to fail."""
        super().__init__(recipe)
        self.failing = failing

    def run(self) -> GraphOutput:
        """Fail, or measure.

        Raises:
            EngineError: it is its turn.
        """
        output = super().run()
        if self.runs in self.failing:
            message = f"toy engine failed on run {self.runs}"
            raise EngineError(message)
        return output


class PositionEngine(BrightnessEngine):
    """Gives the tile's index in every cell, whatever the pixels."""

    def run(self) -> GraphOutput:
        """Answer with the indices."""
        grid = (self.shape.batch, self.shape.map_height, self.shape.map_width)
        return GraphOutput(np.broadcast_to(self.tile_index[:, None, None], grid).astype(np.float32), None)


def make_region(
    name: str,
    crop: Box,
    *,
    plane: Size | None = None,
    polygon: tuple[tuple[int, int], ...] | None = None,
    valid_area: str | None = None,
    smallest_region_px: int = 1,
) -> RegionSpec:
    """A region's specification; the plane is the crop unless another size is given."""
    x1, y1, x2, y2 = crop
    width, height = plane or Size(x2 - x1, y2 - y1)
    return RegionSpec(
        name=name,
        crop=CropSpec(x1=x1, y1=y1, x2=x2, y2=y2),
        plane=SizeSpec(width=width, height=height),
        polygon=polygon,
        valid_area=valid_area,
        smallest_region_px=smallest_region_px,
    )


def make_recipe(
    *,
    frame: Size = Size(64, 48),  # noqa: B008 - a tuple
    core: Size = Size(32, 16),  # noqa: B008 - a tuple
    halo: int = 0,
    stride: int = 8,
    batch: int = 4,
    pixel_format: PixelFormat = PixelFormat.MONO8,
    regions: tuple[RegionSpec, ...] | None = None,
    sigma: float = 0.0,
    rule: ImageScoreRule = ImageScoreRule.MAX_RAW,
    position_bound: bool = False,
    resize_version: int = RESIZE_VERSION,
    demosaic_version: int = DEMOSAIC_VERSION,
) -> Recipe:
    """A recipe that inspects the whole frame as region `all` unless regions are given."""
    return Recipe(
        product="toy",
        takt_version="0.1.0",
        created="2025-11-20T09:00:00Z",
        geometry=GeometrySpec(
            pixel_format=pixel_format,
            bit_depth=pixel_format.depth,
            frame=SizeSpec(width=frame.width, height=frame.height),
            regions=regions or (make_region("all", (0, 0, frame.width, frame.height)),),
            resize_version=resize_version,
            demosaic_version=demosaic_version,
        ),
        tiling=TilingSpec(
            core=SizeSpec(width=core.width, height=core.height),
            halo=halo,
            stride=stride,
            offset=(stride - 1) / 2,
            batch=batch,
            position_bound=position_bound,
            halo_kind="exact",
            seam_error=0.0,
        ),
        map_policy=MapPolicySpec(
            upsampling="bilinear",
            sigma=sigma,
            image_score=rule,
            pooled_cells=3 if rule is ImageScoreRule.POOLED_MAX else None,
        ),
        provenance=ProvenanceSpec(
            method="brightness",
            backbone="none",
            dataset="toy",
            dataset_fingerprint="0" * 64,
            splits=SplitsSpec(fit=(), validation=(), calibration=()),
            seed=0,
            packages={},
            config={},
            fit_seconds=0.0,
            peak_memory_mb=0.0,
        ),
    )


def make_thresholds(
    reject: float = 100.0, *, review: float | None = None, pixel: float | None = 100.0
) -> RegionThresholds:
    """Thresholds of one region; the heatmap's colours span 0 to 255."""
    return RegionThresholds(
        reject=reject,
        review=review,
        pixel=pixel,
        policy="manual",
        guarantee="none",
        n_good=0,
        n_defective=0,
        display_low=0.0,
        display_high=255.0,
    )


def make_artefact(thresholds: dict[str, RegionThresholds]) -> ArtefactSpec:
    """An artefact that holds the given thresholds; the rest of it decides nothing."""
    return ArtefactSpec(
        name="toy-f32",
        engine=EngineName.OPENVINO,
        precision=Precision.F32,
        graphs=(GraphSpec(role=GraphRole.TILE, batch=1, height=1, width=1, files=("graph.xml", "graph.bin")),),
        parity=ParityEvidence(
            frames=0,
            kinds={},
            map_range=0.0,
            map_max_abs=0.0,
            score_range=0.0,
            score_max_abs=0.0,
            tolerance=1e-3,
            worst="",
            decision_flips=0,
            flip_limit=0,
            near_threshold=(),
        ),
        thresholds=thresholds,
        scores="scores.json",
        parity_scores="parity.json",
        latency_ms=0.0,
        frame=None,
    )


def make_inspector(
    recipe: Recipe,
    *,
    engine: Engine | None = None,
    thresholds: RegionThresholds | dict[str, RegionThresholds] | None = None,
    valid_areas: dict[str, NDArray[np.bool_]] | None = None,
    backgrounds: dict[str, Background] | None = None,
) -> Inspector:
    """An inspector over a toy engine, with one set of thresholds for all regions or one for each."""
    scorer = Scorer(recipe, engine or BrightnessEngine(recipe), valid_areas=valid_areas or {}, backgrounds=backgrounds)
    if not isinstance(thresholds, dict):
        names = [region.name for region in recipe.geometry.regions]
        thresholds = dict.fromkeys(names, thresholds or make_thresholds())
    return Inspector(scorer, make_artefact(thresholds), DIGEST)


def scramble(height: int, width: int, channels: int, dtype: type[np.uint8 | np.uint16] = np.uint8) -> NDArray[Any]:
    """(H, W, C) pixels that look random and are the same for ever, whatever a library's generator does."""
    index = np.arange(height * width * channels, dtype=np.uint64)
    mixed = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    bits = np.uint64(64 - 8 * np.dtype(dtype).itemsize)
    return (mixed >> bits).astype(dtype).reshape(height, width, channels)
