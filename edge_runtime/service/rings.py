"""Owns the slots of one camera's frames: who may write which, which are being inspected, and when each is free again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.protocol.messages import FrameSpec, Inspect, RingSpec, SlotGrant
from edge_runtime.protocol.ring import Ring, slot_bytes
from edge_runtime.protocol.wire import Buffer


@dataclass(slots=True, eq=False)
class HeldFrame:
    """A frame in a slot that is kept for an inspection."""

    slots: "FrameSlots"
    grant: SlotGrant
    frame: FrameSpec
    _held: bool = True

    def inspect(self, job: int, *, until_ns: int, early_reject: bool) -> Inspect:
        """The order to a worker."""
        return Inspect(
            job=job,
            path=str(self.slots.ring.path),
            slot=self.grant.slot,
            slot_bytes=self.slots.ring.size,
            generation=self.grant.generation,
            frame=self.frame,
            until_ns=until_ns,
            early_reject=early_reject,
        )

    def release(self) -> None:
        """Free the slot; a second time does nothing."""
        if self._held:
            self._held = False
            self.slots.free(self.grant)


@dataclass(slots=True, eq=False)
class FrameSlots:
    """A ring and the state of its slots: free, granted to the camera, or held for an inspection."""

    ring: Ring
    on_free: Callable[["FrameSlots"], None]  # a slot came free: grant it again
    _free: list[SlotGrant] = field(default_factory=list)
    _granted: dict[int, SlotGrant] = field(default_factory=dict)
    _held: dict[int, SlotGrant] = field(default_factory=dict)
    _retired: bool = False

    @classmethod
    def make(
        cls, path: Path, frame: FrameSpec, slots: int, first: int, on_free: Callable[["FrameSlots"], None]
    ) -> "FrameSlots":
        """Make the file.

        Args:
            path: the file.
            frame: what the slots hold.
            slots: how many.
            first: the slots' first generation, over all that an earlier ring of this camera can have had.
            on_free: called when a slot came free.

        Raises:
            CameraError: there is no room for it.
        """
        made = cls(Ring.create(path, slots=slots, size=slot_bytes(frame)), on_free)
        made._free = [SlotGrant(slot=slot, generation=first) for slot in range(slots)]
        return made

    @property
    def spec(self) -> RingSpec:
        """What a camera needs to map it."""
        return RingSpec(path=str(self.ring.path), slots=self.ring.slots, slot_bytes=self.ring.size)

    @property
    def granted(self) -> int:
        """How many slots the camera may write."""
        return len(self._granted)

    @property
    def free_slots(self) -> int:
        """How many slots nobody has."""
        return len(self._free)

    def grant_all(self) -> tuple[SlotGrant, ...]:
        """Give all free slots to the camera."""
        grants = tuple(self._free)
        self._free.clear()
        self._granted.update((grant.slot, grant) for grant in grants)
        return grants

    def take(self, grant: SlotGrant, frame: FrameSpec) -> HeldFrame | None:
        """Keep a frame that the camera wrote; None where it had no right to, or the slot does not hold it."""
        current = self._granted.get(grant.slot)
        if current is not None and current.generation < grant.generation:
            # never given so: the camera used up its right without keeping to it, and gets it anew
            del self._granted[grant.slot]
            self._free.append(SlotGrant(slot=grant.slot, generation=current.generation + 1))
            self.on_free(self)
            return None
        if current != grant:
            return None
        del self._granted[grant.slot]
        self._held[grant.slot] = grant
        held = HeldFrame(self, grant, frame)
        if not self.ring.holds(grant, frame):
            held.release()
            return None
        return held

    def store(self, frame: FrameSpec, pixels: Buffer) -> HeldFrame | None:
        """Write a frame that came as a message; None where no slot is free.

        Raises:
            ProtocolError: the pixels are not such a frame.
        """
        if not self._free:
            return None
        grant = self._free[-1]
        self.ring.write(grant, frame, memoryview(pixels))
        self._free.pop()
        self._held[grant.slot] = grant
        return HeldFrame(self, grant, frame)

    def free(self, grant: SlotGrant) -> None:
        """Take a slot back; its next frame has the next generation."""
        del self._held[grant.slot]
        self._free.append(SlotGrant(slot=grant.slot, generation=grant.generation + 1))
        if not self._retired:
            self.on_free(self)
        elif not self._held:
            self._unlink()

    def retire(self) -> None:
        """Nobody writes here any more; the file goes when the last frame in it was inspected."""
        self._retired = True
        if not self._held:
            self._unlink()

    def _unlink(self) -> None:
        self.ring.path.unlink(missing_ok=True)
        self.ring.close()
