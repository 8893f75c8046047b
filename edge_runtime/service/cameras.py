"""Owns the cameras: who is connected, which slots they may write, and which trigger each frame belongs to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from edge_runtime.decision import Reason
from edge_runtime.errors import CameraError, ProtocolError
from edge_runtime.protocol import messages as wire
from edge_runtime.protocol.messages import Code, Credit, Grab, TriggerMode
from edge_runtime.protocol.wire import Buffer, Message
from edge_runtime.service.camera_seat import CameraSeat, Fault, Grabbed, suits, unlike
from edge_runtime.service.open_trigger import OpenTrigger
from edge_runtime.service.operations import Key
from edge_runtime.service.pairing import HardwarePairing, Paired
from edge_runtime.service.peers import HEARTBEAT_MS, LAPSE_MS, Peer, Peers
from edge_runtime.service.port import Port
from edge_runtime.service.rings import FrameSlots, HeldFrame

_REPEATED_NS = 400_000_000  # HELLOs that queued up while the service was away come together: one WELCOME answers them
_FORGET_NS = 30_000_000_000  # a GRAB that was not answered for so long never will be
_FAULTS = {Reason.NO_FRAME, Reason.BAD_IMAGE, Reason.OVERLOAD}  # all that a camera may say
_LAST_COUNT = 2**63 - 1  # the largest that a message holds

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraHooks:
    """What others do with what cameras bring."""

    framed: Callable[[OpenTrigger, HeldFrame | Fault], None]
    exposed: Callable[[CameraSeat, int], OpenTrigger | None]  # a frame of a stream: its own trigger
    mismatch: Callable[[CameraSeat, str], None]  # the count of a hardware-triggered camera is lost
    find: Callable[[Key], OpenTrigger | None]  # a trigger that still wants a verdict


class Cameras:
    """The frame socket and all that comes over it."""

    def __init__(
        self, port: Port, seats: dict[str, CameraSeat], *, station: str, epoch: int, folder: Path, hooks: CameraHooks
    ) -> None:
        """Nobody is connected; files that an earlier broker left are removed.

        Args:
            port: the frame socket.
            seats: cameras by name.
            station: for WELCOME.
            epoch: the broker's.
            folder: for frames in memory.
            hooks: see there.
        """
        self.seats = seats
        self.peers = Peers()
        self._port = port
        self._station = station
        self._epoch = epoch
        self._folder = folder
        self._hooks = hooks
        self._rings = 0
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.ring"):
            left.unlink(missing_ok=True)
        for seat in seats.values():
            if seat.config.trigger is TriggerMode.HARDWARE:
                seat.pairing = HardwarePairing(seat.config.pairing_ms * 1_000_000)
            if seat.takes_frames:
                self.lay_out(seat)
                seat.ok, seat.detail = True, ""

    def on_message(self, route: bytes, message: Message, now_ns: int) -> None:
        """Something came from a camera."""
        if isinstance(message.header, wire.CameraHello):
            self._hello(route, message.header, now_ns)
            return
        peer = self.peers.heard(route, now_ns)
        if peer is None:
            self._port.refuse(route, Code.HELLO_FIRST, "the service does not know this connection: send HELLO")
            return
        seat = self.seats[peer.name]
        if isinstance(message.header, wire.Frame):
            self._frame(seat, message.header, message.pixels, now_ns)
        elif isinstance(message.header, wire.CameraState):
            self._state(seat, message.header)
        else:
            self._port.send(route, wire.Heartbeat(epoch=self._epoch))

    def grab(self, seat: CameraSeat, key: Key, part_id: str | None, now_ns: int) -> bool:
        """Ask for a frame; False where the camera cannot be reached."""
        name = f"{key.client}/{key.trigger_id}"
        seat.outstanding[name] = Grabbed(key, now_ns)
        route = None if seat.peer is None else seat.peer.route
        if self._port.send(route, Grab(epoch=self._epoch, trigger_id=name, part_id=part_id)):
            return True
        del seat.outstanding[name]
        return False

    def expect(self, seat: CameraSeat, key: Key, now_ns: int) -> None:
        """A hardware-triggered camera's trigger came: its frame is on its way, or there already."""
        if seat.pairing is not None:
            self._paired(seat, seat.pairing.on_trigger(key, now_ns))

    def frameless(self, seat: CameraSeat, key: Key) -> None:
        """A trigger ended without its frame."""
        if seat.pairing is not None:
            self._paired(seat, seat.pairing.on_gone(key))

    def store(self, seat: CameraSeat, frame: wire.FrameSpec | None, pixels: Buffer | None) -> HeldFrame | Fault:
        """Put a frame that came as a message into a slot."""
        wanted = seat.choice.active.frame
        if frame is None or pixels is None:
            return Fault(Reason.NO_FRAME, f"camera {seat.config.name} takes its frames from messages, and none came")
        if not suits(frame, wanted):
            return Fault(Reason.BAD_IMAGE, unlike(frame, wanted))
        try:
            held = None if seat.slots is None else seat.slots.store(frame, pixels)
        except ProtocolError as error:
            return Fault(Reason.BAD_IMAGE, str(error))
        return held or Fault(Reason.OVERLOAD, f"all {seat.config.slots} slots of camera {seat.config.name} are in use")

    def lay_out(self, seat: CameraSeat) -> None:
        """Make slots for the frames of the active bundle; what is being inspected stays until it is done."""
        if seat.slots is not None:
            seat.slots.retire()
            seat.slots = None
        self._rings += 1
        path = self._folder / f"{seat.config.name}-{self._epoch}-{self._rings}.ring"
        try:
            seat.slots = FrameSlots.make(
                path, seat.choice.active.frame, seat.config.slots, self._rings << 32, lambda _: self._grant(seat)
            )
        except CameraError as error:
            seat.ok, seat.detail = False, str(error)
            log.warning("no_slots", camera=seat.config.name, detail=str(error))
        if seat.peer is not None and seat.slots is not None:
            self._welcome(seat, seat.peer)

    def tick(self, now_ns: int) -> None:
        """Find cameras that went silent, and hardware triggers and exposures that nothing came for."""
        for peer in self.peers.lapsed(now_ns):
            self.on_gone(peer.name, f"sent nothing for {LAPSE_MS} ms")
        for seat in self.seats.values():
            if seat.pairing is not None:
                self._paired(seat, seat.pairing.tick(now_ns))
            for name, grabbed in tuple(seat.outstanding.items()):
                if now_ns - grabbed.asked_ns > _FORGET_NS and self._hooks.find(grabbed.key) is None:
                    del seat.outstanding[name]  # else it would count against the camera's room for ever
                    log.warning("grab_unanswered", camera=seat.config.name, trigger_id=grabbed.key.trigger_id)

    def on_gone(self, name: str, detail: str) -> None:
        """A camera process died or went silent: the frames that were asked of it will not come."""
        seat = self.seats.get(name)
        if seat is None or seat.peer is None:
            return
        self.peers.drop(seat.peer)
        seat.peer = None
        seat.pid = None
        seat.ok, seat.detail = False, f"the camera process {detail}"
        log.error("camera_lost", camera=name, detail=detail)
        self._abandon(seat)
        if seat.slots is not None:
            seat.slots.retire()
            seat.slots = None

    def resync(self, seat: CameraSeat) -> bool:
        """Start counting exposures anew; False where the camera is not triggered by hardware."""
        if seat.pairing is None:
            return False
        seat.pairing.resync()
        self._drop_waiting(seat, tuple(seat.waiting))
        return True

    def close(self) -> None:
        """Remove the frames in memory."""
        for seat in self.seats.values():
            if seat.slots is not None:
                seat.slots.retire()
        for left in self._folder.glob("*.ring"):
            left.unlink(missing_ok=True)

    def _hello(self, route: bytes, hello: wire.CameraHello, now_ns: int) -> None:
        seat = self.seats.get(hello.name)
        if seat is None or seat.takes_frames or hello.trigger is not seat.config.trigger:
            detail = f"line.toml has no camera {hello.name} with trigger {hello.trigger} that a process feeds"
            self._port.refuse(route, Code.UNKNOWN_CAMERA, detail)
            return
        again = seat.peer is not None and seat.peer.instance == hello.instance
        if again and seat.peer is not None and seat.peer.route == route and now_ns - seat.welcomed_ns < _REPEATED_NS:
            self.peers.heard(route, now_ns)
            return  # its WELCOME is on the way; another would void it
        peer = self.peers.admit(hello.name, hello.instance, route, now_ns)
        if peer is None:
            self._port.refuse(route, Code.NAME_IN_USE, f"another camera process feeds {hello.name}: stop it first")
            return
        self._abandon(seat)
        if not again:
            seat.counter_base += seat.exposures
            seat.exposures = seat.dropped = 0
            seat.ok, seat.detail = False, "has not said yet whether it gives frames"
        seat.welcomed_ns = now_ns
        seat.peer, seat.pid, seat.transport = peer, hello.pid, hello.transport
        log.info("camera_connected", camera=hello.name, camera_pid=hello.pid, transport=hello.transport)
        self.lay_out(seat)

    def _welcome(self, seat: CameraSeat, peer: Peer) -> None:
        memory = seat.transport is wire.Transport.MEMORY
        welcome = wire.CameraWelcome(
            station=self._station,
            epoch=self._epoch,
            heartbeat_ms=HEARTBEAT_MS,
            lapse_ms=LAPSE_MS,
            frame=seat.choice.active.frame,
            ring=seat.slots.spec if memory and seat.slots is not None else None,
        )
        self._port.send(peer.route, welcome)
        seat.credits = 0
        self._grant(seat)

    def _grant(self, seat: CameraSeat) -> None:
        if seat.peer is None or seat.slots is None:
            return
        if seat.transport is wire.Transport.MEMORY:
            grants = seat.slots.grant_all()
            if grants:
                self._port.send(seat.peer.route, Credit(grants=grants))
        else:
            more = seat.slots.free_slots - seat.credits
            if more > 0:
                seat.credits += more
                self._port.send(seat.peer.route, Credit(messages=more))

    def _state(self, seat: CameraSeat, state: wire.CameraState) -> None:
        if state.ok != seat.ok:
            log.info("camera_state", camera=seat.config.name, ok=state.ok, detail=state.detail)
        seat.ok, seat.detail = state.ok and seat.slots is not None, state.detail
        seat.exposures = max(seat.exposures, state.exposures)
        seat.dropped = state.dropped

    def _frame(self, seat: CameraSeat, header: wire.Frame, pixels: Buffer | None, now_ns: int) -> None:
        seat.exposures = max(seat.exposures, header.counter)
        if header.epoch != self._epoch:
            seat.counts["unmatched"] += 1
            return
        got = self._take(seat, header, pixels)
        if isinstance(got, Fault) and got.reason is Reason.FRAME_MISMATCH:
            seat.counts["refused"] += 1
        counter = min(seat.counter_base + header.counter, _LAST_COUNT)
        if seat.config.trigger is TriggerMode.SOFTWARE:
            grabbed = seat.outstanding.pop(header.trigger_id or "", None)
            self._give(
                seat, None if grabbed is None else self._hooks.find(grabbed.key), got, header.counter, header.label
            )
        elif seat.pairing is None:
            self._give(seat, self._hooks.exposed(seat, counter), got, counter, header.label)
        else:
            before = seat.waiting.get(counter)  # a camera that counts an exposure twice
            if isinstance(before, HeldFrame):
                before.release()
            seat.waiting[counter], seat.labels[counter] = got, header.label
            self._paired(seat, seat.pairing.on_frame(counter, now_ns))

    def _take(self, seat: CameraSeat, header: wire.Frame, pixels: Buffer | None) -> HeldFrame | Fault:
        if header.fault is not None:
            reason = header.fault if header.fault in _FAULTS else Reason.NO_FRAME
            return Fault(reason, header.detail or "the camera gave no frame")
        if seat.transport is wire.Transport.MESSAGE:
            seat.credits = max(0, seat.credits - 1)
            got = self.store(seat, header.frame, pixels)
            if isinstance(got, Fault):
                self._grant(seat)  # it took no slot: its credit is free again
            return got
        if seat.slots is None or header.frame is None or header.slot is None or header.generation is None:
            return Fault(Reason.FRAME_MISMATCH, "the camera announced a frame without saying where it is")
        grant = wire.SlotGrant(slot=header.slot, generation=header.generation)
        held = seat.slots.take(grant, header.frame)
        if held is None:
            return Fault(Reason.FRAME_MISMATCH, f"slot {header.slot} does not hold the frame that was announced")
        wanted = seat.choice.active.frame
        if not suits(header.frame, wanted):
            held.release()
            return Fault(Reason.BAD_IMAGE, unlike(header.frame, wanted))
        return held

    def _give(
        self, seat: CameraSeat, trigger: OpenTrigger | None, got: HeldFrame | Fault, counter: int, label: str | None
    ) -> None:
        if trigger is None or not trigger.undecided:
            seat.counts["late"] += 1
            if isinstance(got, HeldFrame):
                got.release()
            return
        trigger.counter, trigger.label = counter, label
        self._hooks.framed(trigger, got)

    def _paired(self, seat: CameraSeat, paired: Paired) -> None:
        for key, counter in paired.matched:
            label = seat.labels.pop(counter, None)
            self._give(seat, self._hooks.find(key), seat.waiting.pop(counter), counter, label)
        if paired.unmatched:
            self._drop_waiting(seat, paired.unmatched)
        if paired.broken is not None:
            self._hooks.mismatch(seat, paired.broken)

    def _drop_waiting(self, seat: CameraSeat, counters: tuple[int, ...]) -> None:
        for counter in counters:
            got = seat.waiting.pop(counter, None)
            seat.labels.pop(counter, None)
            seat.counts["unmatched"] += 1
            if isinstance(got, HeldFrame):
                got.release()

    def _abandon(self, seat: CameraSeat) -> None:
        """Frames that were asked of a camera process that is gone will not come."""
        lost, seat.outstanding = seat.outstanding, {}
        for grabbed in lost.values():
            trigger = self._hooks.find(grabbed.key)
            if trigger is not None:
                self._hooks.framed(
                    trigger, Fault(Reason.NO_FRAME, f"the camera process of {seat.config.name} was lost")
                )
        if seat.pairing is not None:
            self._paired(seat, seat.pairing.camera_restarted())
