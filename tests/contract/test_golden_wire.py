"""The bytes of every message, pinned: other programs are written against them.

`golden_wire/NAME.bin` holds the two parts of the example of `support.headers` one after the other: seven bytes of
preamble, then the header. To add a file, or to change one on purpose (which needs a new minor or major of the protocol),
delete it and run this module with TAKT_WRITE_GOLDEN=1 in the environment; it writes what is missing, and fails so that
nobody takes that run for a test. Then read the difference.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from support.headers import EXAMPLES

from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import MESSAGES, FrameSpec, Header, SlotGrant
from edge_runtime.protocol.ring import Ring, slot_bytes

GOLDEN = Path(__file__).parent / "golden_wire"
WRITE = os.environ.get("TAKT_WRITE_GOLDEN") == "1"
examples = pytest.mark.parametrize("header", EXAMPLES, ids=lambda header: type(header).__name__)


def golden(header: Header) -> bytes:
    path = GOLDEN / f"{type(header).__name__}.bin"
    if WRITE and not path.exists():
        path.write_bytes(b"".join(bytes(part) for part in wire.encode(header)))
        pytest.fail(f"wrote {path.name}: read it, then run again without TAKT_WRITE_GOLDEN")
    return path.read_bytes()


@examples
def test_a_message_is_encoded_to_exactly_these_bytes(header: Header) -> None:
    assert b"".join(bytes(part) for part in wire.encode(header)) == golden(header)


@examples
def test_these_bytes_are_decoded_to_the_message(header: Header) -> None:
    content = golden(header)
    assert wire.decode([content[:7], content[7:]]).header == header


def test_every_type_of_message_has_its_file_and_no_other() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*")) == sorted(model.__name__ for model in MESSAGES.values())
    assert [type(header) for header in EXAMPLES] == list(MESSAGES.values())


def test_a_frame_of_each_pixel_format_is_described_by_these_bytes() -> None:
    described = b"".join(
        FrameSpec(width=96, height=64, pixel_format=known).model_dump_json().encode() + b"\n" for known in PixelFormat
    )
    lines = [
        b'{"width":96,"height":64,"pixel_format":"%s%d"}\n' % (layout, depth)
        for layout in (b"mono", b"rgb", b"bgr", b"bayerrg", b"bayergr", b"bayergb", b"bayerbg")
        for depth in (8, 10, 12, 14, 16)
    ]
    assert described == b"".join(lines)


def test_a_slot_of_a_mosaic_is_headed_by_these_bytes(tmp_path: Path) -> None:
    spec = FrameSpec(width=4, height=2, pixel_format=PixelFormat.BAYER_RG12)
    ring = Ring.create(tmp_path / "ring", slots=1, size=slot_bytes(spec))
    ring.write(SlotGrant(slot=0, generation=5), spec, np.arange(8, dtype=np.uint16))
    ring.close()
    content = (tmp_path / "ring").read_bytes()
    assert content[:80].hex() == (
        "544b4652000000000500000000000000040000000200000000000000"  # magic, slot, generation, width, height, reserved
        "62617965727267313200000000000000"  # pixel format, zeros after it
        "00000000000000000000000000000000319d96b7"  # padding and the CRC of all before it
        "00000100020003000400050006000700"
    )
