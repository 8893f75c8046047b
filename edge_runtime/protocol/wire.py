"""Owns the framing of messages: `[b"TAKT" major minor type] [JSON header] [pixels]`, and what is refused.

Version 1.0. Another major is refused; fields that a newer minor adds to a header are ignored.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from pydantic import ValidationError

from edge_runtime.errors import ProtocolError
from edge_runtime.protocol.messages import MESSAGES, TYPES, Header, Trigger, TriggerName

MAGIC = b"TAKT"
MAJOR = 1
MINOR = 0
MAX_HEADER_BYTES = 64 * 1024
_PREAMBLE_BYTES = 7
_MAX_PARTS = 3
_TRIGGER = bytes((TYPES[Trigger],))

Buffer: TypeAlias = bytes | bytearray | memoryview


class Message(NamedTuple):
    """A message that was read: its header, and its pixels where it has some."""

    header: Header
    pixels: Buffer | None


def encode(header: Header, pixels: Buffer | None = None) -> list[Buffer]:
    """The parts of a message, ready for `send_multipart`.

    Raises:
        ProtocolError: the header is over 64 KiB.
    """
    body = header.model_dump_json().encode()
    if len(body) > MAX_HEADER_BYTES:
        message = f"{type(header).__name__} header has {len(body)} bytes, at most {MAX_HEADER_BYTES} are allowed"
        raise ProtocolError(message)
    parts: list[Buffer] = [MAGIC + bytes((MAJOR, MINOR, TYPES[type(header)])), body]
    return parts if pixels is None else [*parts, pixels]


def decode(parts: Sequence[Buffer], accepted: Mapping[int, type[Header]] = MESSAGES) -> Message:
    """Read a message; nothing in it is trusted.

    Args:
        parts: what came after the routing id.
        accepted: message types that this socket takes, by number.

    Raises:
        ProtocolError: it is not a message of this protocol, or not one that this socket takes.
    """
    if not 1 < len(parts) <= _MAX_PARTS:
        message = f"message has {len(parts)} part(s), expected preamble, header and at most one block of pixels"
        raise ProtocolError(message)
    preamble, body = bytes(parts[0][: _PREAMBLE_BYTES + 1]), parts[1]
    if len(preamble) != _PREAMBLE_BYTES or preamble[:4] != MAGIC:
        message = f"message starts with {preamble!r}, expected {MAGIC!r} and three bytes: major, minor, type"
        raise ProtocolError(message)
    if preamble[4] != MAJOR:
        message = f"message is of protocol {preamble[4]}.{preamble[5]}, this service speaks {MAJOR}.{MINOR}"
        raise ProtocolError(message)
    model = accepted.get(preamble[6])
    if model is None:
        message = f"message type {preamble[6]} is not taken here, expected one of {sorted(accepted)}"
        raise ProtocolError(message)
    if len(body) > MAX_HEADER_BYTES:
        message = f"{model.__name__} header has {len(body)} bytes, at most {MAX_HEADER_BYTES} are allowed"
        raise ProtocolError(message)
    try:
        header = model.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "header"
        message = f"{model.__name__}: {where}: {first['msg']}"
        raise ProtocolError(message) from error
    return Message(header, parts[2] if len(parts) == _MAX_PARTS else None)


def meant(parts: Sequence[Buffer]) -> TriggerName | None:
    """The trigger that a malformed message is about, where that much of it can be read."""
    if len(parts) < 2 or bytes(parts[0][:_PREAMBLE_BYTES])[6:] != _TRIGGER or len(parts[1]) > MAX_HEADER_BYTES:  # noqa: PLR2004 - preamble and header
        return None
    try:
        return TriggerName.model_validate_json(bytes(parts[1]))
    except ValidationError:
        return None
