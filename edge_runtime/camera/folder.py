"""Owns frames from a folder of images: in name order, from the start again at the end, decoded once."""

import bisect
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from edge_runtime.camera.source import Captured, canonical
from edge_runtime.errors import CameraError
from edge_runtime.imaging.files import images_in
from edge_runtime.imaging.frames import Frame, PixelFormat, read_image

KEPT_BYTES = 512 * 1024 * 1024
_ATTEMPTS = 8  # files that may vanish between being listed and being read, in one grab


class _Key(NamedTuple):
    """What a decoded frame was made of; a file that was written again is another one."""

    path: Path
    mtime_ns: int
    size: int


class FolderSource:
    """Images of a folder and its subfolders; a `Source`.

    The folder is listed again when one of its folders changed and whenever its end is reached, so files may come and go.
    """

    def __init__(
        self, folder: Path, *, period_s: float, kept_bytes: int = KEPT_BYTES, stated: PixelFormat | None = None
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: where the images are.
            period_s: seconds between frames where nobody asks for them.
            kept_bytes: decoded frames that are kept, in bytes; the least used go first.
            stated: what the pixels of the files are, where they cannot tell.
        """
        self.period_s = period_s
        self._folder = folder
        self._kept = _Kept(kept_bytes, stated)
        self._files: list[Path] = []
        self._stamps: dict[Path, int] = {}
        self._last: Path | None = None

    def open(self) -> None:
        """List the folder.

        Raises:
            CameraError: it is not there, or holds no image.
        """
        self._list()

    def check(self) -> None:
        """Look whether the folder is still there.

        Raises:
            CameraError: it is not.
        """
        if not self._folder.is_dir():
            message = f"{self._folder}: the folder of images is not there: put it back, or correct `source`"
            raise CameraError(message)

    def grab(self) -> Captured:
        """Read the next image in name order.

        Raises:
            CameraError: the folder is gone or holds no image.
            DataError: the image is truncated, or none that Takt takes.
        """
        for _ in range(_ATTEMPTS):
            path = self._next()
            try:
                found = path.stat()
            except OSError:  # it went after it was listed
                self._list()
                continue
            self._last = path
            frame = self._kept.frame(_Key(path, found.st_mtime_ns, found.st_size))
            return Captured(frame=frame, label=path.relative_to(self._folder).as_posix())
        message = f"{self._folder}: {_ATTEMPTS} images vanished one after the other: leave files in place for a while"
        raise CameraError(message)

    def close(self) -> None:
        """Nothing is held open."""

    def _next(self) -> Path:
        if self._changed():
            self._list()
        if self._last is None:
            return self._files[0]
        index = bisect.bisect_right(self._files, self._last)
        if index == len(self._files):
            self._list()  # a folder's time of change is coarse: what it did not show is found here
            index = bisect.bisect_right(self._files, self._last) % len(self._files)
        return self._files[index]

    def _changed(self) -> bool:
        return not self._files or any(_stamp(folder) != stamp for folder, stamp in self._stamps.items())

    def _list(self) -> None:
        self._files = []
        self.check()
        folders = [self._folder, *(path for path in self._folder.rglob("*") if path.is_dir())]
        stamps = {folder: _stamp(folder) for folder in folders}  # before the files: a later change shows
        files = images_in(self._folder)
        if not files:
            message = f"{self._folder}: holds no image: put images there, or correct `source`"
            raise CameraError(message)
        self._files, self._stamps = files, stamps


class _Kept:
    """Decoded frames, the least used dropped first."""

    def __init__(self, room: int, stated: PixelFormat | None) -> None:
        self._room = room
        self._stated = stated
        self._frames: OrderedDict[_Key, Frame] = OrderedDict()
        self._bytes = 0

    def frame(self, key: _Key) -> Frame:
        """A frame, decoded now or earlier.

        Raises:
            DataError: it cannot be decoded.
        """
        known = self._frames.get(key)
        if known is not None:
            self._frames.move_to_end(key)
            return known
        frame = canonical(read_image(key.path, self._stated))
        self._frames[key] = frame
        self._bytes += frame.pixels.nbytes
        while self._bytes > self._room:  # ends: the last frame leaves 0 bytes
            _, gone = self._frames.popitem(last=False)
            self._bytes -= gone.pixels.nbytes
        return frame


def _stamp(folder: Path) -> int:
    """When a folder's list of files changed; -1 where it is gone."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1
