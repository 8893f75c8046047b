"""The service's end of the frame socket, as simple as can be: real messages on a real ROUTER, driven by a test."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import (
    AT_FRAMES,
    CameraHello,
    CameraState,
    CameraWelcome,
    Code,
    Credit,
    Frame,
    FrameSpec,
    Grab,
    Header,
    Heartbeat,
    Refused,
    RingSpec,
    SlotGrant,
    State,
    Transport,
)
from edge_runtime.protocol.ring import Ring, slot_bytes

PATIENCE_S = 20.0  # a test that waits so long has failed

_Kind = TypeVar("_Kind", bound=Header)


class BrokerSide:
    """Answers heartbeats by itself; all else a test does. Messages of an unknown route get HELLO_FIRST."""

    def __init__(self, run_dir: Path, frame: FrameSpec, *, slots: int = 2, epoch: int = 1) -> None:
        """Listen on a free port of loopback."""
        self.run_dir = run_dir
        self.frame = frame
        self.slots = slots
        self.epoch = epoch
        self.heartbeat_ms = 50
        self.lapse_ms = 1000
        self.hello: CameraHello | None = None
        self.states: deque[CameraState] = deque()
        self.heartbeats = 0
        self.mute = False  # neither reads nor answers, as a service that hangs
        self._context = zmq.Context()
        self._router = self._socket()
        self._port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._route: bytes | None = None
        self._ring: Ring | None = None
        self._rings = 0
        self._generation = 0
        self._waiting: deque[wire.Message] = deque()

    @property
    def endpoint(self) -> str:
        """What `camera.toml` says: the trigger socket, one port below."""
        return f"tcp://127.0.0.1:{self._port - 1}"

    def __enter__(self) -> Self:
        """The broker's side, listening."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close at once."""
        self._router.close(0)
        self._context.term()
        if self._ring is not None:
            self._ring.close()

    def restart(self) -> None:
        """Come back on the same port as the next epoch, knowing nobody."""
        self._router.close(0)
        self._router = self._socket()
        deadline = time.monotonic() + PATIENCE_S
        while True:  # a socket is closed in the background
            try:
                self._router.bind(f"tcp://127.0.0.1:{self._port}")
                break
            except zmq.ZMQError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self.epoch += 1
        self.forget()

    def forget(self) -> None:
        """Know the camera no more, and what it sent."""
        self._route = None
        self._waiting.clear()
        self.states.clear()

    # --- what a test says ---

    def greet(self, *, grants: int | None = None) -> CameraHello:
        """Wait for HELLO, answer with WELCOME and credit for all slots."""
        self.forget()
        hello = self.wait(CameraHello)
        self.welcome()
        self.credit(self.slots if grants is None else grants)
        return hello

    def welcome(self) -> None:
        """Send WELCOME, with a ring of its own for each."""
        ring: RingSpec | None = None
        if self.hello is not None and self.hello.transport is Transport.MEMORY:
            self._rings += 1
            path, size = self.run_dir / f"camera-{self._rings}.ring", slot_bytes(self.frame)
            self._ring = Ring.create(path, slots=self.slots, size=size)
            ring = RingSpec(path=str(path), slots=self.slots, slot_bytes=size)
        self.send(
            CameraWelcome(
                station="test",
                epoch=self.epoch,
                heartbeat_ms=self.heartbeat_ms,
                lapse_ms=self.lapse_ms,
                frame=self.frame,
                ring=ring,
            )
        )

    def credit(self, count: int = 1) -> list[SlotGrant]:
        """Send credit for the next slots, round and round."""
        grants = []
        for _ in range(count):
            self._generation += 1
            grants.append(SlotGrant(slot=self._generation % self.slots, generation=self._generation))
        memory = self._ring is not None
        self.send(Credit(grants=tuple(grants)) if memory else Credit(messages=count))
        return grants

    def grab(self, *trigger_ids: str) -> None:
        """Order frames."""
        for trigger_id in trigger_ids:
            self.send(Grab(epoch=self.epoch, trigger_id=trigger_id, part_id=None))

    def refuse(self, code: Code) -> None:
        """Send REFUSED."""
        self.send(Refused(code=code, detail="as the test wants"))

    def send(self, header: Header) -> None:
        """Send anything to the camera."""
        self.send_raw(wire.encode(header))

    def send_raw(self, parts: list[Any]) -> None:
        """Send anything at all."""
        self._router.send_multipart([self._route or b"", *parts])

    # --- what the camera said ---

    def wait(self, kind: type[_Kind], wanted: Callable[[_Kind], bool] = lambda _: True) -> _Kind:
        """The next message of a kind; others of other kinds wait for their turn."""
        return self._next(kind, wanted).header  # type: ignore[return-value]

    def state(self, wanted: Callable[[CameraState], bool]) -> CameraState:
        """The next CAMERA_STATE that fits; those before it are past."""
        deadline = time.monotonic() + PATIENCE_S
        last: CameraState | None = None
        while time.monotonic() < deadline:
            while self.states:
                last = self.states.popleft()
                if wanted(last):
                    return last
            self.pump(0.02)
        pytest.fail(f"no such state came; the last one is {last}")

    def frame_pixels(self) -> tuple[Frame, NDArray[Any] | None]:
        """The next FRAME with a copy of its pixels; none where it is a fault."""
        message = self._next(Frame, lambda _: True)
        header = message.header
        if not isinstance(header, Frame) or header.frame is None:
            return header, None  # type: ignore[return-value]
        if message.pixels is not None:
            channels = header.frame.pixel_format.channels
            shape = (header.frame.height, header.frame.width, channels)[: 2 if channels == 1 else 3]
            return header, np.frombuffer(message.pixels, header.frame.pixel_format.dtype).reshape(shape)
        if self._ring is None or header.slot is None or header.generation is None:
            pytest.fail(f"a frame without pixels: {header}")
        grant = SlotGrant(slot=header.slot, generation=header.generation)
        if not self._ring.holds(grant, header.frame):
            pytest.fail(f"the slot does not hold what was announced: {header}")
        return header, self._ring.pixels(header.slot, header.frame).copy()

    def pump(self, seconds: float) -> None:
        """Take what comes within a time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.mute:
                time.sleep(left)
            elif self._router.poll(max(1, int(left * 1000))):
                self._take(*self._router.recv_multipart())

    def _next(self, kind: type[Header], wanted: Callable[[Any], bool]) -> wire.Message:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for message in self._waiting:
                if isinstance(message.header, kind) and wanted(message.header):
                    self._waiting.remove(message)
                    return message
            if self._router.poll(50):
                self._take(*self._router.recv_multipart())
        pytest.fail(f"no {kind.__name__} came; there is {[type(m.header).__name__ for m in self._waiting]}")

    def _take(self, route: bytes, *parts: bytes) -> None:
        message = wire.decode(parts, AT_FRAMES)
        if isinstance(message.header, CameraHello):
            self.hello, self._route = message.header, route
        elif route != self._route:
            refused = Refused(code=Code.HELLO_FIRST, detail="who are you?")
            self._router.send_multipart([route, *wire.encode(refused)])
            return
        if isinstance(message.header, Heartbeat):
            self.heartbeats += 1
            self.send(Heartbeat(epoch=self.epoch, state=State.READY))
        elif isinstance(message.header, CameraState):
            self.states.append(message.header)
        else:
            self._waiting.append(message)

    def _socket(self) -> "zmq.Socket[bytes]":
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        return router
