"""Owns frames from OpenCV's captures: video files, and live devices of which each frame is wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
from numpy.typing import NDArray

from edge_runtime.camera.source import Captured, canonical
from edge_runtime.errors import CameraError
from edge_runtime.imaging.frames import Frame, PixelFormat

TIMEOUT_MS = 2000  # for opening a stream, and for each of its frames
_FASTEST = 1000.0  # frames a second; above it, a file's own rate is taken for nonsense


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Whether there is something to take frames from."""

    def grab(self) -> bool:
        """Wait for the next frame; false where there is none any more."""

    def retrieve(self) -> tuple[bool, NDArray[Any]]:
        """The grabbed frame: (H, W, 3) uint8, BGR."""

    def get(self, prop: int, /) -> float:
        """A property of the stream."""

    def release(self) -> None:
        """Let go of it; never while another thread grabs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A live device: how to open it, and how late its frames may be."""

    name: str
    capture: Callable[[], Capture]
    advice: str  # what to do where it does not answer
    delay_s: float  # that every frame may have on its way, which nothing on this side can see

    def open(self) -> Capture:
        """A capture that gives frames.

        Raises:
            CameraError: the device does not answer.
        """
        capture = self.capture()
        if not capture.isOpened():
            message = f"{self.name}: cannot be opened: {self.advice}"
            raise CameraError(message)
        return capture


def usb(number: int) -> Device:
    """The USB camera of a number."""
    return Device(
        name=f"usb:{number}",
        capture=lambda: cast("Capture", cv2.VideoCapture(number, cv2.CAP_ANY)),
        advice="plug it in, close other programs that use it, and see that this user may read it",
        delay_s=0.0,
    )


def rtsp(url: str) -> Device:
    """A network camera; opening and reading give up after two seconds."""
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        TIMEOUT_MS,
        cv2.CAP_PROP_N_THREADS,  # a decoder of many threads holds back a frame for each of them
        1,
    ]
    head, scheme, rest = url.partition("://")
    return Device(
        name=f"rtsp:{head}{scheme}{rest.rpartition('@')[2]}",  # without the password
        capture=lambda: cast("Capture", cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)),
        advice="see that the camera is on, that this host reaches its address, and that user and password are right",
        delay_s=0.3,
    )


class VideoFileSource:
    """The frames of a video file in order, from the start again at the end; a `Source`."""

    def __init__(self, path: Path, *, period_s: float) -> None:
        """Nothing is read yet; `period_s` is for files that do not say their rate."""
        self._path = path
        self._default_s = period_s
        self._capture: Capture | None = None
        self._number = 0

    @property
    def period_s(self) -> float:
        """Seconds between frames: the file's own, where it has a rate."""
        rate = self._capture.get(cv2.CAP_PROP_FPS) if self._capture is not None else 0.0
        return 1 / rate if 0 < rate <= _FASTEST else self._default_s

    def open(self) -> None:
        """Open the file at its start.

        Raises:
            CameraError: it is not there, or no video.
        """
        self.close()
        self.check()
        capture = cast("Capture", cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG))
        if not capture.isOpened():
            message = f"{self._path}: is no video that can be read: save it again, as MJPG or H.264"
            raise CameraError(message)
        self._capture, self._number = capture, 0

    def check(self) -> None:
        """Look whether the file is still there.

        Raises:
            CameraError: it is not.
        """
        if not self._path.is_file():
            message = f"{self._path}: the video file is not there: put it back, or correct `source`"
            raise CameraError(message)

    def grab(self) -> Captured:
        """The next frame.

        Raises:
            CameraError: the file is gone, or holds no frame.
        """
        frame = self._read()
        if frame is None:
            self.open()
            frame = self._read()
        if frame is None:
            message = f"{self._path}: holds no frame: save the video again"
            raise CameraError(message)
        self._number += 1
        return Captured(frame=frame, label=f"{self._path.name}#{self._number}")

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _read(self) -> Frame | None:
        if self._capture is None or not self._capture.grab():
            return None
        return retrieved(self._capture)


class LiveSource:
    """Every frame of a live device, as it delivers them; a `Source`."""

    period_s = None

    def __init__(self, device: Device) -> None:
        """Nothing is opened yet."""
        self._device = device
        self._capture: Capture | None = None

    def open(self) -> None:
        """Open the device.

        Raises:
            CameraError: it does not answer.
        """
        self.close()
        self._capture = self._device.open()

    def check(self) -> None:
        """Nothing is known of a device between its frames."""

    def grab(self) -> Captured:
        """Wait for the next frame.

        Raises:
            CameraError: none came in time, or the device is gone.
        """
        frame = retrieved(self._capture) if self._capture is not None and self._capture.grab() else None
        if frame is None:
            message = f"{self._device.name}: stopped giving frames: {self._device.advice}"
            raise CameraError(message)
        return Captured(frame=frame, label=None)

    def close(self) -> None:
        """Let go of the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def retrieved(capture: Capture) -> Frame | None:
    """The frame that a capture has just grabbed, RGB; none where it could not be decoded."""
    done, pixels = capture.retrieve()
    return canonical(Frame(pixels, PixelFormat.BGR8)) if done else None


__all__ = ["TIMEOUT_MS", "Capture", "Device", "LiveSource", "VideoFileSource", "retrieved", "rtsp", "usb"]
