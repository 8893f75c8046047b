"""Owns what a caller asks for, checked before anything is sent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.protocol.messages import CameraFacts, FrameSpec, Trigger

DEADLINE_MS = 1000  # where neither the caller nor the service has named one
_FORMATS = {
    (2, "uint8"): PixelFormat.MONO8,
    (2, "uint16"): PixelFormat.MONO16,
    (3, "uint8"): PixelFormat.RGB8,
    (3, "uint16"): PixelFormat.RGB16,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A trigger as the caller asked for it; its epoch is set when it is first sent."""

    trigger: Trigger
    frame: Frame | None
    started_ns: int


def make_order(
    *,
    trigger_id: str,
    camera: str,
    part_id: str | None,
    deadline_ms: int | None,
    frame: Frame | NDArray[np.uint8 | np.uint16] | None,
    now: int,
) -> Order:
    """Check a trigger and take a copy of its pixels: the caller may reuse the array at once.

    Raises:
        ConfigError: a name, the deadline or the frame cannot be sent.
    """
    try:
        taken = None if frame is None else _copied(frame)
        spec = None if taken is None else _spec(taken)
        trigger = Trigger(
            epoch=0, trigger_id=trigger_id, camera=camera, part_id=part_id, deadline_ms=deadline_ms, frame=spec
        )
    except ValidationError as error:
        raise ConfigError(said(error)) from error
    except DataError as error:
        message = f"frame: {error}"
        raise ConfigError(message) from error
    return Order(trigger=trigger, frame=taken, started_ns=now)


def fitted(frame: Frame, facts: CameraFacts | None) -> Frame:
    """The frame as the camera's bundle takes it, where that loses nothing; else as it is, for the service to judge."""
    target = frame.format.canonical if facts is None else facts.frame.pixel_format.canonical
    if frame.format == target or (frame.format.pattern and frame.format.goes_into(target)):
        return frame  # a mosaic is a third of its colours: the worker makes them
    try:
        made = frame.converted(target)
        return Frame(np.ascontiguousarray(made.pixels), made.format)
    except DataError:
        return frame if facts is None else fitted(frame, None)


def described(frame: Frame) -> tuple[FrameSpec, memoryview]:
    """What a TRIGGER says of its pixels, and the pixels: rows without padding, little-endian."""
    pixels = frame.pixels.astype(frame.format.dtype.newbyteorder("<"), copy=False)
    return _spec(frame), np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data


def _copied(frame: Frame | NDArray[np.uint8 | np.uint16]) -> Frame:
    if isinstance(frame, Frame):
        return Frame(frame.pixels.copy(order="C"), frame.format)
    pixels = np.asarray(frame)
    pixel_format = _FORMATS.get((pixels.ndim, pixels.dtype.name))
    if pixel_format is None:
        message = (
            f"pixels are {pixels.dtype} of shape {pixels.shape}, expected (H, W) or RGB (H, W, 3) of uint8 or uint16"
        )
        raise DataError(message)
    return Frame(pixels.copy(order="C"), pixel_format)


def _spec(frame: Frame) -> FrameSpec:
    width, height = frame.size
    return FrameSpec(width=width, height=height, pixel_format=frame.format)


def said(error: ValidationError) -> str:
    """The first fault, with the name of the argument."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['input']!r}: {first['msg']}"
