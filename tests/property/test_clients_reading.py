"""Every record once, in order, or a word about its absence, whatever is lost, doubled, removed or restarted."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from support.station import MS, Station, make_record

from edge_runtime.clients.effects import Delivered, Reconnect, Send
from edge_runtime.clients.reading import Reading
from edge_runtime.protocol.messages import Gap, Header
from edge_runtime.protocol.wire import encode

MOVES = ["record", "record", "up", "up", "down", "down", "down", "lose up", "lose down", "double", "ack"]
MISHAPS = ["forget", "restart", "retention", "lapse"]
scripts = st.lists(st.sampled_from([*MOVES, *MISHAPS]), min_size=5, max_size=80)


class Line:
    """A reading and a station with a network between them that the test moves by hand."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.now = 1_000_000 * MS
        self.station = Station(window=4)
        self.reading = Reading("store", "0" * 32, self.now)
        self.up: deque[list[bytes]] = deque()
        self.down: deque[list[bytes]] = deque()
        self.got: list[tuple[int, int]] = []  # first and last of each record and gap
        self._route = 0
        self._acts = {
            "record": self.record,
            "up": lambda: self.carry_up(1),
            "down": lambda: self.carry_down(1),
            "lose up": lambda: self.carry_up(0),
            "lose down": lambda: self.carry_down(0),
            "double": self.double,
            "ack": self.ack,
            "forget": self.station.readers.clear,
            "restart": self.restart,
            "retention": self.retain,
            "lapse": self.lapse,
        }

    @property
    def route(self) -> bytes:
        """The connection of the moment, as the station sees it."""
        return b"%d" % self._route

    def step(self, name: str) -> None:
        """One thing happens."""
        self._acts[name]()
        self.collect()

    def collect(self) -> None:
        """Carry out what the reading wants; the caller is told of gaps at once."""
        self.reading.tick(self.now)
        for effect in self.reading.take():
            if isinstance(effect, Send):
                self.up.append(_bytes(effect.header))
            elif isinstance(effect, Reconnect):
                self.cut()
            elif isinstance(effect, Delivered):
                item = effect.item
                self.got.append((item.first, item.last) if isinstance(item, Gap) else (item.seq or 0, item.seq or 0))
                if isinstance(item, Gap):
                    self.reading.told(self.now, item)

    def cut(self) -> None:
        """A new connection: what was on its way is lost, and the station sees somebody new."""
        self.up.clear()
        self.down.clear()
        self._route += 1

    def carry_up(self, times: int) -> None:
        """One message to the station: lost, once or twice."""
        if self.up:
            parts = self.up.popleft()
            for _ in range(times):
                self.down.extend(_bytes(header) for header in self.station.on_records(self.route, parts))

    def carry_down(self, times: int) -> None:
        """One message to the reader: lost, once or twice."""
        if self.down:
            parts = self.down.popleft()
            for _ in range(times):
                self.reading.receive(self.now, parts)

    def double(self) -> None:
        """The next message of each way comes twice."""
        self.carry_up(2)
        self.carry_down(2)

    def record(self) -> None:
        """Something is decided."""
        self.station.records.append(make_record(len(self.station.records) + 1))
        for known in self.station.readers:
            found = self.station.following(known)
            if known == self.route:
                self.down.extend(_bytes(header) for header in found)

    def ack(self) -> None:
        """The reader has stored all that it got."""
        if self.got:
            self.reading.ack(self.now, self.got[-1][1])

    def restart(self) -> None:
        """A new broker on the same journal."""
        self.station.restart()
        self.cut()

    def retain(self) -> None:
        """The oldest records are removed."""
        self.station.oldest = min(self.station.oldest + 3, len(self.station.records) + 1)

    def lapse(self) -> None:
        """A long time passes."""
        self.now += 2100 * MS

    def settle(self) -> None:
        """The network is whole again, parts go on coming, the reader stores all."""
        for turn in range(300):
            self.now += 100 * MS
            self.collect()
            if turn % 10 == 0:
                self.step("record")
            for _ in range(50):
                self.carry_up(1)
                self.carry_down(1)
                self.collect()
            self.step("ack")


def _bytes(header: Header) -> list[bytes]:
    return [bytes(part) for part in encode(header)]


@settings(max_examples=200, deadline=None)
@given(scripts)
def test_a_named_reader_gets_every_record_once_and_in_order_or_is_told_of_the_gap(script: list[str]) -> None:
    line = Line()
    for name in script:
        line.step(name)
    line.settle()
    expected = 1
    for first, last in line.got:
        assert first == expected
        expected = last + 1
    assert expected == len(line.station.records) + 1
