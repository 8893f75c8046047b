"""Owns the thread that owns the source: it takes frames, opens again what failed, and never ends for a source's sake.

A source may block for seconds or hang in a driver. So it has a thread of its own, and the thread that speaks with the
service goes on answering. They share two bounded queues and a wake-up, nothing else.
"""

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from edge_runtime.camera.source import Source
from edge_runtime.decision import Reason
from edge_runtime.errors import DataError, TaktError
from edge_runtime.imaging.frames import Frame
from edge_runtime.protocol.messages import TriggerMode

HANG_S = 2.0  # a source that is silent for so long where a frame is due is reported
_ORDERS = 64  # GRABs that may wait; the service never has more frames in work
_OUTCOMES = 64
_FRAMES = 4  # outcomes that may hold pixels while they wait
_BACKOFF_S = (0.2, 2.0)  # first and longest pause between attempts to open
_IDLE_S = 0.2  # between looks at a source that nobody asks for frames

_log = structlog.get_logger("takt.camera")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A GRAB of the service, and when it came, in seconds of the monotonic clock."""

    epoch: int
    trigger_id: str
    received: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """What became of an order, or of one exposure of a camera that runs by itself."""

    order: Order | None
    counter: int
    frame: Frame | None = None
    label: str | None = None
    fault: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether the source gives frames; the detail says what to do where it does not."""

    ok: bool
    detail: str


class Grabber:
    """Takes frames from a source in a daemon thread; a source that hangs does not keep the process alive."""

    def __init__(self, source: Source, *, camera: str, trigger: TriggerMode, wake: Callable[[], None]) -> None:
        """The thread starts with `start`.

        Args:
            source: not open yet.
            camera: its name, for the log.
            trigger: software waits for orders; the others take frames as they come.
            wake: called from the thread when there is an outcome or the health changed.
        """
        self._source = source
        self._software = trigger is TriggerMode.SOFTWARE
        self._awaited = trigger is not TriggerMode.HARDWARE  # silence of a line that nobody triggers is no fault
        self._wake = wake
        self._log = _log.bind(camera=camera)
        self._orders: queue.Queue[Order] = queue.Queue(_ORDERS)
        self._outcomes: queue.Queue[Exposure] = queue.Queue(_OUTCOMES)
        self._room = threading.Semaphore(_FRAMES)
        self._stopping = threading.Event()
        context = contextvars.copy_context()  # for the log: the process's name is in it
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"grabber {camera}", daemon=True)
        self._health = Health(ok=False, detail="the source is being opened")
        self._busy_since: float | None = None
        self._next = 0.0
        self.exposures = 0  # written by the thread only

    def start(self) -> None:
        """Begin to open the source."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end, and whether it did in time."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def order(self, order: Order) -> bool:
        """Queue an order behind the earlier ones; false where too many wait."""
        try:
            self._orders.put_nowait(order)
        except queue.Full:
            return False
        return True

    def outcome(self) -> Exposure | None:
        """The oldest outcome that was not collected yet."""
        try:
            outcome = self._outcomes.get_nowait()
        except queue.Empty:
            return None
        if outcome.frame is not None:
            self._room.release()
        return outcome

    def forget_orders(self) -> None:
        """Drop what waits: the service that ordered it is gone."""
        with suppress(queue.Empty):
            for _ in range(_ORDERS):
                self._orders.get_nowait()

    def health(self) -> Health:
        """How the source does now; a source that hangs is not well, whatever it was before."""
        since = self._busy_since
        if since is not None and self._health.ok and time.monotonic() - since > HANG_S:
            return Health(ok=False, detail=f"the source has not answered for more than {HANG_S:g} s: see its cable")
        return self._health

    def _run(self) -> None:
        pause, longest = _BACKOFF_S
        while not self._stopping.is_set():
            if self._opened():
                before = self.exposures
                self._next = time.monotonic()
                while not self._stopping.is_set() and self._health.ok:
                    self._turn()
                self._closed()
                pause = pause if self.exposures == before else _BACKOFF_S[0]  # what opens and gives nothing can wait
            self._refuse_for(pause)
            pause = min(2 * pause, longest)

    def _opened(self) -> bool:
        opened = self._attempt(self._source.open)
        if opened:
            self._report(Health(ok=True, detail=""))
        return opened

    def _closed(self) -> None:
        health = self._health
        self._attempt(self._source.close)
        self._health = health  # what made us close it is what the reader wants to know

    def _turn(self) -> None:
        if self._software:
            self._serve_next()
            return
        period = self._source.period_s
        if period is not None:
            now = time.monotonic()
            if self._stopping.wait(max(0.0, self._next - now)):
                return
            missed = max(0, int((now - self._next) / period))
            self._next += (missed + 1) * period  # always on the grid: one slow frame shifts no later one
        self._take(None)

    def _serve_next(self) -> None:
        try:
            order = self._orders.get(timeout=_IDLE_S)
        except queue.Empty:
            self._attempt(self._source.check)
            return
        waited = time.monotonic() - order.received
        if waited > HANG_S:  # a frame taken now would show another part
            self._put(self._failed(order, Reason.NO_FRAME, f"the source kept this trigger waiting for {waited:.1f} s"))
            return
        self._take(order)

    def _take(self, order: Order | None) -> None:
        self._busy_since = time.monotonic() if self._awaited else None
        try:
            captured = self._source.grab()
        except DataError as error:
            self.exposures += 1
            self._put(self._failed(order, Reason.BAD_IMAGE, str(error)))
        except Exception as error:  # noqa: BLE001 - whatever a driver throws, the camera goes on
            self._failing(error)
            if order is not None:
                self._put(self._failed(order, Reason.NO_FRAME, self._health.detail))
        else:
            self.exposures += 1
            self._put(
                Exposure(order=order, counter=self.exposures, frame=captured.frame, label=captured.label),
            )
        finally:
            self._busy_since = None

    def _refuse_for(self, seconds: float) -> None:
        """Answer orders at once while the source is away."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            try:
                order = self._orders.get(timeout=min(left, _IDLE_S))
            except queue.Empty:
                continue
            self._put(self._failed(order, Reason.NO_FRAME, self._health.detail))

    def _attempt(self, call: Callable[[], None]) -> bool:
        self._busy_since = time.monotonic()
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever a driver throws, the camera goes on
            self._failing(error)
            return False
        finally:
            self._busy_since = None
        return True

    def _failing(self, error: Exception) -> None:
        expected = isinstance(error, TaktError)
        detail = str(error) if expected else f"the source failed: {type(error).__name__}: {error}"
        if not expected:
            self._log.error("source_error", detail=detail, exc_info=error)
        self._report(Health(ok=False, detail=detail))

    def _report(self, health: Health) -> None:
        if health != self._health:
            self._health = health
            self._log.info("source_ok") if health.ok else self._log.warning("source_failed", detail=health.detail)
            self._wake()

    def _failed(self, order: Order | None, reason: Reason, detail: str) -> Exposure:
        return Exposure(order=order, counter=self.exposures, fault=reason, detail=detail)

    def _put(self, outcome: Exposure) -> None:
        """Hand an outcome over; few may hold pixels. Orders wait for room, a camera that runs by itself cannot."""
        if outcome.frame is not None and not self._has_room():
            late = "frames come faster than they can be handed over: see the load of this machine"
            outcome = Exposure(order=outcome.order, counter=outcome.counter, fault=Reason.OVERLOAD, detail=late)
        try:
            self._outcomes.put_nowait(outcome)
        except queue.Full:  # the service misses a counter, and says so
            self._log.warning("outcome_dropped", counter=outcome.counter)
        self._wake()

    def _has_room(self) -> bool:
        if not self._software:
            return self._room.acquire(blocking=False)
        return self._room.acquire(timeout=HANG_S)
