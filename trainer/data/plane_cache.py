"""Owns the tile cache: what was computed from images, kept on disk for later epochs and later builds.

1. An entry's name is the SHA-256 of all that shaped it, the image's content included: a changed image, crop, scale,
   pixel format, release or decoder finds no entry, and never a stale one.
2. An entry is written beside its place and renamed: a reader sees all of it or nothing, whoever else writes.
3. It is checked when it is read, its length and its digest. Nothing is synced: what a power cut leaves is found out there.
4. An entry that does not pass is as good as none: it is made again and overwritten.
5. A disk that cannot be written to ends the writing and not the fit.
"""

import hashlib
import json
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError

CACHE_VERSION = 1
"""Part of every entry's name and header; changes when entries are laid out otherwise."""

_DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "int64": np.int64}
_HEADER_BYTES = 4096  # a longer first line is no header
_SUFFIX = ".plane"
_LEFT_BEHIND_S = 24 * 3600.0  # no build writes one entry for so long: what is older was left by one that was killed
_LOG = logging.getLogger("takt")


class PlaneCache:
    """Arrays by what shaped them. For threads of one build, and for any number of builds at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, made if need be.

        Raises:
            ConfigError: it cannot be made or written to.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._writing = True
        probe = self._temporary("probe")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            message = (
                f"--tile-cache {folder}: cannot be written to ({error.strerror or error}): choose another folder, "
                "or leave the flag out"
            )
            raise ConfigError(message) from error
        self._sweep()

    def get(self, key: Mapping[str, object]) -> NDArray[Any] | None:
        """What was put under a key; None where there is nothing, or nothing whole."""
        name = _name(key)
        path = self._folder / f"{name}{_SUFFIX}"
        try:
            with path.open("rb") as file:
                found = _read(file.readline(_HEADER_BYTES), file, os.fstat(file.fileno()).st_size, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_once("read", f"--tile-cache: {path} cannot be read ({error.strerror or error}): it is made again")
            return None
        if found is None:
            self._say_once("damaged", f"--tile-cache: {path} is damaged or half of an entry: it is made again")
        return found

    def put(self, key: Mapping[str, object], values: NDArray[Any]) -> None:
        """Keep an array of uint8, uint16 or int64; where the disk refuses it, that is said once and no more is written."""
        if not self._writing:
            return
        name = _name(key)
        payload = np.ascontiguousarray(values)
        temporary = self._temporary(name)
        try:
            with temporary.open("xb") as file:
                file.write(_header(name, payload))
                file.write(payload.data)
            temporary.replace(self._folder / f"{name}{_SUFFIX}")
        except OSError as error:
            self._writing = False
            self._say_once(
                "write",
                f"--tile-cache {self._folder}: cannot be written to any more ({error.strerror or error}): "
                "the fit goes on without; free space for the next one",
            )
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self._folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"

    def _sweep(self) -> None:
        for path in self._folder.glob(".*.tmp"):
            with suppress(OSError):  # another build may be at it as well
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                    path.unlink()

    def _say_once(self, what: str, message: str) -> None:
        with self._lock:
            first = what not in self._said
            self._said.add(what)
        if first:
            _LOG.warning("%s", message)


def _name(key: Mapping[str, object]) -> str:
    whole = {**key, "cache": CACHE_VERSION, "decoder": cv2.__version__}  # JPEG decoders differ in the last bit
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _header(name: str, payload: NDArray[Any]) -> bytes:
    said = {"cache": CACHE_VERSION, "name": name, "dtype": payload.dtype.name, "shape": list(payload.shape)}
    return json.dumps({**said, "sha256": _digest(said, payload)}).encode() + b"\n"


def _digest(said: Mapping[str, object], payload: NDArray[Any]) -> str:
    """Over the header as well: the same bytes in another shape are another array."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    digest.update(payload.data)
    return digest.hexdigest()


def _read(line: bytes, file: Any, size: int, name: str) -> NDArray[Any] | None:  # noqa: ANN401 - an open binary file
    """The array of an entry; None where anything about it is not as it was written."""
    try:
        said = json.loads(line)
        expected = said.pop("sha256")
        dtype, shape = _DTYPES[said["dtype"]], tuple(int(length) for length in said["shape"])
        if said["cache"] != CACHE_VERSION or said["name"] != name:
            return None
        payload_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if not shape or min(shape) < 1 or len(line) + payload_bytes != size:  # before so much memory is taken
            return None
        payload = np.empty(shape, dtype)
        if file.readinto(payload.data.cast("B")) != payload_bytes or _digest(said, payload) != expected:
            return None
    except (ValueError, LookupError, TypeError, AttributeError):  # a header that is none
        return None
    return payload
