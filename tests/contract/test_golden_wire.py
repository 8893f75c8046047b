"""The bytes of every message, pinned: other programs are written against them.

`golden_wire/NAME.bin` holds the two parts of the example of `support.headers` one after the other: seven bytes of
preamble, then the header. To add a file, or to change one on purpose (which needs a new minor or major of the protocol),
delete it and run this module with TAKT_WRITE_GOLDEN=1 in the environment; it writes what is missing, and fails so that
nobody takes that run for a test. Then read the difference.
"""

import os
from pathlib import Path

import pytest
from support.headers import EXAMPLES

from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import MESSAGES, Header

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
