"""Owns what a source of frames is, and which class stands for which source of a configuration file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.protocol.messages import TriggerMode
from edge_runtime.service.config import SourceKind, SourceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A frame as a source gave it; `pixels` are RGB or grey and are changed by nobody."""

    frame: Frame
    label: str | None  # what the source calls the frame: a file's name


class Source(Protocol):
    """Gives frames, one a call. One thread uses it; it may be opened again after any error, and goes on where it was."""

    @property
    def period_s(self) -> float | None:
        """Seconds between frames where the source has no pace of its own; None where `grab` waits for the device."""

    def open(self) -> None:
        """Get ready; what was open before is closed.

        Raises:
            CameraError: the source cannot be reached; the message says what to do.
        """

    def check(self) -> None:
        """Look whether the source would still give frames, at no cost and without taking one.

        Raises:
            CameraError: it would not; it has to be opened again.
        """

    def grab(self) -> Captured:
        """Take a frame, in bounded time.

        Raises:
            CameraError: the source gave none; it has to be opened again.
            DataError: it gave something that is no image; the next call goes on with the next frame.
        """

    def close(self) -> None:
        """Let go of the device, without waiting for it."""


def make_source(
    spec: SourceSpec, *, trigger: TriggerMode, period_ms: int, pixel_format: PixelFormat | None = None
) -> Source:
    """The source that a configuration names, not yet open.

    Args:
        spec: `folder:DIR`, `video:FILE`, `usb:N` or `rtsp:URL`.
        trigger: a live device that is triggered by software gives a frame exposed after the call; otherwise each frame.
        period_ms: between frames of a source without a pace of its own.
        pixel_format: of image files that cannot tell it themselves.

    Raises:
        ConfigError: a camera process cannot take frames from such a source.
    """
    from edge_runtime.camera import folder, fresh, video  # noqa: PLC0415 - they import what this module defines

    match spec.kind:
        case SourceKind.FOLDER:
            return folder.FolderSource(Path(spec.where), period_s=period_ms / 1000, stated=pixel_format)
        case SourceKind.VIDEO:
            return video.VideoFileSource(Path(spec.where), period_s=period_ms / 1000)
        case SourceKind.USB | SourceKind.RTSP:
            device = video.usb(int(spec.where)) if spec.kind is SourceKind.USB else video.rtsp(spec.where)
            return fresh.FreshSource(device) if trigger is TriggerMode.SOFTWARE else video.LiveSource(device)
        case _:
            message = f"source {spec}: a camera process takes folder:DIR, video:FILE, usb:N or rtsp:URL"
            raise ConfigError(message)


def canonical(frame: Frame) -> Frame:
    """The frame as bundles take it, mosaics in colour; done once a frame, here, and fast (numpy takes ten times as long).

    Raises:
        DataError: the pixels are not what the frame's format promises.
    """
    target: PixelFormat = frame.format.canonical
    if target is frame.format:
        return frame
    if frame.format.layout != "bgr" or frame.format.states_depth:
        return frame.converted(target)
    return Frame(cv2.cvtColor(frame.pixels, cv2.COLOR_BGR2RGB), target)  # type: ignore[arg-type]
