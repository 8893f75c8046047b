"""What comes off the wire is exactly what was sent, or a ProtocolError: never anything else."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.headers import EXAMPLES, headers, json_values

from edge_runtime.errors import ProtocolError
from edge_runtime.protocol import messages, wire
from edge_runtime.protocol.messages import MESSAGES, Header

types = pytest.mark.parametrize("model", MESSAGES.values(), ids=lambda model: model.__name__)
any_bytes = st.binary(max_size=200)


@types
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_decoded_is_what_was_encoded(model: type[Header], data: st.DataObject) -> None:
    header = data.draw(headers(model))
    pixels = data.draw(st.none() | any_bytes)
    try:
        parts = wire.encode(header, pixels)
    except ProtocolError:
        return  # over 64 KiB: it says so, and nothing is sent
    assert wire.decode(parts) == (header, pixels)
    assert type(wire.decode(parts).header) is model


@settings(max_examples=300, deadline=None)
@given(st.lists(any_bytes, max_size=5))
@example([b"TAKT\x01\x00\x12", b"[" * 60_000])
@example([b"TAKT\x01\x00\x40", b'{"arguments":{"a":' + b"9" * 5000 + b"}}"])
@example([b"TAKT\x01\x00\x01", b'{"epoch":1,"reason":"\\ud800"}'])
@example([b"TAKT\x01\x00\x01", b'{"epoch":NaN}'])
def test_arbitrary_bytes_are_refused_and_nothing_else(parts: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(parts)
    wire.meant(parts)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 255), any_bytes | json_values.map(lambda value: json.dumps(value).encode()), any_bytes)
def test_a_sound_preamble_makes_arbitrary_bytes_no_better(kind: int, body: bytes, pixels: bytes) -> None:
    try:
        message = wire.decode([b"TAKT\x01\x00" + bytes([kind]), body, pixels])
    except ProtocolError:
        return
    assert isinstance(message.header, MESSAGES[kind])  # such as CREDIT, of which every field may be left out


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_damaged_message_is_refused_or_still_one_of_its_type(header: Header, data: st.DataObject) -> None:
    preamble, body = (bytes(part) for part in wire.encode(header))
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    try:
        found = wire.decode([preamble, damaged]).header
    except ProtocolError:
        return
    assert type(found) is type(header)
    assert wire.decode(wire.encode(found)).header == found


@types
def test_unknown_fields_of_a_newer_minor_are_ignored(model: type[Header]) -> None:
    header = next(one for one in EXAMPLES if type(one) is model)
    fields = {"a_new_field": {"deep": [1]}, **json.loads(header.model_dump_json())}
    preamble = b"TAKT\x01\x63" + bytes([messages.TYPES[model]])
    assert wire.decode([preamble, json.dumps(fields).encode()]).header == header


@given(st.integers(0, 255).filter(lambda major: major != wire.MAJOR), st.sampled_from(EXAMPLES))
def test_another_major_is_refused(major: int, header: Header) -> None:
    preamble, body = (bytes(part) for part in wire.encode(header))
    with pytest.raises(ProtocolError, match=rf"protocol {major}\.0, this service speaks 1\.0"):
        wire.decode([preamble[:4] + bytes([major]) + preamble[5:], body])
