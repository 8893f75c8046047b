"""Owns frames in shared memory: a file of slots that the broker makes, a camera writes and a worker reads.

A slot is a header of 64 bytes and the pixels. The header names the slot, its generation and the layout of the pixels, and
ends in a CRC of itself. A writer voids the header, writes the pixels, then writes the header; a reader checks it before
and after it used the pixels. So a slot that was given to somebody else meanwhile, or is half written, is never taken for
the frame that was announced.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import CameraError, ProtocolError
from edge_runtime.imaging.frames import Pixels
from edge_runtime.protocol.messages import FrameSpec, SlotGrant

HEADER_BYTES = 64
_PAGE = 4096
_MAGIC = b"TKFR"
_LAYOUT = struct.Struct("<4sIQIII16s16x")  # magic, slot, generation, width, height, reserved, pixel format
_CRC = struct.Struct("<I")


def slot_bytes(frame: FrameSpec) -> int:
    """Bytes of a slot for such frames: header and pixels, in whole pages."""
    return -(-(HEADER_BYTES + frame.nbytes) // _PAGE) * _PAGE


class Ring:
    """A mapped file of slots; every process that takes part maps it for itself."""

    def __init__(self, path: Path, *, slots: int, size: int) -> None:
        """Map an existing file; `create` makes one.

        Args:
            path: the file.
            slots: how many.
            size: bytes of one slot.

        Raises:
            CameraError: the file cannot be mapped, or is not of the size announced.
        """
        self.path = path
        self.slots = slots
        self.size = size
        try:
            descriptor = os.open(path, os.O_RDWR)
            try:
                found = os.fstat(descriptor).st_size
                self._map = mmap.mmap(descriptor, slots * size) if found == slots * size else None
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            message = f"{path}: frames in memory cannot be reached ({error}): the camera must run on the service's host"
            raise CameraError(message) from error
        if self._map is None:
            message = f"{path}: has {found} bytes, expected {slots} slots of {size}"
            raise CameraError(message)

    @classmethod
    def create(cls, path: Path, *, slots: int, size: int) -> "Ring":
        """Make a new file with all its space taken now: a full disk is an error here, not a crash on writing later.

        Raises:
            CameraError: it cannot be made.
        """
        path.unlink(missing_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _reserve(descriptor, slots * size)
            finally:
                os.close(descriptor)
        except OSError as error:
            path.unlink(missing_ok=True)
            message = f"{path}: no room for {slots} frames of {size} bytes ({error.strerror}): free space in run_dir"
            raise CameraError(message) from error
        return cls(path, slots=slots, size=size)

    def touch(self) -> None:
        """Have every page at hand for writing, so that the first frame takes no longer than the others.

        Only for who may write all slots, before it writes the first.
        """
        if self._map is not None:
            first_bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)[::_PAGE]
            first_bytes[...] = first_bytes.copy()

    def pixels(self, slot: int, frame: FrameSpec) -> Pixels:
        """A view of a slot's pixels: (height, width) or (height, width, 3).

        Raises:
            ProtocolError: no such slot, the frame does not fit, or the file is not mapped any more.
        """
        if self._map is None:
            message = f"{self.path.name} is closed: its frames are gone"
            raise ProtocolError(message)
        if not 0 <= slot < self.slots or HEADER_BYTES + frame.nbytes > self.size:
            message = (
                f"frame {frame.width}x{frame.height} {frame.pixel_format} in slot {slot}: "
                f"{self.path.name} has {self.slots} slots of {self.size} bytes"
            )
            raise ProtocolError(message)
        channels = frame.pixel_format.channels
        shape = (frame.height, frame.width) if channels == 1 else (frame.height, frame.width, channels)
        count = frame.width * frame.height * channels
        start = slot * self.size + HEADER_BYTES
        flat: NDArray[Any] = np.frombuffer(self._map, dtype=frame.pixel_format.dtype, count=count, offset=start)
        return flat.reshape(shape)

    def write(self, grant: SlotGrant, frame: FrameSpec, pixels: Pixels | bytes | memoryview) -> None:
        """Put a frame into a slot.

        Raises:
            ProtocolError: no such slot, or the pixels do not fit.
        """
        view = self.pixels(grant.slot, frame)
        if not isinstance(pixels, np.ndarray) and memoryview(pixels).nbytes != frame.nbytes:
            message = f"{memoryview(pixels).nbytes} bytes of pixels, expected {frame.nbytes}"
            raise ProtocolError(message)
        given = pixels if isinstance(pixels, np.ndarray) else np.frombuffer(pixels, dtype=view.dtype)
        if given.size != view.size or given.dtype != view.dtype:
            message = f"{given.size} pixels of {given.dtype}, expected {view.size} of {view.dtype}"
            raise ProtocolError(message)
        self.void(grant.slot)
        view[...] = given.reshape(view.shape)
        self._put(grant.slot, _header(grant, frame))

    def void(self, slot: int) -> None:
        """Make a slot hold no frame."""
        self._put(slot, bytes(HEADER_BYTES))

    def holds(self, grant: SlotGrant, frame: FrameSpec) -> bool:
        """Whether a slot holds exactly the frame that was announced."""
        if self._map is None or not 0 <= grant.slot < self.slots:
            return False
        start = grant.slot * self.size
        return self._map[start : start + HEADER_BYTES] == _header(grant, frame)

    def close(self) -> None:
        """Unmap; views that are still in use keep the memory until they go."""
        self._map = None

    def _put(self, slot: int, header: bytes) -> None:
        if self._map is not None:
            start = slot * self.size
            self._map[start : start + HEADER_BYTES] = header


def _header(grant: SlotGrant, frame: FrameSpec) -> bytes:
    name = frame.pixel_format.value.encode()
    body = _LAYOUT.pack(_MAGIC, grant.slot, grant.generation, frame.width, frame.height, 0, name)
    return body + _CRC.pack(zlib.crc32(body))


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(1 << 20)
    for start in range(0, size, len(block)):
        os.write(descriptor, block[: min(len(block), size - start)])


__all__ = ["HEADER_BYTES", "Ring", "slot_bytes"]
