"""A reader that checks a slot before and after it used the pixels never takes a torn or stale frame for the announced one."""

import tempfile
import threading
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ProtocolError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import FrameSpec, SlotGrant
from edge_runtime.protocol.ring import Ring, slot_bytes

LARGE = FrameSpec(width=1024, height=512, pixel_format=PixelFormat.MONO8)
SMALL = FrameSpec(width=4, height=3, pixel_format=PixelFormat.MONO8)
WRITES = 400

frames = st.builds(
    FrameSpec, width=st.integers(1, 70), height=st.integers(1, 70), pixel_format=st.sampled_from(PixelFormat)
)
grants = st.builds(SlotGrant, slot=st.integers(0, 3), generation=st.integers(0, 2**63 - 1))


def test_a_reader_beside_a_writer_sees_whole_frames_only() -> None:
    with tempfile.TemporaryDirectory() as folder:
        writing = Ring.create(Path(folder) / "a.ring", slots=1, size=slot_bytes(LARGE))
        reading = Ring(writing.path, slots=1, size=slot_bytes(LARGE))
        done = threading.Event()

        def write() -> None:
            for generation in range(1, WRITES + 1):
                pixels = np.full((LARGE.height, LARGE.width), generation % 251, dtype=np.uint8)
                writing.write(SlotGrant(slot=0, generation=generation), LARGE, pixels)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        whole, generation = 0, 1
        for _ in range(10_000_000):
            if done.is_set() and whole:
                break
            grant = SlotGrant(slot=0, generation=generation)
            if not reading.holds(grant, LARGE):
                generation = generation % WRITES + 1
                continue
            pixels = reading.pixels(0, LARGE).copy()
            if reading.holds(grant, LARGE):
                whole += 1
                assert np.all(pixels == generation % 251)
        writer.join(60)
        assert whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(grants, frames, st.integers(0, 255)), max_size=6), grants, frames)
def test_a_slot_holds_what_was_written_last_and_nothing_else(
    script: list[tuple[SlotGrant, FrameSpec, int]], other: SlotGrant, asked: FrameSpec
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ring = Ring.create(Path(folder) / "a.ring", slots=3, size=slot_bytes(SMALL) * 2)
        last: dict[int, tuple[SlotGrant, FrameSpec, bytes]] = {}
        for grant, frame, value in script:
            content = bytes([value]) * frame.nbytes
            try:
                ring.write(grant, frame, content)
            except ProtocolError:
                assert grant.slot >= 3 or frame.nbytes + 64 > ring.size
            else:
                last[grant.slot] = (grant, frame, content)
        for grant, frame, content in last.values():
            assert ring.holds(grant, frame)
            assert ring.pixels(grant.slot, frame).tobytes() == content
        for grant, frame in [(other, asked), *((other, frame) for _, frame, _ in last.values())]:
            held = last.get(grant.slot)
            assert ring.holds(grant, frame) == (held is not None and held[:2] == (grant, frame))
