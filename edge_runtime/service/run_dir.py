"""Owns the run folder: what lies where, and that one service uses it at a time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import ConfigError

_UNSAFE = "TAKT_BENCH_NO_FSYNC"


class RunDir:
    """The folder that a service writes to, and the only one."""

    def __init__(self, path: Path) -> None:
        """Name it; `make` makes it."""
        self.path = path

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.path / "journal.sqlite"

    @property
    def bundles(self) -> Path:
        """Bundles that are or were in use, by digest."""
        return self.path / "bundles"

    @property
    def frames(self) -> Path:
        """Frames in memory."""
        return self.path / "frames"

    @property
    def cache(self) -> Path:
        """Compiled models."""
        return self.path / "cache"

    def make(self) -> None:
        """Make the folder and those in it.

        Raises:
            ConfigError: it cannot be written to.
        """
        try:
            for folder in (self.path, self.bundles, self.frames, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".takt-probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            message = f"run_dir: {self.path}: cannot be written to ({error.strerror}): choose another folder"
            raise ConfigError(message) from error

    @contextmanager
    def lock(self, name: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Be the only one of a kind here; the lock goes with the process, however it ends.

        Raises:
            ConfigError: somebody else is.
        """
        path = self.path / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        give_up = time.monotonic() + wait_s
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= give_up:
                    message = (
                        f"run_dir: another `takt serve` uses {self.path}: stop it, or give this one a folder of its own"
                    )
                    raise ConfigError(message)
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def durable() -> bool:
    """Whether commits wait for the disk; only a benchmark says no, and the log says so."""
    return os.environ.get(_UNSAFE) != "1"


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - Windows only

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
