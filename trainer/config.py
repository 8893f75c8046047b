"""Owns the settings of a build: flags and `build.toml` end here, checked, with every default stated once."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edge_runtime.bundle.recipe import Name
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.formats import PixelFormat, parse_pixel_format
from edge_runtime.imaging.geometry import polygon_fault
from trainer.data.augment import Augmentation

DEFAULT_SIZE = (256, 256)
DEFAULT_BACKBONE = "resnet18.tv_in1k"
AUTO: Literal["auto"] = "auto"  # the batch that memory allows
DEFAULT_FOREGROUND_SHARE = 0.1
NO_MASK = frozenset({"none", "otsu"})  # of `--foreground`; all else names a file

Box = tuple[int, int, int, int]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


def as_typed(value: object) -> str:
    """A setting as its flag takes it."""
    match value:
        case (int(width), int(height)):
            return f"{width}x{height}"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _sides(tile: object) -> object:
    if isinstance(tile, int) and not isinstance(tile, bool) and tile > 0:
        return (tile, tile)
    if isinstance(tile, (list, tuple)):
        return tuple(tile)
    message = "a tile is N pixels wide and high, or [W, H], such as 256 or [384, 432]"
    raise ValueError(message)


class RegionConfig(BaseModel):
    """One `[[region]]` of build.toml."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Name
    crop: Box | None = None  # x1, y1, x2, y2 in frame pixels; the polygon's box, or the whole frame, when left out
    polygon: tuple[tuple[int, int], ...] | None = None
    valid_area: str | None = None  # PNG of the frame's size, beside build.toml or absolute
    smallest_region: Annotated[int, Field(ge=0)] | None = None  # the build's own when left out

    @model_validator(mode="after")
    def _check(self) -> "RegionConfig":
        fault = None if self.polygon is None else polygon_fault(self.polygon)
        if fault is not None:  # whatever the frame: before thousands of images are read
            message = f"region {self.name}: polygon {fault}"
            raise ValueError(message)
        return self


class BuildConfig(BaseModel):
    """Everything that a build can be told."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    product: str | None = None  # the data set's name when None
    method: str = "patchcore"
    backbone: str | None = None  # resnet18.tv_in1k, for methods that have one
    weights: str | None = None
    layers: tuple[str, ...] | None = None  # the method's own when None
    size: tuple[Positive, Positive] | None = None
    tile: Annotated[tuple[Positive, Positive], Field(strict=False), BeforeValidator(_sides)] | None = None  # N: NxN
    halo: Annotated[int, Field(ge=0)] | None = None  # the smallest exact one when None, see trainer/halo.py
    frame_graph: bool = False  # a second graph, of the whole plane at once
    scale: Annotated[float, Field(gt=0, le=4)] | None = None
    crop: Box | None = None
    valid_area: str | None = None  # as a flag from here, in build.toml from beside it
    region: tuple[RegionConfig, ...] = ()
    smallest_region: Annotated[int, Field(ge=0)] = 0  # of regions that state none of their own
    pixel_format: Annotated[PixelFormat, BeforeValidator(parse_pixel_format)] | None = None  # where files cannot tell
    foreground: str = "none"  # tiles to train on: none (all), otsu, or a mask, found as valid_area is
    foreground_share: Annotated[float, Field(gt=0, le=1)] | None = None  # of a core's pixels
    incomplete_tiles: Literal["in", "out"] = "in"  # whose core reaches beyond the plane; to train on
    tile_cache: str | None = None  # folder
    augment: tuple[Augmentation, ...] = ()
    precision: tuple[Precision, ...] = (Precision.F32,)
    coreset: Annotated[float, Field(gt=0, le=1)] | Positive | None = None
    fit_memory_mb: Positive = 2048
    steps: Positive | None = None  # of optimisation; the method's own schedule when None
    learning_rate: Annotated[float, Field(gt=0)] | None = None  # at the schedule's begin; the method's own when None
    width: Annotated[float, Field(ge=0.03, le=1)] | None = None  # share of the paper's channels; all of them when None
    teacher: str | None = None  # weights of EfficientAD's teacher, as `takt teacher` makes them
    textures: str | None = None  # folder of pictures for DRAEM's synthetic anomalies; procedural ones when None
    policy: str | None = None
    deadline_ms: Positive | None = (
        None  # that inspecting one frame may take; refused before the fit where it takes longer
    )
    memory_mb: Positive | None = None  # that a process may take which inspects
    holdout: Share = 0.2
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None  # the method's own when None
    background: Literal["auto", "on", "off"] = "auto"  # whether the image score is taken against one
    calibration_split: Share = 0.0
    limit: Positive | None = None
    full_masks: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    batch: Positive | Literal["auto"] = 8
    workers: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _check(self) -> "BuildConfig":
        if self.size is not None and self.tile is not None:
            message = "--size scales the region to one input and --tile cuts it into many: give one of them"
            raise ValueError(message)
        if self.tile is None and (self.halo is not None or self.scale is not None):
            message = "--halo and --scale belong to --tile"
            raise ValueError(message)
        if self.tile is None and self.frame_graph:
            message = "--frame-graph belongs to --tile: the graph of --size sees the whole plane as it is"
            raise ValueError(message)
        if self.frame_graph and len(self.region) > 1:
            message = f"--frame-graph: a frame graph is of one region, there are {len(self.region)}: leave the flag out"
            raise ValueError(message)
        if self.region and (self.crop is not None or self.valid_area is not None):
            message = "regions have crops and masks of their own: leave --crop and --valid-area out"
            raise ValueError(message)
        names = [region.name for region in self.region]
        if len(set(names)) != len(names):
            message = f"region names {', '.join(names)} are not unique: results and thresholds go by them"
            raise ValueError(message)
        if len(set(self.precision)) != len(self.precision):
            message = "--precision: give each once"
            raise ValueError(message)
        if Precision.F32 not in self.precision:
            message = "--precision needs f32, which the others are held against: f32,bf16"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_training_tiles(self) -> "BuildConfig":
        chosen = self.foreground != "none" or self.foreground_share is not None or self.incomplete_tiles == "out"
        if self.tile is None and chosen:
            message = "--foreground, --foreground-share and --incomplete-tiles choose among tiles and belong to --tile"
            raise ValueError(message)
        if self.foreground == "none" and self.foreground_share is not None:
            message = "--foreground-share belongs to --foreground otsu or MASK.png"
            raise ValueError(message)
        if len(set(self.augment)) != len(self.augment):
            message = "--augment: give each kind once"
            raise ValueError(message)
        width, height = self.tile or self.size or DEFAULT_SIZE
        if Augmentation.TURN in self.augment and width != height:
            flag = "--size" if self.tile is None else "--tile"
            message = (
                f"--augment turn takes square inputs, {flag} is {width}x{height}: leave turn out, or give --tile N"
            )
            raise ValueError(message)
        return self


def make_config(flags: dict[str, Any], file: Path | None) -> BuildConfig:
    """Join flags and a file; a flag wins over the file.

    Args:
        flags: by field name, without those that were not given.
        file: build.toml, or None.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value is of the wrong kind, or settings contradict.
    """
    values: dict[str, Any] = {} if file is None else _read(file)
    values |= flags
    try:
        # by way of JSON, whose rules strict validation relaxes just so far: lists are tuples, names are enums
        return BuildConfig.model_validate_json(json.dumps(values, default=str))  # a date is text: of the wrong kind
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(file)] if file is not None else []
        if first["loc"]:
            where.append(".".join(str(part) for part in first["loc"]))
        fault = "no such setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        message = ": ".join([*where, fault])
        raise ConfigError(message) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"--config {file}: cannot be read ({error})"
        raise ConfigError(message) from error
    regions = values.get("region", [])
    for table in (values, *(regions if isinstance(regions, list) else ())):
        mask = table.get("valid_area") if isinstance(table, dict) else None
        if isinstance(mask, str):
            table["valid_area"] = str(file.parent / mask)
    foreground = values.get("foreground")
    if isinstance(foreground, str) and foreground not in NO_MASK:
        values["foreground"] = str(file.parent / foreground)
    return values
