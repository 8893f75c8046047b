"""Readers of the record stream at a real socket: every record once, in order, at each one's own pace."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support.journals import acceptance, answer
from support.sockets import BoundPort, DealerPeer, bound, instance

from edge_runtime.protocol import messages as m
from edge_runtime.service.operations import Acked, Operation, Outcome, ReadRecords, RecordPage, SetCursor
from edge_runtime.service.peers import LAPSE_MS
from edge_runtime.service.stream import WINDOW, Stream

LAPSE = LAPSE_MS * 1_000_000


def record(seq: int) -> m.Answer:
    return answer(acceptance(f"t{seq}")).model_copy(update={"seq": seq})


@dataclass(slots=True)
class Bench:
    """A stream behind a real port, and a disk that holds the records."""

    port: BoundPort
    newest: int = 0
    first: int = 1  # older ones were removed
    cursors: dict[str, int] = field(default_factory=dict)
    submitted: list[Operation] = field(default_factory=list)
    stream: Stream = field(init=False)

    def start(self) -> "Bench":
        """The broker starts with what the disk holds."""
        self.stream = Stream(
            self.port.port,
            station="press-4",
            epoch=3,
            newest=self.newest,
            cursors=dict(self.cursors),
            submit=self.submitted.append,
        )
        return self

    def take(self, now_ns: int = 0) -> None:
        """Take what came."""
        self.port.take(self.stream.on_message, now_ns)

    def commit(self, count: int = 1) -> None:
        """So many records more."""
        for _ in range(count):
            self.newest += 1
            self.stream.publish(record(self.newest))

    def disk(self) -> None:
        """Read the pages that were asked for."""
        pages = [one for one in self.submitted if isinstance(one, ReadRecords)]
        self.submitted[:] = [one for one in self.submitted if not isinstance(one, ReadRecords)]
        for page in pages:
            start = max(page.after + 1, self.first)
            found = [record(seq) for seq in range(start, min(self.newest, start + page.limit - 1) + 1)]
            value = RecordPage(
                records=tuple(m.Record.model_validate_json(one.model_dump_json()) for one in found), first=self.first
            )
            self.stream.on_outcome(Outcome(operation=page, value=value, error=None, commit_ms=1.0))

    def hello(self, name: str | None, last_acked: int | None = None, peer: DealerPeer | None = None) -> DealerPeer:
        """A consumer says hello."""
        peer = peer or self.port.peer()
        peer.say(m.ConsumerHello(name=name, instance=instance(), last_acked=last_acked))
        self.take()
        return peer


@pytest.fixture
def bench() -> Iterator[Bench]:
    with bound(m.AT_RECORDS) as port:
        yield Bench(port)


def seqs(peer: DealerPeer, count: int) -> list[int]:
    return [peer.hear(m.Record).seq_number for _ in range(count)]


def test_a_new_consumer_gets_all_that_there_is_marked_as_replayed_then_what_comes(bench: Bench) -> None:
    bench.newest = 3
    peer = bench.start().hello("mes")
    welcome = peer.hear(m.ConsumerWelcome)
    assert (welcome.last_acked, welcome.newest, welcome.window) == (0, 3, WINDOW)
    bench.disk()
    bench.commit()
    heard = [peer.hear(m.Record) for _ in range(4)]
    assert [(one.seq, one.replayed) for one in heard] == [(1, True), (2, True), (3, True), (4, False)]


def test_no_more_than_a_window_is_sent_ahead_of_the_acknowledgement(bench: Bench) -> None:
    peer = bench.start().hello("mes")
    peer.hear(m.ConsumerWelcome)
    bench.commit(WINDOW + 10)
    assert seqs(peer, WINDOW) == list(range(1, WINDOW + 1))
    peer.say(m.Heartbeat(epoch=3))
    bench.take()
    peer.hear(m.Heartbeat)  # and no record before it
    peer.say(m.Ack(seq=4))
    bench.take()
    assert seqs(peer, 4) == list(range(WINDOW + 1, WINDOW + 5))
    assert bench.submitted[-1] == Acked(consumer="mes", seq=4)
    assert bench.stream.cursors == {"mes": 4}


@pytest.mark.parametrize("seq", [0, 2, 99, 2**63 - 1])
def test_an_acknowledgement_of_what_was_not_sent_or_is_old_changes_nothing(bench: Bench, seq: int) -> None:
    peer = bench.start().hello("mes")
    bench.commit(3)
    peer.say(m.Ack(seq=2))
    bench.take()
    before = list(bench.submitted)
    peer.say(m.Ack(seq=seq))
    bench.take()
    assert bench.submitted == before
    assert bench.stream.cursors == {"mes": 2}


def test_a_consumer_goes_on_after_its_cursor_or_where_its_own_store_stands(bench: Bench) -> None:
    bench.newest, bench.cursors = 5, {"mes": 3}
    peer = bench.start().hello("mes")
    assert peer.hear(m.ConsumerWelcome).last_acked == 3
    bench.disk()
    assert seqs(peer, 2) == [4, 5]
    bench.stream.tick(LAPSE)
    again = bench.hello("mes", 1)
    assert again.hear(m.ConsumerWelcome).last_acked == 1
    bench.disk()
    assert seqs(again, 4) == [2, 3, 4, 5]
    assert SetCursor(consumer="mes", seq=1) in bench.submitted


def test_a_consumer_that_knows_more_than_the_journal_is_refused(bench: Bench) -> None:
    bench.newest = 5
    peer = bench.start().hello("mes", 6)
    assert peer.hear(m.Refused).code is m.Code.CURSOR_AHEAD
    assert bench.submitted == []
    peer.say(m.Heartbeat(epoch=3))
    bench.take()
    assert peer.hear(m.Refused).code is m.Code.HELLO_FIRST


def test_records_that_were_removed_are_a_gap_that_is_said(bench: Bench) -> None:
    bench.newest, bench.first = 6, 4
    peer = bench.start().hello("mes")
    peer.hear(m.ConsumerWelcome)
    bench.disk()
    gap = peer.hear(m.Gap)
    assert (gap.first, gap.last) == (1, 3)
    assert seqs(peer, 3) == [4, 5, 6]


def test_a_reader_without_name_gets_what_comes_and_nothing_before(bench: Bench) -> None:
    bench.newest = 5
    peer = bench.start().hello(None)
    assert peer.hear(m.ConsumerWelcome).last_acked == 5
    bench.commit(2)
    assert seqs(peer, 2) == [6, 7]
    assert bench.submitted == []
    assert bench.stream.cursors == {}
    assert bench.stream.connected() == set()


def test_a_record_that_was_published_before_is_not_sent_again(bench: Bench) -> None:
    """A trigger that is asked for long after it was answered brings its old record back."""
    peer = bench.start().hello("mes")
    peer.hear(m.ConsumerWelcome)
    bench.commit(5)
    bench.stream.publish(record(2))
    bench.commit()
    assert seqs(peer, 6) == [1, 2, 3, 4, 5, 6]
    late = bench.hello("late", 1)
    late.hear(m.ConsumerWelcome)
    assert seqs(late, 5) == [2, 3, 4, 5, 6]
    assert not any(isinstance(one, ReadRecords) for one in bench.submitted)  # all from memory


def test_a_record_that_was_not_published_is_read_from_the_disk(bench: Bench) -> None:
    peer = bench.start().hello("mes")
    peer.hear(m.ConsumerWelcome)
    bench.commit(2)
    bench.newest += 1  # committed, but its outcome was an error
    bench.commit(2)
    bench.disk()
    assert seqs(peer, 5) == [1, 2, 3, 4, 5]


def test_what_is_not_committed_is_not_published(bench: Bench) -> None:
    bench.start().stream.publish(answer(acceptance("t")))
    assert bench.stream.newest == 0


def test_a_second_live_consumer_of_a_name_is_refused_and_a_lapsed_one_is_forgotten(bench: Bench) -> None:
    bench.start().hello("mes").hear(m.ConsumerWelcome)
    second = bench.hello("mes")
    assert second.hear(m.Refused).code is m.Code.NAME_IN_USE
    assert bench.stream.connected() == {"mes"}
    bench.stream.tick(LAPSE)
    assert bench.stream.connected() == set()
    assert bench.stream.cursors == {"mes": 0}


def test_another_name_on_the_same_connection_outlives_the_first(bench: Bench) -> None:
    peer = bench.start().hello("old")
    peer.hear(m.ConsumerWelcome)
    peer.say(m.ConsumerHello(name="new", instance=instance()))
    bench.take(LAPSE // 2)
    peer.hear(m.ConsumerWelcome)
    bench.stream.tick(LAPSE)
    bench.commit()
    assert seqs(peer, 1) == [1]


def test_a_page_for_a_consumer_that_left_goes_nowhere(bench: Bench) -> None:
    bench.newest = 3
    bench.start().hello("mes").hear(m.ConsumerWelcome)
    bench.stream.tick(LAPSE)
    bench.disk()
    assert bench.port.counters["undelivered"] == 0


def test_a_page_that_could_not_be_read_is_asked_for_again(bench: Bench) -> None:
    bench.newest = 3
    peer = bench.start().hello("mes")
    peer.hear(m.ConsumerWelcome)
    failed = bench.submitted.pop()
    bench.stream.on_outcome(Outcome(operation=failed, value=None, error="disk", commit_ms=1.0))
    peer.say(m.Heartbeat(epoch=3))
    bench.take()
    peer.hear(m.Heartbeat)
    bench.disk()
    assert seqs(peer, 3) == [1, 2, 3]
