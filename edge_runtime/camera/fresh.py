"""Owns frames of a live device on demand: exposed after they were asked for, never before.

A live device fills buffers: OpenCV's, the driver's, the network's. What a capture gives next was exposed earlier, by an
unknown number of frames, and may show the part before. So a thread reads all frames as they come and throws them away,
and a call waits for one that came late enough. Draining the buffers at the call would be cheaper, but nothing tells the
last old frame from the first new one: a drained buffer and a slow one look alike.

Late enough is: two frames that arrived after the call are passed over (the first was read out, the second may have been
in exposure at that moment), arrival being counted without the time in buffers (`ArrivalClock`), and later than the
device's `delay_s`. Frames of the first half second after opening are not given: they come as a burst.
"""

import threading
import time

import cv2

from edge_runtime.camera.clock import ArrivalClock
from edge_runtime.camera.source import Captured
from edge_runtime.camera.video import TIMEOUT_MS, Capture, Device, retrieved
from edge_runtime.errors import CameraError, DataError
from edge_runtime.imaging.frames import Frame

PASSED_OVER = 2
SETTLE_S = 0.5
_TIMEOUT_S = TIMEOUT_MS / 1000


class FreshSource:
    """A live device that is triggered by software; a `Source`."""

    period_s = None

    def __init__(self, device: Device, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Nothing is opened yet; `timeout_s` bounds the wait for a frame."""
        self._device = device
        self._timeout_s = timeout_s
        self._reader: _Reader | None = None

    def open(self) -> None:
        """Open the device and wait until it gives frames.

        Raises:
            CameraError: it does not answer, or gives none.
        """
        self.close()
        if self._reader is not None and self._reader.is_alive():
            message = f"{self._device.name}: hangs in an earlier call: {self._device.advice}"
            raise CameraError(message)
        self._reader = None
        reader = _Reader(self._device, self._device.open())
        reader.start()
        self._reader = reader
        reader.wait_for_first(self._timeout_s)

    def check(self) -> None:
        """Look whether frames still come.

        Raises:
            CameraError: they do not.
        """
        self._open_reader().check(self._timeout_s)

    def grab(self) -> Captured:
        """Wait for a frame that was exposed after this call.

        Raises:
            CameraError: none came in time, or the device is gone.
        """
        frame = self._open_reader().fresh(self._timeout_s + self._device.delay_s)
        return Captured(frame=frame, label=None)

    def close(self) -> None:
        """Tell the reading thread to let go of the device; only it may, and it may hang."""
        if self._reader is not None:
            self._reader.stop()

    def _open_reader(self) -> "_Reader":
        if self._reader is None:
            message = f"{self._device.name}: is not open"
            raise CameraError(message)
        return self._reader


class _Reader(threading.Thread):
    """Reads every frame of a capture; what is late enough for the one who asked is handed over."""

    def __init__(self, device: Device, capture: Capture) -> None:
        super().__init__(name=f"reader {device.name}", daemon=True)
        self._device = device
        self._capture = capture
        self._clock = ArrivalClock()
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards all below
        self._first: float | None = None
        self._newest = 0.0
        self._asked: float | None = None
        self._passed = 0
        self._given: Frame | None = None
        self._fault = ""

    def run(self) -> None:
        """Read until told to stop or the device gives no more; then let go of it."""
        fault = "stopped giving frames"
        try:
            while not self._stopping.is_set() and self._capture.grab():
                if not self._took():
                    break
        except (cv2.error, DataError) as error:
            fault = f"gave an error instead of a frame ({error})"
        finally:
            self._capture.release()
            with self._changed:
                self._fault = f"{self._device.name}: {fault}: {self._device.advice}"
                self._changed.notify_all()

    def stop(self) -> None:
        """Read no more."""
        self._stopping.set()

    def wait_for_first(self, timeout_s: float) -> None:
        """Wait until the device has given a frame.

        Raises:
            CameraError: it gave none in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first is not None or self._fault, timeout_s)
            if self._first is None:
                raise CameraError(self._fault or self._silence(timeout_s))

    def check(self, timeout_s: float) -> None:
        """Look whether a frame came lately.

        Raises:
            CameraError: none did.
        """
        with self._changed:
            if self._fault or time.monotonic() - self._newest > timeout_s:
                raise CameraError(self._fault or self._silence(timeout_s))

    def fresh(self, timeout_s: float) -> Frame:
        """Wait for a frame exposed after this call.

        Raises:
            CameraError: none came in time.
        """
        with self._changed:
            self._asked, self._passed = time.monotonic(), 0
            self._changed.wait_for(lambda: self._given or self._fault, timeout_s)
            frame, self._given, self._asked = self._given, None, None
            if frame is None:
                raise CameraError(self._fault or self._silence(timeout_s))
            return frame

    def _took(self) -> bool:
        """Look at the frame that was grabbed; false where it cannot be had."""
        now = time.monotonic()
        arrived = self._clock.arrived(now, self._capture.get(cv2.CAP_PROP_POS_MSEC))
        with self._changed:
            if self._first is None:
                self._first = now
                self._changed.notify_all()
            self._newest = now
            asked = self._asked
            if asked is None or arrived <= max(asked + self._device.delay_s, self._first + SETTLE_S):
                return True
            self._passed += 1
            if self._passed <= PASSED_OVER:
                return True
        frame = retrieved(self._capture)
        with self._changed:
            if self._asked == asked:
                self._given = frame
                self._changed.notify_all()
        return frame is not None

    def _silence(self, timeout_s: float) -> str:
        return f"{self._device.name}: gave no frame for {timeout_s:g} s: {self._device.advice}"
