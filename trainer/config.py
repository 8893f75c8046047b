"""Owns the settings of a build: flags and `build.toml` end here, checked, with every default stated once."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_runtime.bundle.manifest import Name
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError

DEFAULT_SIZE = (256, 256)
DEFAULT_BACKBONE = "resnet18.tv_in1k"
AUTO: Literal["auto"] = "auto"  # the batch that memory allows
DEFAULT_HALO = 96  # exact for layer 3 of a ResNet-18

Box = tuple[int, int, int, int]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class RegionConfig(BaseModel):
    """One `[[region]]` of build.toml."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Name
    crop: Box | None = None  # x1, y1, x2, y2 in frame pixels; the polygon's box, or the whole frame, when left out
    polygon: tuple[tuple[int, int], ...] | None = None
    valid_area: str | None = None  # PNG of the frame's size, beside build.toml or absolute


class BuildConfig(BaseModel):
    """Everything that a build can be told."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    product: str | None = None  # the data set's name when None
    method: str = "patchcore"
    backbone: str | None = None  # resnet18.tv_in1k, for methods that have one
    weights: str | None = None
    layers: tuple[str, ...] | None = None  # the method's own when None
    size: tuple[Positive, Positive] | None = None
    tile: Positive | None = None
    halo: Annotated[int, Field(ge=0)] | None = None
    scale: Annotated[float, Field(gt=0, le=4)] | None = None
    crop: Box | None = None
    valid_area: str | None = None  # as a flag from here, in build.toml from beside it
    region: tuple[RegionConfig, ...] = ()
    smallest_region: Annotated[int, Field(ge=0)] = 0
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
    return values
