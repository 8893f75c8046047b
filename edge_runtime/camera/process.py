"""Owns the camera process: it speaks the frame socket's protocol for one source, and outlives source and service.

Two threads: this one owns the socket and the credit, the grabber's owns the source. The protocol is in
`docs/protocol.md`; what matters here:

- HELLO is repeated until WELCOME comes, and said again when the service forgot us or fell silent;
- a new WELCOME voids all credit; orders of an earlier epoch are dropped;
- every GRAB gets a FRAME, with pixels or with a fault; every exposure of a camera that runs by itself gets one, too;
- the source's health goes out on every change and with every heartbeat.
"""

import gc
import os
import threading
import time
from typing import NamedTuple

import structlog

from edge_runtime.camera.grabber import Exposure, Grabber, Health, Order
from edge_runtime.camera.link import Link
from edge_runtime.camera.outlet import Outlet, Parcel
from edge_runtime.camera.source import Source, make_source
from edge_runtime.decision import Reason
from edge_runtime.errors import CameraError, DataError, ProtocolError
from edge_runtime.imaging.frames import Frame
from edge_runtime.protocol import messages
from edge_runtime.protocol.messages import CameraWelcome, Code, FrameSpec, Header, TriggerMode
from edge_runtime.service.config import CameraFile

_HELLO_S = 0.2
_LAPSE_S = 2.0  # until a WELCOME tells the service's own
_TICK_S = 0.1  # how late a stop or a change may be seen
_LEAST_HEARTBEAT_S = 0.02  # whatever a welcome says
_LEAST_LAPSE_S = 0.1
_OUTCOMES = 64  # in a row, before the socket gets its turn
_LONGEST_TEXT = 2000

_log = structlog.get_logger("takt.camera")


def run_camera(config: CameraFile, stop: threading.Event, source: Source | None = None) -> None:
    """Speak for a camera until told to stop; returns within about a second, even where the source hangs.

    Args:
        config: `camera.toml`.
        stop: ends it.
        source: instead of the one that the configuration names, not open yet.

    Raises:
        ConfigError: the configuration names no source of a camera process, or no address.
    """
    source = source or make_source(
        config.parsed_source, trigger=config.trigger, period_ms=config.period_ms, pixel_format=config.pixel_format
    )
    with Link(config.endpoints.frames, camera=config.name) as link:
        grabber = Grabber(source, camera=config.name, trigger=config.trigger, wake=link.wake)
        _log.info("camera_starts", camera=config.name, source=str(config.parsed_source), trigger=config.trigger.value)
        grabber.start()
        camera = _Camera(config, link, grabber)
        gc.freeze()  # what modules made is for good: no collection looks through it again
        try:
            while not stop.is_set():
                camera.turn()
        finally:
            camera.close()
            ended = grabber.stop(2 * _HELLO_S)
            _log.info("camera_stops", camera=config.name, source_hangs=not ended)


class _Camera:
    """The protocol's state: who knows us, what we may send, what was heard."""

    def __init__(self, config: CameraFile, link: Link, grabber: Grabber) -> None:
        self._config = config
        self._link = link
        self._grabber = grabber
        self._outlet = Outlet(config.transport)
        self._log = _log.bind(camera=config.name)
        self._welcome: CameraWelcome | None = None
        self._epoch: int | None = None  # of the last welcome, also while there is none
        self._ring_fault = ""
        self._hello_at = self._beat_at = self._heard = time.monotonic()
        self._told: Health | None = None
        self._dropped = 0
        self._last_fault: Reason | None = None

    def turn(self) -> None:
        """Read what came, send what is ready, say what is due."""
        now = time.monotonic()
        due = (self._hello_at if self._welcome is None else self._beat_at) - now
        for header in self._link.arrived(min(max(due, 0.0), _TICK_S)):
            self._heard = time.monotonic()
            self._take(header)
        for _ in range(_OUTCOMES):
            outcome = self._grabber.outcome()
            if outcome is None:
                break
            self._send_outcome(outcome)
        self._keep_up(time.monotonic())

    def close(self) -> None:
        """Void what was granted."""
        self._outlet.close()

    def _take(self, header: Header) -> None:
        match header:
            case CameraWelcome():
                self._welcomed(header)
            case messages.Refused():
                self._refused(header)
            case messages.Credit() if self._welcome is not None:
                self._outlet.add(header)
            case messages.Grab() if self._welcome is not None:
                self._ordered(header)
            case _:
                pass  # a heartbeat, which was heard; or a rest of an earlier connection

    def _welcomed(self, welcome: CameraWelcome) -> None:
        if welcome.frame.pixel_format.canonical is not welcome.frame.pixel_format:
            self._link.reject(f"CameraWelcome: frame.pixel_format {welcome.frame.pixel_format} is none of a bundle's")
            return
        if welcome.epoch != self._epoch:
            self._grabber.forget_orders()
        self._welcome, self._epoch = welcome, welcome.epoch
        self._map(welcome)
        self._told, self._beat_at = None, time.monotonic()  # say how we are at once
        size = f"{welcome.frame.width}x{welcome.frame.height} {welcome.frame.pixel_format}"
        self._log.info("camera_welcome", station=welcome.station, epoch=welcome.epoch, frame=size)

    def _map(self, welcome: CameraWelcome) -> None:
        try:
            self._outlet.renew(welcome)
        except CameraError as error:
            if not self._ring_fault:
                self._log.error("ring_unreachable", detail=str(error))
            self._ring_fault = str(error)
        else:
            self._ring_fault = ""

    def _refused(self, refused: messages.Refused) -> None:
        if refused.code is Code.HELLO_FIRST:
            if self._welcome is not None:
                self._forget("hello_again")
            return
        self._log.warning("refused", code=refused.code.value, detail=refused.detail)
        if self._welcome is None:  # the name is taken, or the service knows no such camera: that takes a while
            self._hello_at = time.monotonic() + _LAPSE_S

    def _forget(self, event: str) -> None:
        self._log.warning(event)
        self._welcome = None
        self._outlet.close()
        self._hello_at = time.monotonic()

    def _ordered(self, grab: messages.Grab) -> None:
        if self._config.trigger is not TriggerMode.SOFTWARE:
            self._link.reject(f"Grab: {grab.trigger_id}: this camera is triggered by {self._config.trigger}")
            return
        if grab.epoch != self._epoch:
            self._link.reject(f"Grab: {grab.trigger_id}: of epoch {grab.epoch}, this is epoch {self._epoch}")
            return
        order = Order(epoch=grab.epoch, trigger_id=grab.trigger_id, received=time.monotonic())
        if not self._grabber.order(order):
            detail = "too many triggers wait for the source"
            self._send_outcome(
                Exposure(order=order, counter=self._grabber.exposures, fault=Reason.OVERLOAD, detail=detail)
            )

    def _send_outcome(self, outcome: Exposure) -> None:
        welcome = self._welcome
        if welcome is None or (outcome.order is not None and outcome.order.epoch != self._epoch):
            self._dropped += outcome.fault in {None, Reason.OVERLOAD}  # who wanted it is gone
            return
        sending = self._packed(outcome, welcome.frame)
        parcel = sending.parcel
        header = messages.Frame(
            epoch=welcome.epoch,
            trigger_id=None if outcome.order is None else outcome.order.trigger_id,
            counter=outcome.counter,
            frame=sending.frame,
            slot=parcel.grant.slot if parcel.grant else None,
            generation=parcel.grant.generation if parcel.grant else None,
            fault=sending.fault,
            detail=_text(sending.detail),
            label=None if outcome.label is None else _text(outcome.label),
        )
        sent = self._link.send(header, parcel.pixels)
        self._dropped += sending.fault is Reason.OVERLOAD or (sending.fault is None and not sent)
        if sending.fault is not None and (outcome.order is not None or sending.fault is not self._last_fault):
            fields = {"trigger_id": header.trigger_id, "counter": header.counter, "detail": header.detail}
            self._log.warning("frame_fault", fault=sending.fault.value, **fields)
        self._last_fault = sending.fault

    def _packed(self, outcome: Exposure, spec: FrameSpec) -> "_Sending":
        if outcome.frame is None:
            return _Sending(outcome.fault, outcome.detail)
        try:
            made = _fitting(outcome.frame, outcome.label, spec)
            if not self._outlet.open:
                detail = self._ring_fault or "no slot is free: frames come faster than they are inspected"
                return _Sending(Reason.OVERLOAD, detail)
            sent = spec.model_copy(update={"pixel_format": made.format})
            return _Sending(None, "", self._outlet.put(made.pixels, sent), sent)
        except DataError as error:
            return _Sending(Reason.BAD_IMAGE, str(error))
        except ProtocolError as error:
            return _Sending(Reason.NO_FRAME, f"the service granted a slot that cannot be used: {error}")

    def _keep_up(self, now: float) -> None:
        welcome = self._welcome
        if welcome is None:
            if now >= self._hello_at:
                self._hello_at = now + _HELLO_S
                self._hello()
            return
        if now - self._heard > max(welcome.lapse_ms / 1000, _LEAST_LAPSE_S):
            self._forget("service_silent")
            return
        beat = now >= self._beat_at
        if beat:
            self._beat_at = now + max(welcome.heartbeat_ms / 1000, _LEAST_HEARTBEAT_S)
            self._link.send(messages.Heartbeat(epoch=welcome.epoch))
            if self._ring_fault:
                self._hello()  # another welcome brings the ring and its grants again
        self._tell(always=beat)

    def _hello(self) -> None:
        hello = messages.CameraHello(
            name=self._config.name,
            instance=self._link.instance,
            trigger=self._config.trigger,
            transport=self._config.transport,
            pid=os.getpid(),
        )
        self._link.send(hello)

    def _tell(self, *, always: bool) -> None:
        health = self._grabber.health()
        if self._ring_fault:
            health = Health(ok=False, detail=self._ring_fault)
        if always or health != self._told:
            state = messages.CameraState(
                ok=health.ok, detail=_text(health.detail), exposures=self._grabber.exposures, dropped=self._dropped
            )
            self._told = health if self._link.send(state) else None


class _Sending(NamedTuple):
    """A frame on its way, or why there is none."""

    fault: Reason | None
    detail: str
    parcel: Parcel = Parcel(None, None)
    frame: FrameSpec | None = None


def _fitting(frame: Frame, label: str | None, spec: FrameSpec) -> Frame:
    """A frame, (H, W, C), in the layout that the bundle inspects.

    Raises:
        DataError: the frame is of another size, or would lose something.
    """
    if frame.size != (spec.width, spec.height):
        message = (
            f"{label or 'frame'}: is {frame.size}, the bundle takes {spec.width}x{spec.height}: "
            "set the camera's size, or build the bundle from its images"
        )
        raise DataError(message)
    return frame.converted(spec.pixel_format)


def _text(text: str) -> str:
    """As it may go on the wire: a file's name need not be Unicode."""
    return text.encode(errors="replace").decode()[:_LONGEST_TEXT]
