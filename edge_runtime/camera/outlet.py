"""Owns where a camera's frames go: into granted slots of shared memory, or into messages within the service's credit."""

from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import CameraError
from edge_runtime.imaging.frames import Pixels
from edge_runtime.protocol.messages import CameraWelcome, Credit, FrameSpec, SlotGrant, Transport
from edge_runtime.protocol.ring import Ring

_MOST_MESSAGES = 64


class Parcel(NamedTuple):
    """What a FRAME says of its pixels: the slot they lie in, or the pixels themselves."""

    grant: SlotGrant | None
    pixels: memoryview | None


class Outlet:
    """The credit of one welcome: grants of a mapped ring, or a number of messages."""

    def __init__(self, transport: Transport) -> None:
        """Without credit until a welcome and its credit come."""
        self._transport = transport
        self._ring: Ring | None = None
        self._grants: deque[SlotGrant] = deque()
        self._messages = 0

    def renew(self, welcome: CameraWelcome) -> None:
        """Void all credit and map what the welcome names, even under the same name: it may be another file.

        Raises:
            CameraError: the ring cannot be mapped.
        """
        self.close()
        if self._transport is Transport.MESSAGE:
            return
        if welcome.ring is None:
            message = "the service named no ring for transport memory: its version may differ from the camera's"
            raise CameraError(message)
        self._ring = Ring(Path(welcome.ring.path), slots=welcome.ring.slots, size=welcome.ring.slot_bytes)
        self._ring.touch()

    def add(self, credit: Credit) -> None:
        """Take further credit; more than there are slots is nonsense and left."""
        self._messages = min(self._messages + credit.messages, _MOST_MESSAGES)
        if self._ring is not None:
            self._grants.extend(credit.grants[: max(0, self._ring.slots - len(self._grants))])

    @property
    def open(self) -> bool:
        """Whether a frame may be put."""
        return bool(self._grants) if self._transport is Transport.MEMORY else self._messages > 0

    def put(self, pixels: Pixels, spec: FrameSpec) -> Parcel:
        """Use up one credit for a frame, the oldest first; only while `open`.

        Args:
            pixels: (H, W, C) in the layout of `spec`.
            spec: what the service expects.

        Raises:
            ProtocolError: the service granted a slot that there is not, or one that is too small.
        """
        if self._transport is Transport.MESSAGE:
            self._messages -= 1
            return Parcel(None, _packed(pixels))
        grant = self._grants.popleft()
        if self._ring is not None:
            self._ring.write(grant, spec, pixels)
        return Parcel(grant, None)

    def close(self) -> None:
        """Void all credit and unmap the ring."""
        self._grants.clear()
        self._messages = 0
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def _packed(pixels: Pixels) -> memoryview:
    """Rows without padding, little-endian; a copy only where they are not."""
    packed: NDArray[np.uint8 | np.uint16] = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return packed.data
