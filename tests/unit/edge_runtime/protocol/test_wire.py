"""What makes a message, and what a refusal says of one that is none."""

import pytest
from support.headers import EXAMPLES

from edge_runtime.errors import ProtocolError
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import AT_CONTROL, AT_RECORDS, Ack, Heartbeat, Request, Trigger

BEAT = b'{"epoch":7}'
PREAMBLE = b"TAKT\x01\x00\x01"


def test_a_message_is_preamble_header_and_pixels() -> None:
    assert wire.encode(Ack(seq=5)) == [b"TAKT\x01\x00\x33", b'{"seq":5}']
    assert wire.encode(Ack(seq=5), b"px") == [b"TAKT\x01\x00\x33", b'{"seq":5}', b"px"]
    assert wire.decode([PREAMBLE, BEAT]) == (Heartbeat(epoch=7), None)
    assert wire.decode([memoryview(PREAMBLE), memoryview(BEAT), b""]) == (Heartbeat(epoch=7), b"")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "has 0 part"),
        ([PREAMBLE], "has 1 part"),
        ([PREAMBLE, BEAT, b"", b""], "has 4 part"),
        ([b"", BEAT], "starts with b''"),
        ([b"TACT\x01\x00\x01", BEAT], "starts with b'TACT"),
        ([PREAMBLE[:6], BEAT], "three bytes: major, minor, type"),
        ([PREAMBLE + b"\x00", BEAT], "three bytes: major, minor, type"),
        ([b"TAKT\x02\x03\x01", BEAT], "is of protocol 2.3, this service speaks 1.0"),
        ([b"TAKT\x01\x00\x05", BEAT], "type 5 is not taken here"),
        ([PREAMBLE, b"{"], "Heartbeat: header: Invalid JSON"),
        ([PREAMBLE, b"{}"], "Heartbeat: epoch: Field required"),
        ([PREAMBLE, b'{"epoch":"7"}'], "Heartbeat: epoch: Input should be a valid integer"),
        ([PREAMBLE, b'{"epoch":-1}'], "Heartbeat: epoch: Input should be greater than or equal to 0"),
        ([PREAMBLE, b" " * 65_537], "header has 65537 bytes, at most 65536"),
    ],
)
def test_what_is_no_message_is_refused_with_what_was_found_and_expected(parts: list[bytes], said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.decode(parts)
    assert said in str(caught.value)


def test_a_socket_takes_its_own_types_only() -> None:
    with pytest.raises(ProtocolError, match="type 51 is not taken here, expected one of"):
        wire.decode(wire.encode(Ack(seq=1)), AT_CONTROL)
    assert wire.decode(wire.encode(Ack(seq=1)), AT_RECORDS).header == Ack(seq=1)


def test_a_header_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    empty = len(wire.encode(Request(id="0" * 32, command="c", arguments={"a": ""}))[1])
    room = wire.MAX_HEADER_BYTES - empty
    fits = Request(id="0" * 32, command="c", arguments={"a": "x" * room})
    assert wire.decode(wire.encode(fits)).header == fits
    with pytest.raises(ProtocolError, match="65537 bytes"):
        wire.encode(fits.model_copy(update={"arguments": {"a": "x" * (room + 1)}}))


@pytest.mark.parametrize("header", EXAMPLES, ids=lambda header: type(header).__name__)
def test_a_malformed_trigger_can_be_named_and_no_other_message(header: object) -> None:
    parts = wire.encode(header)  # type: ignore[arg-type]
    named = wire.meant([parts[0], parts[1]])
    if isinstance(header, Trigger):
        assert named is not None
        assert (named.trigger_id, named.epoch) == (header.trigger_id, header.epoch)
    else:
        assert named is None


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"TAKT\x01\x00\x12"],
        [b"TAKT\x01\x00\x12", b"{"],
        [b"TAKT\x01\x00\x12", b'{"epoch":1,"trigger_id":"a b"}'],
        [b"TAKT", b"{}"],
        [b"TAKT\x01\x00\x12", b" " * 70_000],
    ],
)
def test_a_trigger_that_says_no_name_has_none(parts: list[bytes]) -> None:
    assert wire.meant(parts) is None
