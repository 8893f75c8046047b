"""A second, independent reading of the wire: what the library gets wrong on both sides would not show otherwise.

Written from the description of the protocol alone: `[b"TAKT" major minor type] [JSON header] [pixels]`, nothing of
`edge_runtime` is imported.
"""

import json
from typing import Any

import zmq

HEARTBEAT, REFUSED = 0x01, 0x02
CLIENT_HELLO, CLIENT_WELCOME, TRIGGER, QUEUED, ANSWER = 0x10, 0x11, 0x12, 0x13, 0x14
CAMERA_HELLO, CAMERA_WELCOME, CREDIT, GRAB, FRAME, CAMERA_STATE = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25
CONSUMER_HELLO, CONSUMER_WELCOME, RECORD, ACK, GAP = 0x30, 0x31, 0x32, 0x33, 0x34

HELLO_S = 0.2  # between HELLOs until WELCOME
HEARTBEAT_S = 0.5
LAPSE_S = 2.0
_BATCH = 200


def pack(number: int, header: dict[str, Any], pixels: bytes | None = None) -> list[bytes]:
    """The parts of a message."""
    parts = [b"TAKT\x01\x00" + bytes((number,)), json.dumps(header).encode()]
    return parts if pixels is None else [*parts, pixels]


def unpack(parts: list[bytes]) -> tuple[int, dict[str, Any]]:
    """Type and header; anything else than a message of version 1 is an error."""
    if len(parts) != 2 or len(parts[0]) != 7 or parts[0][:5] != b"TAKT\x01":
        message = f"the service sent {parts!r}, which is no message of protocol 1"
        raise ValueError(message)
    header = json.loads(parts[1])
    if not isinstance(header, dict):
        message = f"the service sent a header that is no object: {header!r}"
        raise TypeError(message)
    return parts[0][6], header


class Dealer:
    """A DEALER to one of the service's sockets."""

    def __init__(self, address: str) -> None:
        """Connect in the background; ZeroMQ tries again by itself."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.reconnect_ivl = 50
        self._socket.reconnect_ivl_max = 500
        self._socket.connect(address)

    def send(self, number: int, header: dict[str, Any], pixels: bytes | None = None) -> None:
        """Send without waiting; what a full queue does not take is lost, as on any line."""
        try:
            self._socket.send_multipart(pack(number, header, pixels), zmq.NOBLOCK)
        except zmq.Again:
            return

    def receive(self, within_s: float) -> list[tuple[int, dict[str, Any]]]:
        """What is there, waiting for the first message."""
        found: list[tuple[int, dict[str, Any]]] = []
        if self._socket.poll(max(0, int(within_s * 1000))):
            for _ in range(_BATCH):
                try:
                    found.append(unpack(self._socket.recv_multipart(zmq.NOBLOCK)))
                except zmq.Again:
                    break
        return found

    def close(self) -> None:
        """Close at once."""
        self._socket.close(0)
        self._context.term()
