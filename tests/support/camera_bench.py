"""Cameras of the broker behind a real port, camera processes as far as their sockets go, and what became of triggers."""

from pathlib import Path

from support.headers import FRAME
from support.journals import acceptance
from support.sockets import BoundPort, DealerPeer, instance

from edge_runtime.decision import Reason
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import messages as m
from edge_runtime.protocol.ring import Ring
from edge_runtime.service.bundles import Choice
from edge_runtime.service.camera_seat import CameraSeat, Fault
from edge_runtime.service.cameras import CameraHooks, Cameras
from edge_runtime.service.config import CameraConfig
from edge_runtime.service.open_trigger import OpenTrigger
from edge_runtime.service.operations import Key
from edge_runtime.service.peers import LAPSE_MS
from edge_runtime.service.rings import HeldFrame
from edge_runtime.service.store import BundleFacts

LAPSE = LAPSE_MS * 1_000_000
WINDOW = 200_000_000
PIXELS = bytes(FRAME.nbytes)
EPOCH = 1
SLOTS = 2
OTHER = m.FrameSpec(width=8, height=8, pixel_format=PixelFormat.MONO8)


class Camera:
    """A camera process, as far as its socket goes."""

    def __init__(self, peer: DealerPeer) -> None:
        """Not greeted yet."""
        self.peer = peer
        self.instance = instance()
        self.ring: Ring | None = None
        self.grants: list[m.SlotGrant] = []

    def hello(self, mode: m.TriggerMode, transport: m.Transport) -> None:
        """Say it."""
        self.peer.say(m.CameraHello(name="top", instance=self.instance, trigger=mode, transport=transport))

    def greeted(self) -> m.CameraWelcome:
        """Hear the welcome and map the ring."""
        welcome = self.peer.hear(m.CameraWelcome)
        if welcome.ring is not None:
            self.ring = Ring(Path(welcome.ring.path), slots=welcome.ring.slots, size=welcome.ring.slot_bytes)
        return welcome

    def send(self, name: str | None, counter: int, grant: m.SlotGrant, frame: m.FrameSpec = FRAME) -> None:
        """Write a frame and announce it."""
        assert self.ring is not None
        self.ring.write(grant, frame, bytes(frame.nbytes))
        self.peer.say(
            m.Frame(
                epoch=EPOCH,
                trigger_id=name,
                counter=counter,
                frame=frame,
                slot=grant.slot,
                generation=grant.generation,
                label="a.png",
            )
        )


class Bench:
    """One seat, and what became of its triggers."""

    def __init__(self, port: BoundPort, folder: Path, mode: m.TriggerMode, source: str) -> None:
        """Nobody is connected."""
        self.port = port
        self.mode = mode
        facts = BundleFacts(path=folder / "a.takt", digest="a" * 64, product="p", frame=FRAME)
        config = CameraConfig(name="top", bundle=folder / "a.takt", source=source, trigger=mode, slots=SLOTS)
        self.seat = CameraSeat(config, Choice(facts, facts))
        self.open: dict[Key, OpenTrigger] = {}
        self.framed: list[tuple[str, HeldFrame | Fault]] = []
        self.mismatches: list[str] = []
        self.exposed: list[int] = []
        hooks = CameraHooks(
            framed=lambda trigger, got: self.framed.append((trigger.acceptance.key.trigger_id, got)),
            exposed=self._exposed,
            mismatch=lambda _, detail: self.mismatches.append(detail),
            find=self.open.get,
        )
        self.folder = folder / "frames"
        self.cameras = Cameras(
            port.port, {"top": self.seat}, station="press-4", epoch=EPOCH, folder=self.folder, hooks=hooks
        )

    def _exposed(self, _: CameraSeat, counter: int) -> OpenTrigger:
        self.exposed.append(counter)
        return self.trigger(str(counter))

    def trigger(self, trigger_id: str) -> OpenTrigger:
        """One that waits for its frame."""
        made = OpenTrigger(acceptance(trigger_id), 1, 0, 0)
        self.open[made.acceptance.key] = made
        return made

    def take(self, now_ns: int = 0) -> None:
        """Take what came."""
        self.port.take(self.cameras.on_message, now_ns)

    def until(self, count: int) -> None:
        """Take until so many triggers have what becomes of them."""
        self.port.take_until(self.cameras.on_message, lambda: len(self.framed) >= count, 0)

    def connect(self, transport: m.Transport = m.Transport.MEMORY) -> Camera:
        """A camera that is greeted, with all its credit heard."""
        camera = Camera(self.port.peer())
        camera.hello(self.mode, transport)
        self.take()
        camera.greeted()
        camera.grants += camera.peer.hear(m.Credit).grants
        return camera

    def grab(self, camera: Camera, trigger_id: str) -> str:
        """Ask for a frame; the name that the camera hears."""
        trigger = self.trigger(trigger_id)
        assert self.cameras.grab(self.seat, trigger.acceptance.key, "part", 0)
        return camera.peer.hear(m.Grab).trigger_id

    @property
    def faults(self) -> list[tuple[str, Reason]]:
        """Triggers that got no frame."""
        return [(name, got.reason) for name, got in self.framed if isinstance(got, Fault)]
