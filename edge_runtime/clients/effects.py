"""Owns what the cores tell the I/O thread to do, and what they tell the caller."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edge_runtime.clients.results import Inspected
from edge_runtime.errors import TaktError
from edge_runtime.protocol.messages import Gap, Header, Record
from edge_runtime.protocol.wire import Buffer

MS = 1_000_000  # nanoseconds: cores count time in whole nanoseconds of one monotonic clock


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message. It may get lost: cores repeat whatever matters."""

    header: Header
    pixels: Buffer | None = None


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Throw the socket away, with all that is queued in it, and make a new one."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The service knows this peer now."""


@dataclass(frozen=True, slots=True)
class Parted:
    """The service does not know this peer any more, or cannot be heard."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The one result of a trigger."""

    result: Inspected


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer for a frame of a stream camera that is followed."""

    result: Inspected


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next of the record stream."""

    item: Record | Gap


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is of no use any more; nothing follows."""

    error: TaktError


Event: TypeAlias = Greeted | Parted | Finished | Streamed | Delivered | Failed
Effect: TypeAlias = Send | Reconnect | Event


class Core(Protocol):
    """What an I/O thread drives: messages and time in, effects out; no call blocks or reads a clock."""

    def receive(self, now: int, parts: list[bytes]) -> None:
        """Take a message as it came from the socket."""

    def tick(self, now: int) -> None:
        """Do what is due by now."""

    def due(self) -> int:
        """When `tick` has something to do next."""

    def finish(self, now: int) -> None:
        """End whatever is open: nothing comes after this."""

    def take(self) -> list[Effect]:
        """Effects since the last call, in order."""
