"""Owns the journal's files before anything is done with them: schema, checks, and the count of starts."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import ConfigError

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x54414B54  # "TAKT"
_BUSY_S = 0.2
_CHECKED_BYTES = 64 * 2**20  # a journal up to this size is checked as a whole: a fraction of a second
_KEPT_WAL_BYTES = 64 * 2**20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SCHEMA = (
    "CREATE TABLE about (station TEXT NOT NULL, probes INTEGER NOT NULL)",
    "CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, boot TEXT NOT NULL, utc TEXT NOT NULL)",
    # `epoch` is the client's; `arrived` is that of the broker whose monotonic clock `received_ns` is of
    """CREATE TABLE triggers (id INTEGER PRIMARY KEY, client TEXT NOT NULL, epoch INTEGER NOT NULL,
       trigger_id TEXT NOT NULL, camera TEXT NOT NULL, part_id TEXT, content TEXT NOT NULL,
       deadline_ms INTEGER NOT NULL, received_ns INTEGER NOT NULL, received_utc TEXT NOT NULL,
       arrived INTEGER NOT NULL REFERENCES epochs (epoch), UNIQUE (client, epoch, trigger_id))""",
    # without it, a start would have to look at every trigger of a month
    "CREATE TABLE unanswered (trigger_row INTEGER PRIMARY KEY REFERENCES triggers (id))",
    # `written_s` is wall-clock time and only a matter of retention: the order is that of `seq`
    """CREATE TABLE verdicts (seq INTEGER PRIMARY KEY, trigger_row INTEGER UNIQUE REFERENCES triggers (id),
       written_s REAL NOT NULL, body TEXT NOT NULL)""",
    "CREATE TABLE cursors (consumer TEXT PRIMARY KEY, acked INTEGER NOT NULL)",
    """CREATE TABLE active (camera TEXT PRIMARY KEY, configured TEXT NOT NULL, digest TEXT NOT NULL, previous TEXT,
       actor TEXT NOT NULL, utc TEXT NOT NULL)""",
    """CREATE TABLE audit (id INTEGER PRIMARY KEY, utc TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL,
       detail TEXT NOT NULL, ok INTEGER NOT NULL)""",
)


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux: monotonic times of another process are taken for incomparable
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Time as the journal sees it."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    utc_s: Callable[[], float] = time.time
    boot_id: str = field(default_factory=_read_boot_id)  # empty: unknown


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a journal's files into a `ConfigError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        advice = _ADVICE.get(code, _MOVE_AWAY)
        message = f"{path}: cannot be used as the journal ({error}): {advice}"
        raise ConfigError(message) from error
    except OSError as error:
        message = f"{error.filename or path}: cannot be used ({error.strerror or error}): free space and make run_dir writable"
        raise ConfigError(message) from error


_MOVE_AWAY = (
    "move the file and those beside it that end in -wal and -shm to another place, where its records may still be "
    "read, then start again with an empty journal; leave the files `epoch` and `disowned` where they are"
)
_WRITABLE = "make the file and its folder writable for this user, or choose another run_dir"
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on its disk, then start again",
    sqlite3.SQLITE_IOERR: "check the disk and its free space, then start again",
    sqlite3.SQLITE_BUSY: "another program writes to it: close that program, then start again",
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_PERM: _WRITABLE,
}


def connect(path: Path, *, station: str, durable: bool) -> sqlite3.Connection:
    """Open the journal's database, or make it; a file that is refused is not changed.

    Raises:
        ConfigError: it is damaged, no journal, of a newer release, or of another station.
        sqlite3.Error: see `explained`.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        fresh = _check(connection, path)
        _configure(connection, path, durable=durable)
        if fresh:
            _create(connection, station)
        _check_station(connection, path, station)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty; else it is a sound journal of a version that is read here."""
    objects: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not (objects or application or version):
        return True
    if application != _APPLICATION_ID:
        message = f"{path}: is a database, but no journal of Takt: choose another run_dir, or move the file away"
        raise ConfigError(message)
    if version != SCHEMA_VERSION:
        message = (
            f"{path}: is a journal of version {version}, this release reads version {SCHEMA_VERSION}: "
            "install the release that wrote it, or choose another run_dir"
        )
        raise ConfigError(message)
    if path.stat().st_size <= _CHECKED_BYTES:
        said: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            message = f"{path}: is damaged ({' '.join(said.split())}): {_MOVE_AWAY}"
            raise ConfigError(message)
    return False


def _configure(connection: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        message = f"{path}: its file system does not take a write-ahead log (mode {mode}): put run_dir on a local disk"
        raise ConfigError(message)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {_KEPT_WAL_BYTES}")


def _create(connection: sqlite3.Connection, station: str) -> None:
    """Make the tables, all or none."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO about VALUES (?, 0)", (station,))
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _check_station(connection: sqlite3.Connection, path: Path, station: str) -> None:
    stored: str = connection.execute("SELECT station FROM about").fetchone()[0]
    if stored != station:
        message = (
            f"{path}: is the journal of station {stored!r}, not of {station!r}: give each station a run_dir of its own"
        )
        raise ConfigError(message)


def next_epoch(path: Path, newest: int) -> int:
    """Count one start more, in the file `path`, on disk when this returns.

    Args:
        path: the file; a missing one counts from `newest` alone.
        newest: the last epoch that the journal knows; 0 where it is new.

    Raises:
        ConfigError: the file is there but holds no number.
        OSError: it cannot be read or written.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b"0"
    if not text.strip().isdigit():
        message = (
            f"{path}: holds {text[:40]!r}, expected the number of the last start: write one into it that is at least "
            f"{newest} and higher than any epoch that clients have seen"
        )
        raise ConfigError(message)
    epoch = max(int(text), newest) + 1
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(b"%d\n" % epoch)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    if os.name == "posix":  # Windows has no way to fsync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return epoch
