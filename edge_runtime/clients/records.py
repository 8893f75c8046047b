"""Owns the reader of the record stream: every answer that the service gave, in order, each once."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from edge_runtime.clients.effects import Delivered, Event, Failed, Greeted, Parted
from edge_runtime.clients.link import Link
from edge_runtime.clients.mailbox import Closed, Mailbox
from edge_runtime.clients.orders import said
from edge_runtime.clients.reading import Reading
from edge_runtime.errors import ConfigError
from edge_runtime.protocol.endpoints import parse_endpoint
from edge_runtime.protocol.messages import ConsumerHello, Gap, Record

_KEPT = 100_000  # records for a reader without cursor that is slow; a named one is kept within its window
_LINGER_MS = 200  # for the last acknowledgement to leave when the stream is closed

_log = logging.getLogger("takt.clients")


def log_gap(gap: Gap) -> None:
    """Say that records are missing; what `RecordStream` does where nobody else wants to know."""
    _log.warning("records %d to %d are missing: %s", gap.first, gap.last, gap.detail)


class RecordStream:
    """Iterate over records; with a name, acknowledge what is stored, and the next reader goes on after it."""

    def __init__(
        self,
        endpoint: str,
        name: str | None = None,
        *,
        last_acked: int | None = None,
        on_gap: Callable[[Gap], None] = log_gap,
    ) -> None:
        """Begin to connect; a service that is not there yet is tried until it is.

        Args:
            endpoint: `tcp://127.0.0.1:PORT` of the service: the trigger socket's, as everywhere.
            name: of the cursor; None reads from now on, without one.
            last_acked: seq up to which the reader's own store is complete; None takes the service's cursor.
            on_gap: called in its place for records that will not come.

        Raises:
            ConfigError: an argument cannot be used.
        """
        address = parse_endpoint(endpoint).records
        instance = uuid.uuid4().hex
        try:
            ConsumerHello(name=name, instance=instance, last_acked=last_acked)
        except ValidationError as error:
            raise ConfigError(said(error)) from error
        if name is None and last_acked is not None:
            message = "last_acked: a reader without name has no cursor; give it a name"
            raise ConfigError(message)
        self._name = name
        self._on_gap = on_gap
        self._handed: int | None = None
        self._connected = False
        self._box: Mailbox[Record | Gap] = Mailbox(_KEPT)
        self._reading = Reading(name, instance, time.monotonic_ns(), last_acked=last_acked)
        self._link = Link(
            address, self._reading, self._on_event, name=f"records-{name or 'unnamed'}", linger_ms=_LINGER_MS
        )

    def __iter__(self) -> Iterator[Record]:
        """Records as they come, until the stream is closed.

        Raises:
            ConfigError: the service's journal is not the one that this reader has read.
        """
        while True:  # ends with the stream
            try:
                item = self._box.take()
            except Closed:
                return
            record = self._hand(item)
            if record is not None:
                yield record

    async def next_record(self) -> Record:
        """The next record, for asyncio.

        Raises:
            Closed: the stream is closed.
            ConfigError: the service's journal is not the one that this reader has read.
        """
        record = None
        while record is None:
            record = self._hand(await self._box.take_async())
        return record

    def ack(self, record: Record | int) -> None:
        """Tell the service that this record and all before it are safely stored; they will not come again.

        Raises:
            ConfigError: the reader has no name, or was never given that record.
        """
        seq = record if isinstance(record, int) else record.seq
        if self._name is None or seq is None:
            message = "ack: a reader without name has no cursor; give it a name"
            raise ConfigError(message)
        if self._handed is None or seq > self._handed:
            message = f"ack: record {seq} was never given to this reader, the last one was {self._handed}"
            raise ConfigError(message)
        self._link.post(lambda now: self._reading.ack(now, seq))

    @property
    def connected(self) -> bool:
        """Whether the service knows this reader."""
        return self._connected

    @property
    def refusal(self) -> str:
        """Why the service does not take this reader, such as a name in use; empty where nothing is known."""
        return self._reading.connection.refusal

    def close(self) -> None:
        """End it; acknowledgements that were given are sent first."""
        self._link.close()
        self._box.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand(self, item: Record | Gap) -> Record | None:
        if isinstance(item, Gap):
            self._on_gap(item)
            self._handed = item.last
            with suppress(ConfigError):  # closed meanwhile: what was not acknowledged comes again
                self._link.post(lambda now: self._reading.told(now, item))
            return None
        seq = item.seq or 0
        if self._handed is not None and seq > self._handed + 1:
            detail = "not taken in time by a reader without cursor"
            self._on_gap(Gap(first=self._handed + 1, last=seq - 1, detail=detail))
        self._handed = seq
        return item

    def _on_event(self, event: Event) -> None:
        match event:
            case Delivered(item):
                self._box.put(item)
            case Failed(error):
                self._box.end(error)
            case Greeted():
                self._connected = True
            case Parted():
                self._connected = False
            case _:
                pass
