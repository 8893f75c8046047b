"""Owns the file `disowned`: keys whose verdict may reach the journal although their client was told ERROR/JOURNAL.

Slots of fixed size, made in advance, so that a key can be put down on a full disk; each with a CRC, so that a torn
one is ignored. Nothing is fsynced: the file has to survive the process, not the power. Whoever has it open owns the
journal beside it: a lock keeps a second service out.
"""

import io
import os
import struct
import sys
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edge_runtime.errors import ConfigError
from edge_runtime.service.operations import Key

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SLOT_BYTES = 512
SLOTS = 4096  # a batch holds 1000 operations, and at most two batches are in doubt
_HEAD = struct.Struct("<IQQHH")  # CRC of all that follows, epoch, after, bytes of client, bytes of trigger_id
_ROOM = SLOT_BYTES - _HEAD.size
_LOCKED_BYTE = 2**40  # on Windows a lock is on bytes, and must not be on any that are read


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Verdicts of this key with a seq over `after` do not stand."""

    key: Key
    after: int


class Disowned:
    """The open file; `add` and `release` may be called from any thread."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        """Take over a locked file of so many bytes; see `open`."""
        self._file = file
        self._end = size // SLOT_BYTES
        self._free = list(range(self._end))
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file, or make it; its entries are kept until `reset`.

        Raises:
            ConfigError: it cannot be made, or another process has it.
        """
        try:
            file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+")
        except OSError as error:
            message = f"{path}: cannot be opened ({error.strerror}): make its folder writable or choose another run_dir"
            raise ConfigError(message) from error
        try:
            _lock(file)
        except OSError as error:
            file.close()
            message = f"{path}: is in use, another service runs in this run_dir: stop it, or give each its own run_dir"
            raise ConfigError(message) from error
        try:
            return cls(file, _allocate(file))
        except OSError as error:
            file.close()
            message = f"{path}: cannot be written ({error.strerror}): free space or choose another run_dir"
            raise ConfigError(message) from error

    def entries(self) -> list[Entry]:
        """What is put down; torn and empty slots are left out.

        Raises:
            OSError: it cannot be read.
        """
        self._file.seek(0)
        content = self._file.readall() or b""
        slots = (content[start : start + SLOT_BYTES] for start in range(0, len(content), SLOT_BYTES))
        return [entry for slot in slots if (entry := _unpack(slot)) is not None]

    def add(self, entry: Entry) -> int:
        """Put an entry down; gives its slot.

        Raises:
            OSError: it could not be written.
        """
        content = _pack(entry)
        with self._lock:
            if self._free:
                slot = self._free.pop()
            else:  # never in practice; then the disk has to have room
                slot, self._end = self._end, self._end + 1
            self._write(slot, content)
            return slot

    def release(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            OSError: it could not be written; the slot is not used again.
        """
        with self._lock:
            self._write(slot, bytes(SLOT_BYTES))
            self._free.append(slot)

    def reset(self) -> None:
        """Empty the file, for good: on disk when this returns.

        Raises:
            OSError: it could not be written.
        """
        self._file.seek(0)
        _write_all(self._file, bytes(SLOTS * SLOT_BYTES))
        self._file.truncate(SLOTS * SLOT_BYTES)
        os.fsync(self._file.fileno())
        self._end = SLOTS
        self._free = list(range(SLOTS))

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()

    def _write(self, slot: int, content: bytes) -> None:
        self._file.seek(slot * SLOT_BYTES)
        _write_all(self._file, content)


def fits(key: Key) -> bool:
    """Whether a key can be put down; all that the protocol allows can."""
    return key.client.isascii() and key.trigger_id.isascii() and len(key.client) + len(key.trigger_id) <= _ROOM


def _pack(entry: Entry) -> bytes:
    client, trigger_id = entry.key.client.encode(), entry.key.trigger_id.encode()
    head = _HEAD.pack(0, entry.key.epoch, entry.after, len(client), len(trigger_id))
    body = (head + client + trigger_id).ljust(SLOT_BYTES, b"\0")[4:]
    return zlib.crc32(body).to_bytes(4, "little") + body


def _unpack(slot: bytes) -> Entry | None:
    if len(slot) < SLOT_BYTES or zlib.crc32(slot[4:]) != int.from_bytes(slot[:4], "little"):
        return None
    _, epoch, after, middle, end = _HEAD.unpack_from(slot)
    text = slot[_HEAD.size :]
    client, trigger_id = text[:middle].decode(), text[middle : middle + end].decode()
    return Entry(key=Key(client=client, epoch=epoch, trigger_id=trigger_id), after=after)


def _allocate(file: io.FileIO) -> int:
    """Fill the file up to its full size with real bytes, on disk; gives that size."""
    size = file.seek(0, os.SEEK_END)
    missing = SLOTS * SLOT_BYTES - size
    if missing > 0:
        _write_all(file, bytes(missing))
        os.fsync(file.fileno())
    return max(size, SLOTS * SLOT_BYTES)


def _write_all(file: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # each write takes at least a byte, or raises
        rest = rest[file.write(rest) or 0 :]


def _lock(file: io.FileIO) -> None:
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
