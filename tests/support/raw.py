"""The service's peers as bare as can be: one socket each, the messages of the protocol, and nothing done behind a test's back.

All connections of a test are in one thread: whoever waits for a message keeps the others alive and lets cameras answer.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import cv2
import numpy as np
import zmq
from numpy.typing import NDArray
from support.line import PATIENCE_S

from edge_runtime.decision import Reason
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import (
    Ack,
    Answer,
    CameraHello,
    CameraState,
    CameraWelcome,
    ClientHello,
    ClientWelcome,
    Code,
    ConsumerHello,
    ConsumerWelcome,
    Credit,
    Frame,
    FrameSpec,
    Gap,
    Grab,
    Header,
    Heartbeat,
    Record,
    Refused,
    SlotGrant,
    Transport,
    Trigger,
    TriggerMode,
)
from edge_runtime.protocol.ring import Ring

WIDTH, HEIGHT = 96, 64  # of the stub's frames
MONO = FrameSpec(width=WIDTH, height=HEIGHT, pixel_format=PixelFormat.MONO8)
BEAT_S = 0.4

_Kind = TypeVar("_Kind", bound=Header)


def picture(value: int, *, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(H, W): dark, with one pixel of a brightness; that is the stub's score."""
    pixels = np.full((height, width), min(20, value), dtype=np.uint8)
    pixels[height // 2, width // 3] = value
    return pixels


def paint(folder: Path, *values: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Pictures `0-VALUE.png`, `1-VALUE.png`, ...: a camera of a folder gives them in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, value in enumerate(values):
        cv2.imwrite(str(folder / f"{index}-{value:03d}.png"), picture(value, width=width, height=height))
    return folder


def painted(label: str | None) -> int:
    """The brightness that a file's name tells."""
    assert label is not None
    return int(Path(label).stem.rpartition("-")[2])


class Wires:
    """The connections of one test to one service."""

    def __init__(self, port: int) -> None:
        """None yet; `port` is the trigger socket's."""
        self.port = port
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peers: list[Peer] = []

    def __enter__(self) -> Self:
        """Use it, and close all at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all."""
        for peer in self.peers:
            peer.close()
        self.context.term()

    def client(self, name: str | None = None, *, instance: str | None = None, follow: tuple[str, ...] = ()) -> "Client":
        """A client that was welcomed; by default of a name that nobody had before."""
        client = self.stranger(name or f"plc-{uuid.uuid4().hex[:8]}", instance=instance, follow=follow)
        client.enter()
        return client

    def stranger(self, name: str = "plc", *, instance: str | None = None, follow: tuple[str, ...] = ()) -> "Client":
        """A client that has not said anything."""
        return Client(self, name, instance=instance, follow=follow)

    def consumer(self, name: str | None = "mes", *, last_acked: int | None = None) -> "Consumer":
        """A reader of the record stream that was welcomed."""
        consumer = Consumer(self, name)
        consumer.enter(last_acked)
        return consumer

    def camera(self, name: str, trigger: TriggerMode, transport: Transport = Transport.MEMORY) -> "Camera":
        """A camera that was welcomed."""
        camera = Camera(self, name, trigger, transport)
        camera.enter()
        return camera

    def pump(self, seconds: float = 0.0) -> None:
        """Read what comes to all of them for a while."""
        until = time.monotonic() + seconds
        while True:
            for peer in self.peers:
                peer.pump()
            if time.monotonic() >= until:
                return
            time.sleep(0.005)

    def until(self, condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:  # noqa: ANN401
        """The first true value of a condition, while all are kept alive."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            self.pump()
            found = condition()
            if found:
                return found
            time.sleep(0.005)
        message = f"waited {within_s} s for: {what}"
        raise TimeoutError(message)


@contextmanager
def wires(port: int) -> Iterator[Wires]:
    """Connections to a service, closed at the end."""
    with Wires(port) as made:
        yield made


def _of_hello(refused: Refused) -> bool:
    """Whether a HELLO was refused; the other refusals are of heartbeats that a new broker got before it."""
    return refused.code is not Code.HELLO_FIRST


class Peer:
    """One DEALER. What it heard and nobody took yet is in `heard`, in the order of its coming."""

    def __init__(self, beside: Wires, offset: int, *, deaf: bool = False) -> None:
        """Connect to the socket at PORT + offset; who is deaf never reads, and leaves hardly any room for what comes."""
        self.beside = beside
        self.instance = uuid.uuid4().hex
        self.heard: list[Header] = []
        self.epoch: int | None = None  # once welcomed; then it sends heartbeats
        self.mute = False  # no heartbeats
        self.deaf = deaf
        self._beat_at = 0.0
        self.socket = beside.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = 1 if deaf else 0
        self.socket.rcvbuf = 4096 if deaf else -1
        self.socket.connect(f"tcp://127.0.0.1:{beside.port + offset}")
        beside.peers.append(self)

    def say(self, header: Header, pixels: Any = None) -> None:  # noqa: ANN401 - bytes or an array
        """Send a message."""
        self.socket.send_multipart(wire.encode(header, None if pixels is None else bytes(pixels)))

    def hear(self, kind: type[_Kind], wanted: Callable[[_Kind], bool] = lambda _: True) -> _Kind:
        """The next message of a kind that is wanted; others wait for their turn."""
        found: list[_Kind] = self.beside.until(lambda: self.taken(kind, wanted), f"{kind.__name__}; {self}")
        return found[0]

    def taken(self, kind: type[_Kind], wanted: Callable[[_Kind], bool] = lambda _: True) -> list[_Kind]:
        """Take a message out of what was heard: a list of one, or of none."""
        for index, header in enumerate(self.heard):
            if type(header) is kind and wanted(header):
                del self.heard[index]
                return [header]
        return []

    def all_heard(self, kind: type[_Kind]) -> list[_Kind]:
        """Take all messages of a kind that were heard so far."""
        found = [header for header in self.heard if type(header) is kind]
        self.heard = [header for header in self.heard if type(header) is not kind]
        return found

    def pump(self) -> None:
        """Read what is there, and send a heartbeat where one is due."""
        if self.socket.closed:
            return
        while not self.deaf and self.socket.poll(0):
            header = wire.decode(self.socket.recv_multipart()).header
            if not isinstance(header, Heartbeat):
                self.heard.append(header)
                self.on(header)
        if self.epoch is not None and not self.mute and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_S
            self.say(Heartbeat(epoch=self.epoch))

    def on(self, header: Header) -> None:
        """Something came."""

    def close(self) -> None:
        """As a process that dies."""
        self.socket.close(0)

    def __repr__(self) -> str:
        """For the message of a test that waited in vain."""
        return f"{type(self).__name__} heard {self.heard[-8:]}"


class Client(Peer):
    """A client of the trigger socket."""

    def __init__(self, beside: Wires, name: str, *, instance: str | None, follow: tuple[str, ...]) -> None:
        """Connect, and say nothing."""
        super().__init__(beside, 0)
        self.name = name
        self.instance = instance or self.instance
        self.follow = follow
        self._ids = 0

    def hello(self) -> ClientWelcome | Refused:
        """Say HELLO; what comes back."""
        self.say(ClientHello(name=self.name, instance=self.instance, follow=self.follow))
        found: list[ClientWelcome | Refused] = self.beside.until(
            lambda: self.taken(ClientWelcome) or self.taken(Refused, _of_hello), f"welcome; {self}"
        )
        if isinstance(found[0], ClientWelcome):
            self.epoch = found[0].epoch
        return found[0]

    def enter(self) -> ClientWelcome:
        """Say HELLO and be welcome."""
        welcome = self.hello()
        assert isinstance(welcome, ClientWelcome), welcome
        return welcome

    def send(self, camera: str = "top", trigger_id: str | None = None, **given: Any) -> Trigger:  # noqa: ANN401
        """Send a TRIGGER: `value` is the brightness of a frame that goes with it, `pixels` any frame; the rest is its fields."""
        self._ids += 1
        value, pixels = given.pop("value", None), given.pop("pixels", None)
        if value is not None:
            pixels, given["frame"] = picture(value), given.get("frame", MONO)
        epoch = given.pop("epoch", self.epoch)
        trigger = Trigger(epoch=epoch, trigger_id=trigger_id or f"t{self._ids}", camera=camera, **given)
        self.say(trigger, None if pixels is None else np.ascontiguousarray(pixels).tobytes())
        return trigger

    def answer(self, trigger: Trigger) -> Answer:
        """The answer to a trigger."""
        return self.hear(Answer, lambda a: (a.epoch, a.trigger_id) == (trigger.epoch, trigger.trigger_id))

    def inspect(self, camera: str = "top", trigger_id: str | None = None, **given: Any) -> Answer:  # noqa: ANN401
        """Trigger, and wait for the answer."""
        return self.answer(self.send(camera, trigger_id, **given))


class Consumer(Peer):
    """A reader of the record stream; `acks` acknowledges each record as it comes."""

    def __init__(self, beside: Wires, name: str | None, *, deaf: bool = False) -> None:
        """Connect, and say nothing."""
        super().__init__(beside, 2, deaf=deaf)
        self.name = name
        self.acks = True
        self.records: list[Record] = []
        self.gaps: list[Gap] = []

    def hello(self, last_acked: int | None = None) -> ConsumerWelcome | Refused:
        """Say HELLO; what comes back."""
        self.say(ConsumerHello(name=self.name, instance=self.instance, last_acked=last_acked))
        found: list[ConsumerWelcome | Refused] = self.beside.until(
            lambda: self.taken(ConsumerWelcome) or self.taken(Refused, _of_hello), f"welcome; {self}"
        )
        if isinstance(found[0], ConsumerWelcome):
            self.epoch = found[0].epoch
        return found[0]

    def enter(self, last_acked: int | None = None) -> ConsumerWelcome:
        """Say HELLO and be welcome."""
        welcome = self.hello(last_acked)
        assert isinstance(welcome, ConsumerWelcome), welcome
        return welcome

    def on(self, header: Header) -> None:
        """Keep records, in the order of their coming."""
        if isinstance(header, Record):
            self.records.append(header)
            self.heard.remove(header)
            if self.acks and self.name is not None:
                self.say(Ack(seq=header.seq_number))
        elif isinstance(header, Gap):
            self.gaps.append(header)

    def read(self, upto: int) -> list[Record]:
        """Wait until the record `upto` is there; all so far."""
        self.beside.until(lambda: self.records and self.records[-1].seq_number >= upto, f"record {upto}; {self}")
        return self.records

    @property
    def seqs(self) -> list[int]:
        """What came, by number."""
        return [record.seq_number for record in self.records]


class Camera(Peer):
    """A camera's end of the frame socket; with a software trigger it answers each GRAB with `value`."""

    def __init__(self, beside: Wires, name: str, trigger: TriggerMode, transport: Transport) -> None:
        """Connect, and say nothing."""
        super().__init__(beside, 1)
        self.name = name
        self.trigger = trigger
        self.transport = transport
        self.counter = 0
        self.value: int | None = 50  # None: GRABs are not answered
        self.grants: list[SlotGrant] = []
        self.credits = 0
        self.welcome: CameraWelcome | None = None
        self._ring: Ring | None = None

    def enter(self) -> None:
        """Say HELLO until welcome, then that all is well."""
        self.say(CameraHello(name=self.name, instance=self.instance, trigger=self.trigger, transport=self.transport))
        self.beside.until(lambda: self.welcome and (self.grants or self.credits), f"welcome and credit; {self}")
        self.say(CameraState(ok=True, exposures=self.counter))

    def expose(self, value: int | None, *, trigger_id: str | None = None, skip: int = 0) -> int:
        """Send the next exposure, a frame of a brightness or none; its counter, `skip` higher than expected."""
        self.counter += 1 + skip
        assert self.welcome is not None
        spec = self.welcome.frame
        given: dict[str, Any] = {"epoch": self.welcome.epoch, "trigger_id": trigger_id, "counter": self.counter}
        if value is None:
            self.say(Frame(frame=None, fault=Reason.NO_FRAME, detail="lens cap", **given))
            return self.counter
        pixels = picture(value, width=spec.width, height=spec.height)
        if self._ring is not None:
            grant = self.grants.pop(0)
            self._ring.write(grant, spec, pixels)
            self.say(Frame(frame=spec, slot=grant.slot, generation=grant.generation, label=f"-{value}", **given))
        else:
            self.credits -= 1
            self.say(Frame(frame=spec, label=f"-{value}", **given), pixels.tobytes())
        return self.counter

    def on(self, header: Header) -> None:
        """Do what a camera does."""
        if isinstance(header, CameraWelcome):
            self.welcome, self.epoch = header, header.epoch
            self.grants, self.credits = [], 0
            self._ring = None
            if header.ring is not None:
                size = header.ring.slot_bytes
                self._ring = Ring(Path(header.ring.path), slots=header.ring.slots, size=size)
        elif isinstance(header, Credit):
            self.grants += header.grants
            self.credits += header.messages
        elif isinstance(header, Grab) and self.value is not None:
            self.expose(self.value, trigger_id=header.trigger_id)
