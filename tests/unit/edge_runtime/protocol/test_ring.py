"""A slot is taken for a frame only if it holds exactly that one, whole."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.errors import CameraError, ProtocolError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import FrameSpec, SlotGrant
from edge_runtime.protocol.ring import HEADER_BYTES, Ring, slot_bytes

MONO = FrameSpec(width=96, height=64, pixel_format=PixelFormat.MONO8)
DEEP = FrameSpec(width=5, height=3, pixel_format=PixelFormat.RGB16)


def grant(slot: int = 0, generation: int = 1) -> SlotGrant:
    return SlotGrant(slot=slot, generation=generation)


def made(folder: Path, frame: FrameSpec = MONO, slots: int = 2) -> Ring:
    return Ring.create(folder / "top.ring", slots=slots, size=slot_bytes(frame))


def filled(frame: FrameSpec, seed: int = 0) -> NDArray[Any]:
    channels = frame.pixel_format.channels
    shape = (frame.height, frame.width) if channels == 1 else (frame.height, frame.width, channels)
    dtype = frame.pixel_format.dtype
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_frame_is_read_by_another_mapping_as_it_was_written(tmp_path: Path, pixel_format: PixelFormat) -> None:
    frame = FrameSpec(width=7, height=5, pixel_format=pixel_format)
    writer, pixels = made(tmp_path, frame), filled(frame)
    reader = Ring(writer.path, slots=2, size=slot_bytes(frame))
    for given in (pixels, pixels.tobytes(), memoryview(pixels.tobytes())):
        writer.void(1)
        writer.write(grant(1, 9), frame, given)
        assert reader.holds(grant(1, 9), frame)
        np.testing.assert_array_equal(reader.pixels(1, frame), pixels)
        assert not reader.holds(grant(0, 9), frame)


def test_the_header_lies_where_the_protocol_says(tmp_path: Path) -> None:
    ring = made(tmp_path, DEEP)
    ring.write(grant(1, 2**40), DEEP, filled(DEEP))
    header = ring.path.read_bytes()[slot_bytes(DEEP) :][:HEADER_BYTES]
    assert header[:4] == b"TKFR"
    assert struct.unpack_from("<IQIII", header, 4) == (1, 2**40, 5, 3, 0)
    assert header[28:44] == b"rgb16".ljust(16, b"\0")
    assert header[44:60] == bytes(16)
    assert struct.unpack_from("<I", header, 60) == (zlib.crc32(header[:60]),)


@pytest.mark.parametrize("at", range(HEADER_BYTES))
def test_one_damaged_byte_of_the_header_is_no_frame(tmp_path: Path, at: int) -> None:
    ring = made(tmp_path)
    ring.write(grant(), MONO, filled(MONO))
    with ring.path.open("r+b") as file:
        file.seek(at)
        before = file.read(1)[0]
        file.seek(at)
        file.write(bytes([before ^ 0x10]))
    assert not ring.holds(grant(), MONO)


def test_another_generation_or_layout_is_another_frame(tmp_path: Path) -> None:
    ring = made(tmp_path)
    ring.write(grant(0, 5), MONO, filled(MONO))
    assert ring.holds(grant(0, 5), MONO)
    assert not ring.holds(grant(0, 4), MONO)
    assert not ring.holds(grant(0, 6), MONO)
    turned = FrameSpec(width=64, height=96, pixel_format=PixelFormat.MONO8)
    assert not ring.holds(grant(0, 5), turned)
    ring.void(0)
    assert not ring.holds(grant(0, 5), MONO)


class Halfway(np.ndarray[Any, Any]):
    """Pixels that call back when they are copied: a reader that looks in mid-write."""

    look: Callable[[], None]

    def reshape(self, *shape: SupportsIndex | tuple[int, ...]) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Look, then go on."""
        self.look()
        return np.asarray(self).reshape(*shape)


def test_a_slot_that_is_being_written_holds_neither_the_old_nor_the_new_frame(tmp_path: Path) -> None:
    ring = made(tmp_path)
    ring.write(grant(0, 1), MONO, filled(MONO))
    seen: list[bool] = []
    pixels = filled(MONO, 1).view(Halfway)
    pixels.look = lambda: seen.extend([ring.holds(grant(0, 1), MONO), ring.holds(grant(0, 2), MONO)])
    ring.write(grant(0, 2), MONO, pixels)
    assert seen == [False, False]
    assert ring.holds(grant(0, 2), MONO)


@pytest.mark.parametrize(
    ("frame", "pixels"),
    [
        (MONO, b""),
        (MONO, bytes(MONO.nbytes - 1)),
        (MONO, bytes(MONO.nbytes + 1)),
        (MONO, np.zeros((64, 96), dtype=np.uint16)),
        (MONO, np.zeros((64, 95), dtype=np.uint8)),
        (DEEP, bytes(DEEP.nbytes - 1)),  # half a pixel
    ],
    ids=["none", "short", "long", "deep", "narrow", "odd"],
)
def test_pixels_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, frame: FrameSpec, pixels: bytes | NDArray[Any]
) -> None:
    ring = made(tmp_path, frame)
    ring.write(grant(0, 1), frame, filled(frame))
    with pytest.raises(ProtocolError, match="expected"):
        ring.write(grant(0, 2), frame, pixels)
    assert ring.holds(grant(0, 1), frame)
    np.testing.assert_array_equal(ring.pixels(0, frame), filled(frame))


@pytest.mark.parametrize("slot", [-1, 2, 2**63 - 1])
def test_there_is_no_such_slot(tmp_path: Path, slot: int) -> None:
    ring = made(tmp_path)
    with pytest.raises(ProtocolError, match="has 2 slots"):
        ring.pixels(slot, MONO)
    wanted = SlotGrant.model_construct(slot=slot, generation=1)
    with pytest.raises(ProtocolError, match="has 2 slots"):
        ring.write(wanted, MONO, bytes(MONO.nbytes))
    assert not ring.holds(wanted, MONO)


def test_a_frame_larger_than_a_slot_is_refused(tmp_path: Path) -> None:
    ring = made(tmp_path)
    large = FrameSpec(width=65_535, height=65_535, pixel_format=PixelFormat.RGB16)
    with pytest.raises(ProtocolError, match="slots of 8192 bytes"):
        ring.pixels(0, large)


@pytest.mark.parametrize(("slots", "size"), [(3, 8192), (2, 4096), (0, 0), (2**63 - 1, 2**63 - 1)])
def test_a_file_of_another_size_is_not_mapped(tmp_path: Path, slots: int, size: int) -> None:
    path = made(tmp_path).path
    with pytest.raises(CameraError, match="has 16384 bytes"):
        Ring(path, slots=slots, size=size)


def test_an_empty_file_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "empty.ring"
    path.touch()
    with pytest.raises(CameraError, match="cannot be reached"):
        Ring(path, slots=0, size=0)


def test_a_removed_file_stays_with_who_mapped_it_and_is_not_there_for_others(tmp_path: Path) -> None:
    ring = made(tmp_path)
    ring.path.unlink()
    ring.write(grant(), MONO, filled(MONO))
    assert ring.holds(grant(), MONO)
    with pytest.raises(CameraError, match="must run on the service's host"):
        Ring(ring.path, slots=2, size=slot_bytes(MONO))


def test_making_a_ring_leaves_no_frame_of_an_earlier_one(tmp_path: Path) -> None:
    made(tmp_path).write(grant(), MONO, filled(MONO))
    assert not made(tmp_path).holds(grant(), MONO)


def test_a_closed_ring_holds_nothing_and_views_of_it_stay(tmp_path: Path) -> None:
    ring = made(tmp_path)
    ring.write(grant(), MONO, filled(MONO))
    view = ring.pixels(0, MONO)
    ring.close()
    assert not ring.holds(grant(), MONO)
    ring.void(0)
    np.testing.assert_array_equal(view, filled(MONO))
    with pytest.raises(ProtocolError, match="closed"):
        ring.pixels(0, MONO)
    with pytest.raises(ProtocolError, match="closed"):
        ring.write(grant(), MONO, bytes(MONO.nbytes))


_NO_ROOM = """
import resource, sys
from pathlib import Path
from edge_runtime.errors import CameraError
from edge_runtime.protocol.ring import Ring
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    Ring.create(Path(sys.argv[1]), slots=4, size=8192)
except CameraError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_no_room_is_an_error_when_the_ring_is_made_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "top.ring"
    done = subprocess.run(
        [sys.executable, "-c", _NO_ROOM, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "no room for 4 frames of 8192 bytes" in done.stdout
    assert not path.exists()


def test_the_space_of_a_ring_is_taken_when_it_is_made(tmp_path: Path) -> None:
    """A sparse file would be a crash of the camera on a full disk."""
    found = made(tmp_path, slots=8).path.stat()
    assert found.st_blocks * 512 >= found.st_size == 8 * 8192
    assert found.st_mode & 0o077 == 0


@pytest.mark.parametrize(("width", "expected"), [(1, 4096), (4032, 4096), (4033, 8192)])
def test_a_slot_is_a_whole_number_of_pages(width: int, expected: int) -> None:
    assert slot_bytes(FrameSpec(width=width, height=1, pixel_format=PixelFormat.MONO8)) == expected


def test_touching_leaves_frames_as_they_are(tmp_path: Path) -> None:
    ring, pixels = made(tmp_path), filled(MONO)
    ring.write(grant(1, 3), MONO, pixels)
    ring.touch()
    assert ring.holds(grant(1, 3), MONO)
    np.testing.assert_array_equal(ring.pixels(1, MONO), pixels)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the page faults of one thread")
def test_the_first_frame_in_a_touched_slot_waits_for_no_page(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415 - not on Windows

    frame = FrameSpec(width=2048, height=1024, pixel_format=PixelFormat.MONO8)  # 512 pages of 4096 bytes
    ring, pixels = made(tmp_path, frame), filled(frame)
    ring.touch()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    ring.write(grant(), frame, pixels)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 50
