"""Owns the record stream: every journalled answer, in order, to each consumer at its own pace."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from edge_runtime.protocol import messages as wire
from edge_runtime.protocol.messages import Answer, Code, Record
from edge_runtime.protocol.wire import Message
from edge_runtime.service.operations import Acked, Operation, Outcome, ReadRecords, RecordPage, SetCursor
from edge_runtime.service.peers import HEARTBEAT_MS, LAPSE_MS, Peers
from edge_runtime.service.port import Port

WINDOW = 256  # records ahead of the acknowledgement
_RECENT = 1024  # records that live consumers get without the disk

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Consumer:
    """A reader of the stream that is connected."""

    route: bytes
    name: str | None  # None: live only
    sent: int  # the last record that was sent
    acked: int
    live_from: int  # records up to this one were decided before it came
    reading: bool = False  # a page of the journal is on its way
    missed: int | None = None  # live only: the first record that its full queue did not take


class Stream:
    """The record socket. A consumer that does not read costs its window and nothing more."""

    def __init__(
        self,
        port: Port,
        *,
        station: str,
        epoch: int,
        newest: int,
        cursors: dict[str, int],
        submit: Callable[[Operation], None],
    ) -> None:
        """Nobody is connected.

        Args:
            port: the record socket.
            station: for WELCOME.
            epoch: the broker's.
            newest: the last record of the journal.
            cursors: what each consumer has acknowledged, as on disk.
            submit: has the journal do something.
        """
        self.newest = newest
        self.cursors = cursors
        self._port = port
        self._station = station
        self._epoch = epoch
        self._submit = submit
        self._peers = Peers()
        self._consumers: dict[bytes, Consumer] = {}
        self._recent: deque[Record] = deque(maxlen=_RECENT)
        self._reads: dict[int, Consumer] = {}

    def connected(self) -> set[str]:
        """Names of the consumers that are there."""
        return {consumer.name for consumer in self._consumers.values() if consumer.name is not None}

    def on_message(self, route: bytes, message: Message, now_ns: int) -> None:
        """Something came from a consumer."""
        header = message.header
        if isinstance(header, wire.ConsumerHello):
            self._hello(route, header, now_ns)
            return
        consumer = self._consumers.get(route)
        if consumer is None or self._peers.heard(route, now_ns) is None:
            self._port.refuse(route, Code.HELLO_FIRST, "the service does not know this connection: send HELLO")
        elif isinstance(header, wire.Ack):
            self._ack(consumer, header.seq)
        else:
            self._port.send(route, wire.Heartbeat(epoch=self._epoch))
            self._feed(consumer)

    def publish(self, answer: Answer) -> None:
        """A record was committed."""
        if answer.seq is None or answer.seq <= self.newest:
            return  # it was published before; where not, who reads comes to it on the disk
        self.newest = answer.seq
        if self._recent and answer.seq != self._recent[-1].seq_number + 1:
            self._recent.clear()  # it came late, after a disk fault; the disk has the right order
        self._recent.append(Record.model_construct(**dict(answer)))
        for consumer in tuple(self._consumers.values()):
            self._feed(consumer)

    def on_outcome(self, outcome: Outcome) -> None:
        """The journal read a page for a consumer."""
        if not isinstance(outcome.operation, ReadRecords):
            return
        consumer = self._reads.pop(id(outcome.operation), None)
        if consumer is None:
            return
        consumer.reading = False
        if self._consumers.get(consumer.route) is consumer and isinstance(outcome.value, RecordPage):
            self._send_page(consumer, outcome.value)

    def tick(self, now_ns: int) -> None:
        """Forget consumers that went silent; their cursors stay."""
        for peer in self._peers.lapsed(now_ns):
            if self._peers.at(peer.route) is None:  # else another name said HELLO on the same connection
                self._consumers.pop(peer.route, None)
            log.info("consumer_lost", consumer=peer.name)

    def _hello(self, route: bytes, hello: wire.ConsumerHello, now_ns: int) -> None:
        held = None if hello.name is None else self._peers.named(hello.name)
        if self._peers.admit(hello.name or f"@{hello.instance}", hello.instance, route, now_ns) is None:
            self._port.refuse(
                route, Code.NAME_IN_USE, f"a live consumer has the name {hello.name}: retry after {LAPSE_MS} ms"
            )
            return
        if held is not None:
            self._consumers.pop(held.route, None)
        acked = self.newest
        if hello.name is not None:
            acked = self.cursors.get(hello.name, 0) if hello.last_acked is None else hello.last_acked
            if acked > self.newest:
                detail = f"{hello.name} has acknowledged {acked}, this journal ends at {self.newest}: it is another station's, or was lost"
                self._port.refuse(route, Code.CURSOR_AHEAD, detail)
                return
            if acked != self.cursors.get(hello.name):
                self.cursors[hello.name] = acked
                self._submit(SetCursor(consumer=hello.name, seq=acked))
        consumer = Consumer(route, hello.name, acked, acked, self.newest)
        self._consumers[route] = consumer
        log.info("consumer_connected", consumer=hello.name, last_acked=acked, newest=self.newest)
        welcome = wire.ConsumerWelcome(
            station=self._station,
            epoch=self._epoch,
            heartbeat_ms=HEARTBEAT_MS,
            lapse_ms=LAPSE_MS,
            last_acked=acked,
            newest=self.newest,
            window=WINDOW,
        )
        self._port.send(route, welcome)
        self._feed(consumer)

    def _ack(self, consumer: Consumer, seq: int) -> None:
        if consumer.name is None or not consumer.acked < seq <= consumer.sent:
            return
        consumer.acked = seq
        self.cursors[consumer.name] = seq
        self._submit(Acked(consumer=consumer.name, seq=seq))
        self._feed(consumer)

    def _feed(self, consumer: Consumer) -> None:
        """Send what fits into the window: from memory where it reaches back far enough, else from the disk."""
        if consumer.reading or consumer.sent >= self.newest or not self._window(consumer):
            return
        first = self._recent[0].seq_number if self._recent else self.newest + 1
        if consumer.sent + 1 >= first:
            start = consumer.sent + 1 - first
            for index in range(start, min(len(self._recent), start + self._window(consumer))):
                if not self._send(consumer, self._recent[index]):
                    return
        else:
            consumer.reading = True
            operation = ReadRecords(after=consumer.sent, limit=self._window(consumer))
            self._reads[id(operation)] = consumer
            self._submit(operation)

    def _send_page(self, consumer: Consumer, page: RecordPage) -> None:
        if page.first > consumer.sent + 1:
            detail = "removed after `journal_days`"
            gap = wire.Gap(first=consumer.sent + 1, last=page.first - 1, detail=detail)
            if not self._port.send(consumer.route, gap):
                return  # the page is read again
            consumer.sent = page.first - 1
        for record in page.records:
            if record.seq_number == consumer.sent + 1 and not self._send(consumer, record):
                return
        if page.records:
            self._feed(consumer)

    def _send(self, consumer: Consumer, record: Record) -> bool:
        replayed = record.seq_number <= consumer.live_from
        if consumer.missed is not None:
            gap = wire.Gap(first=consumer.missed, last=record.seq_number - 1, detail="not taken in time")
            if self._port.send(consumer.route, gap):
                consumer.missed = None
        sent = consumer.missed is None and self._port.send(
            consumer.route, record.model_copy(update={"replayed": True}) if replayed else record
        )
        if not sent and consumer.name is None and consumer.missed is None:
            consumer.missed = record.seq_number  # live only: what it does not take, it does not get
        if sent or consumer.name is None:
            consumer.sent = record.seq_number
        return sent

    def _window(self, consumer: Consumer) -> int:
        return WINDOW if consumer.name is None else consumer.acked + WINDOW - consumer.sent
