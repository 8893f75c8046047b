"""Exactly one result for every trigger, and never a gate opened late, whatever is lost, doubled, delayed or restarted."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from support.station import MS, Station

from edge_runtime.clients.effects import Finished, Reconnect, Send
from edge_runtime.clients.orders import make_order
from edge_runtime.clients.results import Inspected
from edge_runtime.clients.session import Session
from edge_runtime.decision import Verdict
from edge_runtime.protocol.messages import ClientHello, Header
from edge_runtime.protocol.wire import encode

HELLO = ClientHello(name="plc", instance="0" * 32)
VERDICTS = {"good": Verdict.ACCEPT, "bad": Verdict.REJECT}

deliveries = st.sampled_from(["pass", "pass", "pass", "lose", "double"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("order"), st.sampled_from(["good", "bad"]), st.sampled_from([40, 300, 2500])),
        st.tuples(st.just("advance"), st.sampled_from([1, 20, 100, 200, 500, 2100]), st.none()),
        st.tuples(st.just("up"), deliveries, st.none()),
        st.tuples(st.just("down"), deliveries, st.none()),
        st.tuples(st.sampled_from(["restart", "forget", "hold", "release", "garbage"]), st.none(), st.none()),
        st.tuples(st.just("flow"), st.none(), st.none()),
    ),
    min_size=5,
    max_size=60,
)


class Line:
    """A session and a station with a network between them that the test moves by hand."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.now = 1_000_000 * MS
        self.session = Session(HELLO, self.now)
        self.station = Station(verdicts=dict(VERDICTS))
        self.up: deque[list[bytes]] = deque()
        self.down: deque[list[bytes]] = deque()
        self.route = 0
        self.ordered: dict[str, tuple[str, int]] = {}
        self.results: dict[str, list[tuple[int, Inspected]]] = {}

    def collect(self) -> None:
        """Carry out what the session wants."""
        for effect in self.session.take():
            if isinstance(effect, Send):
                self.up.append(_bytes(effect.header))
            elif isinstance(effect, Reconnect):
                self.cut()
            elif isinstance(effect, Finished):
                self.results.setdefault(effect.result.answer.trigger_id, []).append((self.now, effect.result))

    def cut(self) -> None:
        """A new connection: what was on its way is lost, and the station sees somebody new."""
        self.up.clear()
        self.down.clear()
        self.route += 1

    def order(self, part: str, deadline_ms: int) -> None:
        """A part comes."""
        trigger_id = f"t{len(self.ordered)}"
        self.ordered[trigger_id] = (part, self.now + deadline_ms * MS)
        order = make_order(
            trigger_id=trigger_id, camera="top", part_id=part, deadline_ms=deadline_ms, frame=None, now=self.now
        )
        self.session.order(self.now, order)

    def carry_up(self, fate: str) -> None:
        """One message to the station."""
        if self.up:
            parts = self.up.popleft()
            for _ in range({"lose": 0, "pass": 1, "double": 2}[fate]):
                answers = self.station.on_triggers(self.now, b"%d" % self.route, parts)
                self.down.extend(_bytes(header) for header in answers)

    def carry_down(self, fate: str) -> None:
        """One message to the client."""
        if self.down:
            parts = self.down.popleft()
            for _ in range({"lose": 0, "pass": 1, "double": 2}[fate]):
                self.session.receive(self.now, parts)

    def flow(self) -> None:
        """All messages arrive."""
        for _ in range(200):
            self.session.tick(self.now)
            self.collect()
            if not self.up and not self.down:
                return
            self.carry_up("pass")
            self.carry_down("pass")

    def step(self, kind: str, first: object, second: object) -> None:
        """One thing happens."""
        if kind == "order":
            self.order(str(first), int(str(second)))
        elif kind == "advance":
            self.now += int(str(first)) * MS
            self.session.tick(self.now)
        elif kind == "up":
            self.carry_up(str(first))
        elif kind == "down":
            self.carry_down(str(first))
        elif kind == "restart":
            self.station.restart()
            self.cut()
        elif kind == "forget":
            self.station.clients.clear()
        elif kind == "hold":
            self.station.hold = True
        elif kind == "release":
            self.down.extend(_bytes(header) for _, header in self.station.release())
        elif kind == "garbage":
            self.session.receive(self.now, [b"TAKT\x01\x00\x14", b"\xff"])
        else:
            self.flow()
        self.collect()


def _bytes(header: Header) -> list[bytes]:
    return [bytes(part) for part in encode(header)]


@settings(max_examples=300, deadline=None)
@given(steps)
def test_every_trigger_has_one_result_by_its_deadline_and_opens_the_gate_only_when_it_may(
    script: list[tuple[str, object, object]],
) -> None:
    line = Line()
    for step in script:
        line.step(*step)
    for _ in range(70):  # the longest deadline passes
        line.now += 50 * MS
        line.session.tick(line.now)
        line.collect()
    assert set(line.results) == set(line.ordered)
    for trigger_id, found in line.results.items():
        part, deadline_ns = line.ordered[trigger_id]
        ((when, result),) = found
        if result.accepted:
            assert when < deadline_ns
            assert part == "good"
            assert result.answer.part_id == part
            stored = line.station.answers["plc", result.answer.epoch, trigger_id]
            assert stored.verdict is Verdict.ACCEPT


@settings(max_examples=100, deadline=None)
@given(steps)
def test_once_the_line_is_quiet_again_the_next_part_is_answered_by_the_service(
    script: list[tuple[str, object, object]],
) -> None:
    line = Line()
    for step in script:
        line.step(*step)
    line.station.hold = False
    for _ in range(100):  # longer than a lapse and a wait for HELLO
        line.now += 50 * MS
        line.flow()
    line.order("good", 300)
    last = f"t{len(line.ordered) - 1}"
    line.flow()
    ((_, result),) = line.results[last]
    assert result.accepted
