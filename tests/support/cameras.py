"""Toy cameras: the production Protocols `Source` and `Capture`, with frames and faults that a test can work out."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.camera.process import run_camera
from edge_runtime.camera.source import Captured, Source
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.service.config import CameraFile


def grey(value: int, *, width: int = 8, height: int = 6) -> NDArray[np.uint8]:
    """(H, W) of one brightness."""
    return np.full((height, width), value, dtype=np.uint8)


def write_images(folder: Path, **values: int) -> None:
    """One grey PNG for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        cv2.imwrite(str(folder / f"{name}.png"), grey(value))


def write_video(path: Path, values: list[int], *, rate: float = 25.0) -> None:
    """An MJPG file of grey frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (64, 48))
    for value in values:
        writer.write(np.full((48, 64, 3), value, dtype=np.uint8))
    writer.release()


class ScriptedSource:
    """A `Source` that gives, for each `grab`, the next thing it was told: a brightness, an error, or an event to wait for."""

    period_s = None

    def __init__(self, *script: int | Exception | threading.Event) -> None:
        """Begin with a script; `then` adds to it. Opening works, unless `refuses` is set."""
        self._script: queue.Queue[int | Exception | threading.Event] = queue.Queue()
        self.opened = 0
        self.refuses: Exception | None = None
        self.then(*script)

    def then(self, *script: int | Exception | threading.Event) -> None:
        """Go on with this."""
        for step in script:
            self._script.put(step)

    def open(self) -> None:
        """Count, or refuse."""
        if self.refuses is not None:
            raise self.refuses
        self.opened += 1

    def check(self) -> None:
        """All is well, unless it is not."""
        if self.refuses is not None:
            raise self.refuses

    def grab(self) -> Captured:
        """Do the next step of the script, when there is one."""
        step = self._script.get()
        while isinstance(step, threading.Event):
            step.wait()
            step = self._script.get()
        if isinstance(step, Exception):
            raise step
        return Captured(frame=Frame(grey(step), PixelFormat.MONO8), label=f"frame {step}")

    def close(self) -> None:
        """Nothing to close."""


class ToyDevice:
    """A `Capture` that exposes without pause; a frame arrives one period after its exposure ended.

    Its pixels say which exposure it is. While `stalled`, frames pile up in a buffer and come as a burst afterwards.
    """

    def __init__(self, *, period_s: float = 0.01) -> None:
        """Expose from now on."""
        self.period_s = period_s
        self.begin = time.monotonic()
        self.stalled = threading.Event()
        self.gone = False
        self.released = False
        self._number = -1

    def exposed(self, pixels: NDArray[Any]) -> float:
        """When the exposure of a frame (RGB) began."""
        red, green, blue = (int(value) for value in pixels[0, 0])
        return self.begin + (blue + 256 * green + 65_536 * red) * self.period_s

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Whether it is plugged in."""
        return not self.gone

    def grab(self) -> bool:
        """Wait for the next frame."""
        self._number += 1
        while not self.gone and (time.monotonic() < self._arrival or self.stalled.is_set()):
            time.sleep(0.001)
        return not self.gone

    def retrieve(self) -> tuple[bool, NDArray[Any]]:
        """(4, 4, 3) BGR that hold the number of the exposure."""
        number = self._number
        colour = (number % 256, number // 256 % 256, number // 65_536)
        return True, np.full((4, 4, 3), colour, dtype=np.uint8)

    def get(self, prop: int, /) -> float:
        """The stamp of the frame: the device's own clock, which began long ago."""
        return 5e6 + self._number * self.period_s * 1000 if prop == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        """Never while somebody grabs; the one who grabs calls it."""
        self.released = True

    @property
    def _arrival(self) -> float:
        return self.begin + (self._number + 2) * self.period_s


@contextmanager
def running(config: CameraFile, source: Source | None = None) -> Iterator[threading.Thread]:
    """The camera process as a thread; stopped at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=run_camera, args=(config, stop, source))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)
    if thread.is_alive():
        pytest.fail("the camera did not stop")
