"""Owns the bytes of a bundle file: one canonical zip form, written atomically and read strictly.

The file opens in any zip tool, but only one sequence of bytes is accepted for given members: STORED, no comments, no
extra fields, one fixed timestamp, members one after the other from offset 0, then the central directory, then the end
record. Whatever a zip trick would need (a gap, a second directory, a name that leaves the folder) is not of that form.
"""

import contextlib
import mmap
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from edge_runtime.errors import BundleError

MAX_MEMBERS = 4096
MAX_BYTES = 4_000_000_000  # below the limit of the zip form without its 64-bit extension
MAX_NAME = 255  # characters, what common file systems take

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_VERSION, _TIME, _DATE = 20, 0, 0x21  # 1980-01-01 00:00


class Archive:
    """A bundle file, mapped read-only; `members` are views into it, without copies."""

    def __init__(self, path: Path) -> None:
        """Map the file and read its central directory.

        Raises:
            BundleError: the file cannot be read or is not of the canonical form.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not _END.size <= size <= MAX_BYTES:
                    message = f"{path}: {size} bytes, expected {_END.size} to {MAX_BYTES}: not a bundle, or cut short"
                    raise BundleError(message)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            message = f"{path}: cannot be opened ({error.strerror or error})"
            raise BundleError(message) from error
        self._view = memoryview(self._map)
        try:
            self._directory = _read_directory(self._view, str(path))
        except BundleError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Nothing to do: the file is open since construction."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unmap the file."""
        self.close()

    @property
    def names(self) -> frozenset[str]:
        """Names of all members."""
        return frozenset(self._directory)

    def view(self, name: str) -> memoryview:
        """A member's bytes, not copied, valid until `close`.

        Raises:
            BundleError: there is no such member.
        """
        if name not in self._directory:
            message = f"{self.path}: has no member {name!r}: not a bundle of this kind, or incomplete"
            raise BundleError(message)
        start, size, _ = self._directory[name]
        return self._view[start : start + size]

    def read(self, name: str) -> bytes:
        """A copy of a member's bytes.

        Raises:
            BundleError: there is no such member.
        """
        with self.view(name) as view:
            return bytes(view)

    def checksum_fits(self, name: str) -> bool:
        """Whether a member's bytes have the CRC-32 of the directory (guards what no digest guards: the manifest)."""
        with self.view(name) as view:
            return zlib.crc32(view) == self._directory[name][2]

    def close(self) -> None:
        """Unmap the file."""
        self._view.release()
        self._map.close()


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write members in their order to a temporary file, sync it, rename it into place and sync the folder.

    Raises:
        BundleError: a name is not allowed, the whole is too large, or the file cannot be written; nothing is left.
    """
    _check_names(list(members), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            directory, offset, total = [], 0, _END.size
            for name, data in members.items():
                crc = zlib.crc32(data)
                header = _local_header(name, crc, len(data))
                total += len(header) + len(data) + _CENTRAL.size + len(name)
                if total > MAX_BYTES:  # the reader counts the directory too
                    message = f"{path}: more than {MAX_BYTES} bytes at member {name!r}: use a smaller model"
                    raise BundleError(message)
                file.write(header)
                file.write(data)
                directory.append(_central_header(name, crc, len(data), offset))
                offset += len(header) + len(data)
            central = b"".join(directory)
            file.write(central + _end_record(len(directory), len(central), offset))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror or error}): free space or choose another folder"
        raise BundleError(message) from error
    finally:
        # where nothing could be made (below a file, say) there is nothing to remove, and the first fault is what counts
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows has no handle on a folder to sync; the rename itself is journalled there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_names(names: list[str], path: str) -> None:
    bad = [name for name in names if len(name) > MAX_NAME or not _NAME.fullmatch(name)]
    if bad:
        message = (
            f"{path}: member name {bad[0][:MAX_NAME]!r} is not a plain relative path of at most {MAX_NAME} characters"
        )
        raise BundleError(message)
    if len({name.lower() for name in names}) != len(names):
        message = f"{path}: two members have the same name"
        raise BundleError(message)
    if not 0 < len(names) <= MAX_MEMBERS:
        message = f"{path}: {len(names)} members, expected 1 to {MAX_MEMBERS}"
        raise BundleError(message)


def _read_directory(view: memoryview, path: str) -> dict[str, tuple[int, int, int]]:
    """Start, size and CRC-32 of every member; every byte outside the members' data is compared with the one form."""
    end_at = len(view) - _END.size
    end = _END.unpack_from(view, end_at)
    count, central_size, central_at = end[4], end[5], end[6]
    if bytes(view[end_at:]) != _end_record(count, central_size, central_at) or central_at + central_size != end_at:
        message = f"{path}: no end record of the expected form: not a bundle, cut short, or changed by a zip tool"
        raise BundleError(message)
    directory: dict[str, tuple[int, int, int]] = {}
    cursor, offset = central_at, 0
    while cursor < end_at:
        cursor, name, size, crc = _read_entry(view, cursor, end_at, offset, path)
        if offset + _LOCAL.size + len(name) + size > central_at:
            message = f"{path}: member {name!r} reaches into the directory"
            raise BundleError(message)
        header = _local_header(name, crc, size)
        if bytes(view[offset : offset + len(header)]) != header:
            message = f"{path}: the header of member {name!r} is damaged"
            raise BundleError(message)
        if name in directory:
            message = f"{path}: two members have the name {name!r}"
            raise BundleError(message)
        directory[name] = (offset + len(header), size, crc)
        offset += len(header) + size
    if offset != central_at or len(directory) != count:
        message = f"{path}: {len(directory)} members end at byte {offset}, the end record says {count} and {central_at}"
        raise BundleError(message)
    _check_names(list(directory), path)
    return directory


def _read_entry(view: memoryview, cursor: int, end_at: int, offset: int, path: str) -> tuple[int, str, int, int]:
    """One entry of the central directory: the next cursor, name, size and CRC-32."""
    message = f"{path}: the central directory is damaged at byte {cursor}"
    if cursor + _CENTRAL.size > end_at:
        raise BundleError(message)
    fields = _CENTRAL.unpack_from(view, cursor)
    crc, size, name_size = fields[7], fields[9], fields[10]
    stop = cursor + _CENTRAL.size + name_size
    try:
        name = bytes(view[cursor + _CENTRAL.size : stop]).decode("ascii")
    except UnicodeDecodeError as error:
        raise BundleError(message) from error
    if bytes(view[cursor:stop]) != _central_header(name, crc, size, offset):
        raise BundleError(message)
    return stop, name, size, crc


def _local_header(name: str, crc: int, size: int) -> bytes:
    encoded = name.encode("ascii")
    return _LOCAL.pack(0x04034B50, _VERSION, 0, 0, _TIME, _DATE, crc, size, size, len(encoded), 0) + encoded


def _central_header(name: str, crc: int, size: int, offset: int) -> bytes:
    encoded = name.encode("ascii")
    fields = (_VERSION, _VERSION, 0, 0, _TIME, _DATE, crc, size, size, len(encoded), 0, 0, 0, 0, 0, offset)
    return _CENTRAL.pack(0x02014B50, *fields) + encoded


def _end_record(count: int, central_size: int, central_at: int) -> bytes:
    return _END.pack(0x06054B50, 0, 0, count, count, central_size, central_at, 0)
