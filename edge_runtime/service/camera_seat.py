"""Owns what the broker knows of one camera: who feeds it, what it may send, and what is still awaited from it."""

from collections import Counter
from dataclasses import dataclass, field

from edge_runtime.decision import Reason
from edge_runtime.protocol import messages as wire
from edge_runtime.service.bundles import Choice
from edge_runtime.service.config import CameraConfig, SourceKind
from edge_runtime.service.operations import Key
from edge_runtime.service.pairing import HardwarePairing
from edge_runtime.service.peers import Peer
from edge_runtime.service.rings import FrameSlots, HeldFrame


@dataclass(frozen=True, slots=True)
class Fault:
    """A frame that could not be had."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Grabbed:
    """A GRAB without a FRAME."""

    key: Key
    asked_ns: int


@dataclass(slots=True, eq=False)
class CameraSeat:
    """One camera of `line.toml`."""

    config: CameraConfig
    choice: Choice
    slots: FrameSlots | None = None
    peer: Peer | None = None
    transport: wire.Transport = wire.Transport.MEMORY
    welcomed_ns: int = 0
    pid: int | None = None
    ok: bool = False
    detail: str = "has not connected yet"
    exposures: int = 0
    dropped: int = 0
    credits: int = 0  # frames that a camera with message transport may still send
    outstanding: dict[str, Grabbed] = field(default_factory=dict)
    pairing: HardwarePairing | None = None
    waiting: dict[int, HeldFrame | Fault] = field(
        default_factory=dict
    )  # hardware: frames without a trigger, by counter
    labels: dict[int, str | None] = field(default_factory=dict)
    counter_base: int = 0  # exposures of earlier camera processes in this epoch
    counts: Counter[str] = field(default_factory=Counter)  # late, unmatched, refused

    @property
    def takes_frames(self) -> bool:
        """Whether frames come with the client's trigger."""
        return self.config.parsed_source.kind is SourceKind.CLIENT

    @property
    def room(self) -> int:
        """How many more frames can be asked for."""
        if self.slots is None:
            return 0
        if self.takes_frames:
            return self.slots.free_slots
        memory = self.transport is wire.Transport.MEMORY
        return (self.slots.granted if memory else self.credits) - len(self.outstanding)


def suits(frame: wire.FrameSpec, wanted: wire.FrameSpec) -> bool:
    """Whether a worker makes of a frame what the bundle inspects, losing nothing: another order, a mosaic, grey for colour."""
    same_size = (frame.width, frame.height) == (wanted.width, wanted.height)
    return same_size and frame.pixel_format.goes_into(wanted.pixel_format)


def unlike(frame: wire.FrameSpec, wanted: wire.FrameSpec) -> str:
    """What is wrong with a frame that is not what the bundle inspects."""
    return (
        f"frame is {frame.width}x{frame.height} {frame.pixel_format}, the bundle inspects "
        f"{wanted.width}x{wanted.height} {wanted.pixel_format}: check the camera's mode and its crop"
    )
