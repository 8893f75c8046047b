"""Owns `line.toml` and `camera.toml`: what they may say, and what their errors say."""

import json
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.formats import PixelFormat, parse_pixel_format
from edge_runtime.protocol.endpoints import Endpoints, parse_endpoint
from edge_runtime.protocol.messages import DeadlineMs, Name, Transport, TriggerMode

Text = Annotated[str, Field(min_length=1, max_length=128)]
PeriodMs = Annotated[int, Field(ge=1, le=3_600_000)]

FileFormat = Annotated[PixelFormat, BeforeValidator(parse_pixel_format)]  # in any case, as data sheets write it


class SourceKind(StrEnum):
    """Where frames come from."""

    FOLDER = "folder"
    VIDEO = "video"
    USB = "usb"
    RTSP = "rtsp"
    PROCESS = "process"  # `takt camera`, started by somebody else
    CLIENT = "client"  # the client sends the frame with its trigger


class SourceSpec(NamedTuple):
    """A source as `kind:where`."""

    kind: SourceKind
    where: str

    def __str__(self) -> str:
        """As it is written."""
        separator = "" if not self.where else ":"
        # rtsp:URL would show a password in a log; a URL is shown without its user
        return f"{self.kind}{separator}{_without_user(self.where)}"


_BARE = {SourceKind.PROCESS, SourceKind.CLIENT}


def parse_source(text: str) -> SourceSpec:
    """Read `folder:DIR`, `video:FILE`, `usb:N`, `rtsp:URL`, `process` or `client`.

    Raises:
        ValueError: it is none of these.
    """
    head, _, where = text.partition(":")
    if head not in set(SourceKind) or (head in _BARE) != (not where):
        message = f"source {text!r}: expected folder:DIR, video:FILE, usb:N, rtsp:URL, process or client"
        raise ValueError(message)
    kind = SourceKind(head)
    if kind is SourceKind.USB and not where.isdecimal():
        message = f"source {text!r}: expected usb:N with the number of the camera, such as usb:0"
        raise ValueError(message)
    if kind is SourceKind.RTSP and not where.startswith(("rtsp://", "rtsps://")):
        message = f"source {text!r}: expected rtsp: and a URL, such as rtsp:rtsp://camera/stream"
        raise ValueError(message)
    return SourceSpec(kind, where)


def _check_stated(stated: PixelFormat | None, source: SourceSpec) -> None:
    """Refuse a format that would be believed to do something.

    Raises:
        ValueError: it is stated of a source that says itself what it gives.
    """
    if stated is not None and source.kind is not SourceKind.FOLDER:
        message = (
            f"pixel_format {stated} with source {source.kind}: it says what image files hold that cannot tell it themselves, "
            "so it goes with folder:DIR; leave it out"
        )
        raise ValueError(message)


class _File(BaseModel):
    """Frozen, no conversions between types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class CameraConfig(_File):
    """One `[[camera]]` of `line.toml`."""

    name: Name
    bundle: Path
    source: str
    trigger: TriggerMode = TriggerMode.SOFTWARE
    deadline_ms: DeadlineMs = 1000
    slots: Annotated[int, Field(ge=1, le=64)] = 4  # frames that may be in work; one trigger more is OVERLOAD
    period_ms: PeriodMs = 100  # between the frames of a folder that streams
    early_reject: bool = False  # answer REJECT as soon as it is certain, without scoring the rest of the frame
    pairing_ms: PeriodMs = 200  # hardware: a frame and its trigger come within this; parts more than twice that apart
    pixel_format: FileFormat | None = None  # of a folder's files, where they cannot tell: a mosaic, or its depth

    @field_validator("source")
    @classmethod
    def _check_source(cls, text: str) -> str:
        parse_source(text)
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.parsed_source.kind is SourceKind.CLIENT and self.trigger is not TriggerMode.SOFTWARE:
            message = f"trigger {self.trigger} with source client: the frame comes with the client's trigger, leave `trigger` out"
            raise ValueError(message)
        _check_stated(self.pixel_format, self.parsed_source)
        return self

    @property
    def parsed_source(self) -> SourceSpec:
        """The source, taken apart."""
        return parse_source(self.source)


class LineConfig(_File):
    """`line.toml`: one station."""

    station: Text
    run_dir: Path
    endpoint: str
    camera: Annotated[tuple[CameraConfig, ...], Field(min_length=1)]
    workers: Annotated[int, Field(ge=1, le=64)] = 1  # processes for each bundle
    threads: Annotated[int, Field(ge=1, le=256)] | None = None  # CPU threads of one inspection; all when not given
    graph: GraphRole = GraphRole.TILE  # of every bundle that the station runs: on tiles, or on the whole frame at once
    artefact: Text | None = None  # which of each bundle's is run; the bundle's default when not given
    journal_days: Annotated[int, Field(ge=1, le=3650)] = 30  # how long answers are kept
    hang_ms: Annotated[int, Field(ge=100, le=600_000)] = 10_000  # an inspection that takes longer is taken for stuck
    warm_previous: bool = True  # keep the bundle before the active one loaded, for an instant rollback

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [camera.name for camera in self.camera]
        if len(set(names)) != len(names):
            message = f"camera names {names} are not unique"
            raise ValueError(message)
        return self

    @property
    def endpoints(self) -> Endpoints:
        """The service's addresses."""
        return parse_endpoint(self.endpoint)


class CameraFile(_File):
    """`camera.toml`: one camera process of its own."""

    endpoint: str
    name: Name
    source: str
    trigger: TriggerMode = TriggerMode.SOFTWARE
    transport: Transport = Transport.MEMORY
    period_ms: PeriodMs = 100
    pixel_format: FileFormat | None = None  # as in `line.toml`

    @field_validator("source")
    @classmethod
    def _check_source(cls, text: str) -> str:
        if parse_source(text).kind in _BARE:
            message = f"source {text!r}: a camera process takes folder:DIR, video:FILE, usb:N or rtsp:URL"
            raise ValueError(message)
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_stated(self.pixel_format, self.parsed_source)
        return self

    @property
    def parsed_source(self) -> SourceSpec:
        """The source, taken apart."""
        return parse_source(self.source)

    @property
    def endpoints(self) -> Endpoints:
        """The service's addresses."""
        return parse_endpoint(self.endpoint)


_Config = TypeVar("_Config", LineConfig, CameraFile)


def read_line(path: Path) -> LineConfig:
    """Read `line.toml`; relative paths count from its folder.

    Raises:
        ConfigError: the file cannot be read, or says what it may not say.
    """
    config = _read(path, LineConfig)
    parse_endpoint(config.endpoint, f"{path}: endpoint")
    home = path.resolve().parent
    cameras = tuple(
        camera.model_copy(update={"bundle": home / camera.bundle, "source": _anchored(camera.parsed_source, home)})
        for camera in config.camera
    )
    return config.model_copy(update={"run_dir": home / config.run_dir, "camera": cameras})


def read_camera(path: Path) -> CameraFile:
    """Read `camera.toml`; relative paths count from its folder.

    Raises:
        ConfigError: the file cannot be read, or says what it may not say.
    """
    config = _read(path, CameraFile)
    parse_endpoint(config.endpoint, f"{path}: endpoint")
    return config.model_copy(update={"source": _anchored(config.parsed_source, path.resolve().parent)})


def _anchored(source: SourceSpec, home: Path) -> str:
    if source.kind in {SourceKind.FOLDER, SourceKind.VIDEO}:
        return f"{source.kind}:{home / source.where}"
    return source.kind.value if source.kind in _BARE else f"{source.kind}:{source.where}"


def _read(path: Path, model: type[_Config]) -> _Config:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}): give the file's path"
        raise ConfigError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: is not TOML: {error}"
        raise ConfigError(message) from error
    try:
        return model.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if len(faults) > 1:  # a list is called too short, too, when none of its items can be used
            faults = [fault for fault in faults if fault["type"] != "too_short"]
        lines = [f"{path}: {_said(fault)}" for fault in faults]
        raise ConfigError("\n".join(lines)) from error


def _said(fault: Any) -> str:  # noqa: ANN401 - pydantic's own dictionary
    where = ".".join(str(step) for step in fault["loc"]) or "file"
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such key; remove it or correct its name"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"


def _without_user(url: str) -> str:
    head, scheme, rest = url.partition("://")
    return url if not scheme else f"{head}://{rest.rpartition('@')[2]}"
