"""The triggers of one client, message by message on a clock that the test turns."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from support.station import CAMERAS, MS, Station, make_answer

from edge_runtime.clients.effects import Effect, Finished, Parted, Reconnect, Send, Streamed
from edge_runtime.clients.orders import DEADLINE_MS, make_order
from edge_runtime.clients.results import Inspected
from edge_runtime.clients.session import Session
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.protocol.messages import (
    Answer,
    ClientHello,
    Code,
    Header,
    Heartbeat,
    Queued,
    Refused,
    Trigger,
)
from edge_runtime.protocol.wire import encode

HELLO = ClientHello(name="plc", instance="0" * 32, follow=("belt",))
START = 5_000_000 * MS


class Driven:
    """A session and what came out of it."""

    def __init__(self, **settings: int) -> None:
        """On a clock that starts somewhere."""
        self.now = START
        self.session = Session(HELLO, self.now, **settings)
        self.effects: list[Effect] = []
        self.advance(0)

    def advance(self, ms: float) -> None:
        """Let time pass, then do what is due."""
        self.now += int(ms * MS)
        self.session.tick(self.now)
        self.effects += self.session.take()

    def hear(self, *headers: Header) -> None:
        """Messages of the service."""
        for header in headers:
            self.session.receive(self.now, [bytes(part) for part in encode(header)])
        self.session.tick(self.now)
        self.effects += self.session.take()

    def order(
        self, trigger_id: str = "t1", *, camera: str = "top", deadline_ms: int | None = 300, **more: object
    ) -> None:
        """Ask for a trigger."""
        order = make_order(
            trigger_id=trigger_id,
            camera=camera,
            part_id="A17",
            deadline_ms=deadline_ms,
            frame=more.get("frame"),  # type: ignore[arg-type]
            now=self.now,
        )
        self.session.order(self.now, order)
        self.effects += self.session.take()

    def sent(self, kind: type[Header]) -> list[Send]:
        """What was sent, of one kind."""
        return [effect for effect in self.effects if isinstance(effect, Send) and isinstance(effect.header, kind)]

    @property
    def triggers(self) -> list[Trigger]:
        """Every TRIGGER that was sent."""
        return [send.header for send in self.sent(Trigger) if isinstance(send.header, Trigger)]

    @property
    def results(self) -> list[Inspected]:
        """Every result of a trigger."""
        return [effect.result for effect in self.effects if isinstance(effect, Finished)]

    @property
    def result(self) -> Inspected:
        """The only one."""
        (result,) = self.results
        return result


@pytest.fixture
def unknown() -> Driven:
    """A session that has said HELLO."""
    return Driven()


@pytest.fixture
def known() -> Driven:
    """A session that was welcomed to epoch 7."""
    driven = Driven()
    driven.hear(Station(epoch=7).welcome())
    return driven


def test_hello_is_the_first_word_and_is_repeated_until_welcome(unknown: Driven) -> None:
    assert [send.header for send in unknown.sent(ClientHello)] == [HELLO]
    unknown.advance(199)
    assert len(unknown.sent(ClientHello)) == 1
    unknown.advance(1)
    assert len(unknown.sent(ClientHello)) == 2
    unknown.hear(Station().welcome())
    unknown.advance(400)
    assert len(unknown.sent(ClientHello)) == 2


def test_heartbeats_go_at_the_pace_that_welcome_names_and_carry_its_epoch(unknown: Driven) -> None:
    unknown.hear(Station(epoch=9, heartbeat_ms=100).welcome())
    unknown.advance(99)
    assert unknown.sent(Heartbeat) == []
    unknown.advance(1)
    assert [send.header for send in unknown.sent(Heartbeat)] == [Heartbeat(epoch=9)]


def test_a_trigger_before_welcome_waits_for_it_and_is_sent_with_the_time_that_is_left(unknown: Driven) -> None:
    unknown.order(deadline_ms=300)
    unknown.advance(120)
    assert unknown.triggers == []
    unknown.hear(Station(epoch=7).welcome())
    assert unknown.triggers == [
        Trigger(epoch=7, trigger_id="t1", camera="top", part_id="A17", deadline_ms=180, frame=None)
    ]


def test_an_accept_in_time_opens_the_gate_and_is_measured(known: Driven) -> None:
    known.order()
    known.advance(12.5)
    known.hear(make_answer(known.triggers[0], "plc"))
    assert known.result.accepted
    assert bool(known.result) is True
    assert known.result.latency_ms == 12.5
    assert not known.result.silent


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": Verdict.REJECT},
        {"verdict": Verdict.REVIEW},
        {"verdict": Verdict.ERROR, "reason": Reason.ENGINE},
        {"expired": True},
        {"replayed": True},
        {"journaled": False},
        {"camera": "side"},
        {"part_id": "A18"},
        {"part_id": None},
    ],
)
def test_whatever_is_no_clean_accept_for_this_very_part_leaves_the_gate_shut(
    known: Driven, changes: dict[str, object]
) -> None:
    known.order()
    known.hear(make_answer(known.triggers[0], "plc", **changes))  # type: ignore[arg-type]
    assert not known.result.accepted
    assert not known.result
    assert not known.result.silent


@pytest.mark.parametrize(("late_by_ns", "accepted"), [(-1, True), (0, False), (1, False)])
def test_an_accept_counts_only_before_the_callers_own_deadline(
    known: Driven, late_by_ns: int, *, accepted: bool
) -> None:
    known.order(deadline_ms=300)
    trigger = known.triggers[0]
    known.now += 300 * MS + late_by_ns
    known.hear(make_answer(trigger, "plc"))
    assert known.result.accepted is accepted
    assert (known.result.verdict is Verdict.ACCEPT) is accepted  # a late ACCEPT is not even shown as one


def test_silence_is_an_error_of_the_clients_own_at_the_deadline_and_a_later_answer_changes_nothing(
    known: Driven,
) -> None:
    known.order(deadline_ms=300)
    trigger = known.triggers[0]
    known.advance(299)
    assert known.results == []
    known.advance(1)
    assert (known.result.verdict, known.result.reason) == (Verdict.ERROR, Reason.TIMEOUT)
    assert known.result.silent
    assert not known.result.answer.journaled
    assert known.result.latency_ms == 300
    known.hear(make_answer(trigger, "plc"))
    assert len(known.results) == 1
    assert known.session.counters["unmatched"] == 1


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ([Refused(code=Code.NAME_IN_USE, detail="plc is taken")], "NAME_IN_USE: plc is taken"),
        ([], "not reached"),
    ],
)
def test_a_silent_result_says_what_is_known_of_the_connection(
    unknown: Driven, prepare: list[Header], said: str
) -> None:
    unknown.hear(*prepare)
    unknown.order(deadline_ms=100)
    unknown.advance(100)
    assert said in unknown.result.detail
    assert "100 ms" in unknown.result.detail


def test_a_silent_result_tells_a_trigger_that_was_taken_from_one_that_was_not(known: Driven) -> None:
    known.order("taken")
    known.order("lost")
    known.hear(Queued(epoch=7, trigger_id="taken"))
    known.advance(300)
    details = {result.answer.trigger_id: result.detail for result in known.results}
    assert "took the trigger" in details["taken"]
    assert "did not even confirm" in details["lost"]


def test_the_second_answer_to_a_trigger_is_dropped(known: Driven) -> None:
    known.order()
    trigger = known.triggers[0]
    known.hear(make_answer(trigger, "plc", Verdict.REJECT), make_answer(trigger, "plc"))
    assert not known.result.accepted


@pytest.mark.parametrize("changes", [{"epoch": 6}, {"epoch": 8}, {"trigger_id": "t2"}, {"client": "other"}])
def test_an_answer_of_another_epoch_trigger_or_client_is_not_taken_for_this_one(
    known: Driven, changes: dict[str, object]
) -> None:
    known.order()
    known.hear(make_answer(known.triggers[0], "plc").model_copy(update=changes))
    assert known.results == []
    assert known.session.counters["unmatched"] == 1


def test_an_answer_to_a_trigger_that_was_not_sent_yet_is_not_taken(unknown: Driven) -> None:
    unknown.order()
    unknown.hear(make_answer(Trigger(epoch=0, trigger_id="t1", camera="top", part_id="A17"), "plc"))
    assert unknown.results == []


def test_after_hello_first_all_open_triggers_are_sent_again_unchanged(known: Driven) -> None:
    known.order("a")
    known.advance(10)
    known.order("b")
    before = known.triggers
    refused = [Refused(code=Code.HELLO_FIRST, detail="", trigger_id=i, epoch=7) for i in ("a", "b")]
    for one in refused:
        known.hear(one)
    assert len(known.sent(ClientHello)) == 2  # one more, though two messages were refused
    assert known.results == []
    known.hear(Station(epoch=8).welcome())
    assert known.triggers == [*before, *before]  # the epoch of the first sending included


def test_what_is_ordered_while_the_service_does_not_know_the_client_takes_the_next_epoch(known: Driven) -> None:
    known.hear(Refused(code=Code.HELLO_FIRST, detail=""))
    known.order("new")
    assert known.triggers == []
    known.hear(Station(epoch=8).welcome())
    assert [trigger.epoch for trigger in known.triggers] == [8]


def test_a_repeated_welcome_sends_nothing_again(known: Driven) -> None:
    known.order()
    known.hear(Station(epoch=7).welcome(), Station(epoch=7).welcome())
    assert len(known.triggers) == 1


def test_a_welcome_of_another_epoch_sends_again(known: Driven) -> None:
    known.order()
    known.hear(Station(epoch=8).welcome())
    assert [trigger.epoch for trigger in known.triggers] == [7, 7]


def test_a_heartbeat_of_another_epoch_makes_the_client_say_hello_again(known: Driven) -> None:
    known.hear(Heartbeat(epoch=8))
    assert len(known.sent(ClientHello)) == 2


def test_an_unanswered_trigger_is_sent_again_after_growing_pauses(known: Driven) -> None:
    known.order(deadline_ms=10_000)
    times = [0]
    for ms in range(1, 4001):
        known.advance(1)
        if ms % 400 == 0:
            known.hear(Heartbeat(epoch=7))
        if len(known.triggers) > len(times):
            times.append(ms)
    assert times == [0, 500, 1500, 3500]
    assert len({trigger.model_dump_json() for trigger in known.triggers}) == 1


def test_an_answer_of_restart_is_final(known: Driven) -> None:
    known.order()
    known.hear(make_answer(known.triggers[0], "plc", Verdict.ERROR, reason=Reason.RESTART))
    assert known.result.reason is Reason.RESTART
    known.advance(10_000)
    assert len(known.triggers) == 1


def test_a_trigger_that_the_service_refuses_is_over_and_the_others_go_on(known: Driven) -> None:
    known.order("bad")
    known.order("good")
    known.hear(Refused(code=Code.BAD_MESSAGE, detail="no such thing", trigger_id="bad", epoch=7))
    assert known.result.answer.trigger_id == "bad"
    assert known.result.silent
    assert not known.result.accepted
    assert "no such thing" in known.result.detail
    assert known.session.connection.welcomed


def test_a_refusal_of_a_trigger_that_is_gone_disturbs_nothing(known: Driven) -> None:
    known.hear(Refused(code=Code.BAD_MESSAGE, detail="", trigger_id="gone", epoch=7))
    assert known.results == []
    assert known.session.connection.welcomed


def test_a_silent_service_gets_a_new_socket_and_a_new_hello(known: Driven) -> None:
    known.advance(1999)
    assert not any(isinstance(effect, Reconnect) for effect in known.effects)
    known.effects.clear()
    known.advance(1)
    kinds = [type(effect.header) if isinstance(effect, Send) else type(effect) for effect in known.effects]
    assert kinds == [Reconnect, Parted, ClientHello]
    known.effects.clear()
    known.advance(1999)
    assert not any(isinstance(effect, Reconnect) for effect in known.effects)
    known.advance(1)
    assert any(isinstance(effect, Reconnect) for effect in known.effects)


def test_garbage_is_counted_and_is_no_sign_of_life(known: Driven) -> None:
    known.advance(1990)
    for parts in ([b"x"], [b"", b""], [b"TAKT\x01\x00\x14", b"{"], [b"TAKT\x01\x00\x12", b"{}"], [b"a"] * 9, []):
        known.session.receive(known.now, parts)
    assert known.session.connection.counters["malformed"] == 6
    known.advance(10)
    assert any(isinstance(effect, Reconnect) for effect in known.effects)


def test_a_name_in_use_is_asked_for_again_after_a_lapse_and_taken_when_it_is_free(unknown: Driven) -> None:
    unknown.hear(Refused(code=Code.NAME_IN_USE, detail="another one lives"))
    unknown.advance(1999)
    assert len(unknown.sent(ClientHello)) == 1
    assert not any(isinstance(effect, Reconnect) for effect in unknown.effects)
    unknown.advance(1)
    assert len(unknown.sent(ClientHello)) == 2
    assert not any(isinstance(effect, Reconnect) for effect in unknown.effects)  # nothing was to be heard meanwhile
    unknown.hear(Station().welcome())
    assert unknown.session.connection.refusal == ""
    unknown.order()
    assert len(unknown.triggers) == 1


def test_a_welcome_that_asks_for_no_pause_between_heartbeats_makes_no_busy_loop(unknown: Driven) -> None:
    unknown.hear(Station(heartbeat_ms=0, lapse_ms=0).welcome())
    assert unknown.session.due() >= unknown.now + 10 * MS


def test_one_trigger_more_than_may_be_open_is_overload_at_once() -> None:
    driven = Driven(max_open=2)
    driven.hear(Station().welcome())
    for number in range(3):
        driven.order(f"t{number}")
    assert driven.result.answer.trigger_id == "t2"
    assert (driven.result.reason, driven.result.silent) == (Reason.OVERLOAD, True)
    assert [trigger.trigger_id for trigger in driven.triggers] == ["t0", "t1"]
    driven.hear(make_answer(driven.triggers[0], "plc"))
    driven.order("t3")
    assert [trigger.trigger_id for trigger in driven.triggers] == ["t0", "t1", "t3"]


def test_the_same_id_twice_at_once_is_the_callers_fault(known: Driven) -> None:
    known.order()
    with pytest.raises(ConfigError, match="t1"):
        known.order()


def test_without_a_deadline_the_cameras_own_counts_even_where_it_is_learnt_later(unknown: Driven) -> None:
    unknown.order(deadline_ms=None)
    unknown.advance(100)
    unknown.hear(Station(epoch=1).welcome())
    assert unknown.triggers[0].deadline_ms == CAMERAS[0].deadline_ms - 100
    unknown.advance(CAMERAS[0].deadline_ms - 101)
    assert unknown.results == []
    unknown.advance(1)
    assert unknown.result.silent
    assert unknown.result.answer.deadline_ms == CAMERAS[0].deadline_ms - 100


def test_without_any_deadline_known_silence_ends_all_the_same(unknown: Driven) -> None:
    unknown.order(deadline_ms=None)
    unknown.advance(DEADLINE_MS)
    assert unknown.result.silent


def test_a_welcome_after_the_deadline_sends_nothing(unknown: Driven) -> None:
    unknown.order(deadline_ms=100)
    unknown.now += 100 * MS
    unknown.hear(Station().welcome())
    assert unknown.triggers == []
    assert unknown.result.silent


def test_closing_ends_every_open_trigger_once(known: Driven) -> None:
    known.order("a")
    known.order("b")
    known.session.finish(known.now)
    known.effects += known.session.take()
    assert [result.answer.trigger_id for result in known.results] == ["a", "b"]
    assert not any(known.results)


def test_the_clock_is_asked_for_when_something_is_due(known: Driven) -> None:
    assert known.session.due() == known.now + 500 * MS
    known.order(deadline_ms=50)
    assert known.session.due() == known.now + 50 * MS


def stream_answer(number: int, **changes: object) -> Answer:
    trigger = Trigger(epoch=7, trigger_id=str(number), camera="belt")
    return make_answer(trigger, "@belt").model_copy(update=changes)


def test_answers_of_a_followed_stream_come_once_and_under_the_same_rule(known: Driven) -> None:
    known.hear(
        stream_answer(1),
        stream_answer(1),
        stream_answer(2, verdict=Verdict.REJECT),
        stream_answer(3, expired=True),
        stream_answer(4, client="@other"),
    )
    streamed = [effect.result for effect in known.effects if isinstance(effect, Streamed)]
    assert [(result.answer.trigger_id, result.accepted) for result in streamed] == [
        ("1", True),
        ("2", False),
        ("3", False),
    ]
    assert streamed[0].latency_ms == 3.5
    assert known.results == []


def test_a_frame_is_sent_in_the_format_that_the_camera_takes_and_is_the_same_in_every_retry(known: Driven) -> None:
    blue, green, red = 1, 2, 3
    pixels = np.zeros((2, 4, 3), np.uint8) + np.array([blue, green, red], np.uint8)
    known.order(camera="given", frame=Frame(pixels, PixelFormat.BGR8))
    pixels[...] = 9  # the caller's array is free again
    known.hear(Station(epoch=8).welcome())
    first, second = known.sent(Trigger)
    assert isinstance(first.header, Trigger)
    assert first.header.frame is not None
    assert first.header.frame.pixel_format is PixelFormat.RGB8
    assert bytes(first.pixels or b"") == bytes([red, green, blue] * 8) == bytes(second.pixels or b"")


@pytest.mark.parametrize("wrap", [lambda pixels: pixels, lambda pixels: Frame(pixels, PixelFormat.RGB8)])
def test_the_caller_may_reuse_its_array_while_the_trigger_waits_for_welcome(
    unknown: Driven, wrap: Callable[[NDArray[np.uint8]], object]
) -> None:
    pixels = np.full((2, 4, 3), 5, np.uint8)
    unknown.order(camera="given", frame=wrap(pixels))
    pixels[...] = 9
    unknown.hear(Station().welcome())
    (send,) = unknown.sent(Trigger)
    assert bytes(send.pixels or b"") == bytes([5] * 24)


def test_a_grey_frame_is_widened_for_a_colour_bundle(known: Driven) -> None:
    known.order(camera="given", frame=np.full((2, 4), 7, np.uint8))
    (send,) = known.sent(Trigger)
    assert bytes(send.pixels or b"") == bytes([7] * 24)


def test_a_mosaic_is_sent_as_it_is_for_it_is_a_third_of_its_colours(known: Driven) -> None:
    known.order(camera="given", frame=Frame(np.full((2, 4), 7, np.uint8), PixelFormat.BAYER_GB8))
    (send,) = known.sent(Trigger)
    assert isinstance(send.header, Trigger)
    assert send.header.frame is not None
    assert send.header.frame.pixel_format is PixelFormat.BAYER_GB8
    assert bytes(send.pixels or b"") == bytes([7] * 8)


@pytest.mark.parametrize("form", [PixelFormat.BGR12, PixelFormat.BAYER_RG12, PixelFormat.MONO12])
def test_a_frame_that_breaks_its_promise_is_left_to_the_service_to_judge(known: Driven, form: PixelFormat) -> None:
    known.order(camera="given", frame=Frame(np.full((2, 4, form.channels), 5000, np.uint16), form))
    (send,) = known.sent(Trigger)
    assert isinstance(send.header, Trigger)
    assert send.header.frame is not None
    assert send.header.frame.pixel_format is form


def test_a_frame_that_cannot_be_converted_is_left_to_the_service_to_judge(known: Driven) -> None:
    known.order(camera="given", frame=np.full((2, 4), 258, np.uint16))
    (send,) = known.sent(Trigger)
    assert isinstance(send.header, Trigger)
    assert send.header.frame is not None
    assert send.header.frame.pixel_format is PixelFormat.MONO16
    assert bytes(send.pixels or b"") == b"\x02\x01" * 8  # little-endian
