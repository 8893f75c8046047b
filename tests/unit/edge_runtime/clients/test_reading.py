"""The reading of the record stream, message by message on a clock that the test turns."""

from support.station import MS, make_record

from edge_runtime.clients.effects import Delivered, Effect, Failed, Reconnect, Send
from edge_runtime.clients.reading import Reading
from edge_runtime.protocol.messages import (
    Ack,
    Code,
    ConsumerHello,
    ConsumerWelcome,
    Gap,
    Header,
    Heartbeat,
    Record,
    Refused,
)
from edge_runtime.protocol.wire import encode

START = 9_000_000 * MS


class Driven:
    """A reading and what came out of it."""

    def __init__(self, name: str | None = "store", last_acked: int | None = None) -> None:
        """On a clock that starts somewhere."""
        self.now = START
        self.reading = Reading(name, "0" * 32, self.now, last_acked=last_acked)
        self.effects: list[Effect] = []
        self.advance(0)

    def advance(self, ms: int) -> None:
        """Let time pass, then do what is due."""
        self.now += ms * MS
        self.reading.tick(self.now)
        self.effects += self.reading.take()

    def hear(self, *headers: Header) -> None:
        """Messages of the service."""
        for header in headers:
            self.reading.receive(self.now, [bytes(part) for part in encode(header)])
        self.advance(0)

    def records(self, *numbers: int) -> None:
        """Records of the service."""
        self.hear(*(make_record(number) for number in numbers))

    def ack(self, seq: int) -> None:
        """What the reader has stored."""
        self.reading.ack(self.now, seq)
        self.effects += self.reading.take()

    def sent(self, kind: type[Header]) -> list[Header]:
        """What was sent, of one kind."""
        headers = [effect.header for effect in self.effects if isinstance(effect, Send)]
        return [header for header in headers if isinstance(header, kind)]

    @property
    def seqs(self) -> list[int | None]:
        """Records that were delivered."""
        items = [effect.item for effect in self.effects if isinstance(effect, Delivered)]
        return [item.seq for item in items if isinstance(item, Record)]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Gaps that were delivered."""
        items = [effect.item for effect in self.effects if isinstance(effect, Delivered)]
        return [(item.first, item.last) for item in items if isinstance(item, Gap)]


def welcome(last_acked: int, newest: int = 100, window: int = 8, epoch: int = 1) -> ConsumerWelcome:
    return ConsumerWelcome(
        station="line-1",
        epoch=epoch,
        heartbeat_ms=500,
        lapse_ms=2000,
        last_acked=last_acked,
        newest=newest,
        window=window,
    )


def test_records_after_the_cursor_come_in_order_and_each_once() -> None:
    driven = Driven()
    driven.hear(welcome(3))
    driven.records(4, 5, 5, 4, 6)
    assert driven.seqs == [4, 5, 6]
    assert driven.gaps == []


def test_records_before_welcome_are_not_taken() -> None:
    driven = Driven()
    driven.records(1, 2)
    assert driven.seqs == []
    driven.hear(welcome(0))
    driven.records(1, 2)
    assert driven.seqs == [1, 2]


def test_a_hello_names_what_is_acknowledged_and_nothing_before_anything_is_known() -> None:
    driven = Driven()
    assert driven.sent(ConsumerHello) == [ConsumerHello(name="store", instance="0" * 32, last_acked=None)]
    driven.hear(welcome(3))
    driven.records(4, 5, 6)
    driven.ack(5)
    driven.hear(Refused(code=Code.HELLO_FIRST, detail=""))
    assert driven.sent(ConsumerHello)[-1] == ConsumerHello(name="store", instance="0" * 32, last_acked=5)
    driven.hear(welcome(5))
    driven.records(6, 7)
    assert driven.seqs == [4, 5, 6, 7]


def test_a_readers_own_store_outranks_the_services_cursor() -> None:
    driven = Driven(last_acked=5)
    assert driven.sent(ConsumerHello) == [ConsumerHello(name="store", instance="0" * 32, last_acked=5)]
    driven.hear(welcome(5))
    driven.records(5, 6)
    assert driven.seqs == [6]


def test_acknowledgements_grow_only_and_the_last_is_repeated_with_every_heartbeat() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.advance(500)
    assert driven.sent(Ack) == []
    driven.records(1, 2, 3)
    driven.ack(2)
    driven.ack(1)
    driven.ack(2)
    assert driven.sent(Ack) == [Ack(seq=2)]
    driven.hear(Heartbeat(epoch=1))
    driven.advance(500)
    assert driven.sent(Ack) == [Ack(seq=2)] * 2


def test_an_acknowledgement_while_unknown_is_sent_after_welcome() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.records(1, 2)
    driven.hear(Refused(code=Code.HELLO_FIRST, detail=""))
    driven.ack(2)
    assert driven.sent(Ack) == []
    driven.hear(welcome(0))
    assert driven.sent(Ack) == [Ack(seq=2)]


def test_a_hole_is_asked_for_and_filled() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.records(1, 3, 4)
    assert driven.seqs == [1]
    assert len(driven.sent(ConsumerHello)) == 2
    driven.hear(welcome(0))
    driven.records(1, 2, 3)
    assert driven.seqs == [1, 2, 3]
    assert driven.gaps == []


def test_a_hole_that_stays_after_three_questions_is_reported_in_its_place() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.records(1)
    for _ in range(3):
        driven.records(3)
        assert driven.seqs == [1]
        driven.hear(welcome(0))
    driven.records(3)
    assert driven.gaps == [(2, 2)]
    assert driven.seqs == [1, 3]


def test_a_declared_gap_is_delivered_in_its_place_and_passed_by_the_cursor_once_it_was_told() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.records(1)
    gap = Gap(first=2, last=50, detail="removed")
    driven.hear(gap, gap)
    driven.records(51)
    assert (driven.seqs, driven.gaps) == ([1, 51], [(2, 50)])
    driven.reading.told(driven.now, gap)
    driven.advance(0)
    assert driven.sent(Ack) == []  # record 1 is not safe yet
    driven.ack(1)
    assert driven.sent(Ack) == [Ack(seq=50)]
    driven.ack(51)
    assert driven.sent(Ack)[-1] == Ack(seq=51)


def test_a_gap_that_was_not_told_yet_is_not_passed() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.records(1)
    driven.hear(Gap(first=2, last=50, detail="removed"))
    driven.ack(1)
    assert driven.sent(Ack) == [Ack(seq=1)]
    driven.reading.told(driven.now, Gap(first=2, last=50, detail="removed"))
    driven.advance(0)
    assert driven.sent(Ack)[-1] == Ack(seq=50)


def test_records_after_a_long_gap_are_not_taken_for_too_many() -> None:
    driven = Driven()
    driven.hear(welcome(0, newest=6000))
    driven.hear(Gap(first=1, last=5000, detail="removed"))
    driven.records(5001, 5002)
    assert driven.seqs == [5001, 5002]


def test_a_gap_that_begins_too_late_is_a_hole_like_any_other() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.hear(Gap(first=5, last=6, detail=""))
    assert driven.gaps == []
    assert len(driven.sent(ConsumerHello)) == 2


def test_a_journal_that_is_behind_the_reader_ends_the_reading_with_what_to_do() -> None:
    driven = Driven()
    driven.hear(welcome(0, newest=3))
    driven.records(1, 2, 3)
    driven.hear(welcome(0, newest=1, epoch=2))
    (failed,) = [effect for effect in driven.effects if isinstance(effect, Failed)]
    assert "another name" in str(failed.error)
    driven.effects.clear()
    driven.records(4)
    driven.ack(3)
    driven.advance(10_000)
    assert driven.effects == []


def test_a_cursor_that_the_service_refuses_ends_the_reading() -> None:
    driven = Driven(last_acked=9)
    driven.hear(Refused(code=Code.CURSOR_AHEAD, detail="journal ends at 5"))
    (failed,) = [effect for effect in driven.effects if isinstance(effect, Failed)]
    assert "journal ends at 5" in str(failed.error)


def test_a_reader_without_name_starts_anew_at_every_welcome_and_acknowledges_nothing() -> None:
    driven = Driven(name=None)
    driven.hear(welcome(40))
    driven.records(41)
    driven.hear(Refused(code=Code.HELLO_FIRST, detail=""))
    assert driven.sent(ConsumerHello)[-1] == ConsumerHello(name=None, instance="0" * 32, last_acked=None)
    driven.hear(welcome(60))
    driven.records(60, 61)
    driven.reading.told(driven.now, Gap(first=42, last=60, detail=""))
    driven.advance(600)
    assert driven.seqs == [41, 61]
    assert driven.sent(Ack) == []
    driven.hear(welcome(2, newest=2, epoch=2))  # another journal
    driven.records(3)
    assert driven.seqs == [41, 61, 3]


def test_a_service_that_sends_far_beyond_its_window_does_not_fill_the_memory() -> None:
    driven = Driven()
    driven.hear(welcome(0, newest=10_000, window=8))
    driven.records(*range(1, 3000))
    assert len(driven.seqs) == 2 * 8 + 1000


def test_a_record_without_number_is_garbage() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.hear(make_record(1).model_copy(update={"seq": None}))
    assert driven.seqs == []
    assert driven.reading.connection.counters["malformed"] == 1


def test_a_silent_service_gets_a_new_socket() -> None:
    driven = Driven()
    driven.hear(welcome(0))
    driven.advance(2000)
    assert any(isinstance(effect, Reconnect) for effect in driven.effects)
    assert len(driven.sent(ConsumerHello)) == 2
