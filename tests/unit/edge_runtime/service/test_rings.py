"""A slot is free, the camera's, or held for an inspection; never two of these, and never none."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.headers import FRAME

from edge_runtime.errors import CameraError, ProtocolError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import FrameSpec, SlotGrant
from edge_runtime.service.rings import FrameSlots, HeldFrame

OTHER = FrameSpec(width=8, height=8, pixel_format=PixelFormat.MONO8)
PIXELS = bytes(FRAME.nbytes)


class Bench:
    """Slots whose camera is told of each that came free."""

    def __init__(self, path: Path, slots: int = 2) -> None:
        """All slots are free."""
        self.freed = 0
        self.slots = FrameSlots.make(path, FRAME, slots, 100, self._on_free)

    def _on_free(self, slots: FrameSlots) -> None:
        assert slots is self.slots
        self.freed += 1

    def written(self) -> HeldFrame:
        """A frame that the camera wrote into its first slot."""
        grant = self.slots.grant_all()[0]
        self.slots.ring.write(grant, FRAME, PIXELS)
        held = self.slots.take(grant, FRAME)
        assert held is not None
        return held


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "a.ring")


def test_a_slot_is_granted_taken_and_free_again_with_the_next_generation(bench: Bench) -> None:
    held = bench.written()
    assert (bench.slots.granted, bench.slots.free_slots, bench.freed) == (1, 0, 0)
    held.release()
    held.release()
    assert (bench.slots.granted, bench.slots.free_slots, bench.freed) == (1, 1, 1)
    assert bench.slots.grant_all() == (SlotGrant(slot=0, generation=101),)
    assert bench.slots.grant_all() == ()


def test_a_frame_is_taken_once_and_only_with_the_grant_that_was_given(bench: Bench) -> None:
    held = bench.written()
    assert bench.slots.take(held.grant, FRAME) is None
    for stale in (SlotGrant(slot=1, generation=99), SlotGrant(slot=7, generation=100)):
        assert bench.slots.take(stale, FRAME) is None
    assert bench.slots.granted == 1


def test_a_slot_that_does_not_hold_what_was_announced_is_free_again(bench: Bench) -> None:
    grant = bench.slots.grant_all()[0]
    assert bench.slots.take(grant, FRAME) is None
    assert (bench.slots.granted, bench.slots.free_slots, bench.freed) == (1, 1, 1)


def test_the_order_to_a_worker_names_the_slot_and_its_generation(bench: Bench) -> None:
    held = bench.written()
    order = held.inspect(7, until_ns=5, early_reject=True)
    assert (order.until_ns, order.early_reject) == (5, True)
    assert (order.job, order.path, order.slot, order.generation) == (7, str(bench.slots.ring.path), 0, 100)
    assert (order.slot_bytes, order.frame) == (bench.slots.spec.slot_bytes, FRAME)


def test_a_frame_that_came_as_a_message_is_stored_while_a_slot_is_free(bench: Bench) -> None:
    first, second = (bench.slots.store(FRAME, PIXELS) for _ in range(2))
    assert first is not None
    assert second is not None
    assert bench.slots.store(FRAME, PIXELS) is None
    first.release()
    assert bench.slots.store(FRAME, PIXELS) is not None


def test_pixels_that_are_no_such_frame_take_no_slot(bench: Bench) -> None:
    with pytest.raises(ProtocolError):
        bench.slots.store(FRAME, PIXELS[1:])
    assert bench.slots.free_slots == 2


def test_a_retired_ring_stays_until_its_last_frame_was_inspected(bench: Bench) -> None:
    held = bench.written()
    bench.slots.retire()
    assert bench.slots.ring.path.exists()
    held.release()
    assert not bench.slots.ring.path.exists()
    assert bench.freed == 0  # nothing is granted there any more
    bench.slots.retire()


def test_without_room_there_are_no_slots(tmp_path: Path) -> None:
    with pytest.raises(CameraError):
        Bench(tmp_path / "missing" / "a.ring")


@settings(max_examples=60, deadline=None)
@given(script=st.lists(st.tuples(st.sampled_from(["grant", "write", "lie", "store", "free"]), st.integers(0, 3))))
def test_no_order_of_events_loses_a_slot(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("ring") / "a.ring", 4)
    slots, held, granted = bench.slots, list[HeldFrame](), list[SlotGrant]()
    for what, which in script:
        found: HeldFrame | None = None
        if what == "grant":
            granted += slots.grant_all()
        elif what in {"write", "lie"} and granted:
            grant = granted.pop(which % len(granted))
            slots.ring.write(grant, FRAME, PIXELS)
            found = slots.take(grant, FRAME if what == "write" else OTHER)
        elif what == "store":
            found = slots.store(FRAME, PIXELS)
        elif held:
            held.pop(which % len(held)).release()
        held += [] if found is None else [found]
        assert slots.free_slots + slots.granted + len(held) == 4
        assert slots.granted == len(granted)
    for one in held:
        one.release()
    slots.retire()
    assert not slots.ring.path.exists()
