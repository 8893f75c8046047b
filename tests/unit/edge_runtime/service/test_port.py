"""Whatever a peer sends is taken, or refused and counted; whatever cannot go out is counted."""

from collections import Counter

import pytest
from support.headers import EXAMPLES
from support.sockets import bound

from edge_runtime.errors import ConfigError
from edge_runtime.protocol import messages as m
from edge_runtime.protocol import wire
from edge_runtime.service.port import Port

BEAT = m.Heartbeat(epoch=1)
GARBAGE = [
    [b""],
    [b"", b"", b""],
    [b"TAKT"],
    [b"TAKT\x01\x00\x01"],
    [b"TAKT\x01\x00\x01", b"\xff\xfe"],
    [b"TAKT\x01\x00\x01", b"{}"],
    [b"TAKT\x02\x00\x01", b'{"epoch":1}'],
    [b"TAKT\x01\x00\xfe", b'{"epoch":1}'],
    [b"TAKT\x01\x00\x01", b'{"epoch":1}', b"", b""],
    [b"TAKT\x01\x00\x01", b" " * 65_537],
    [b"\0" * 65_536, b"\0" * 65_536],
]


def test_garbage_is_refused_and_counted_and_what_is_sound_gets_through() -> None:
    with bound(m.AT_TRIGGERS, pixel_bytes=10_000) as port:
        peer, taken = port.peer(), []
        for parts in GARBAGE:
            peer.say_raw(*parts)
        peer.say(BEAT)
        port.take_until(lambda _, message, __: taken.append(message.header), lambda: taken, 0)
        assert taken == [BEAT]
        assert port.counters["malformed"] == len(GARBAGE)
        assert {peer.hear(m.Refused).code for _ in GARBAGE} == {m.Code.BAD_MESSAGE}


def test_a_message_over_the_limit_costs_its_sender_the_connection_and_nobody_else() -> None:
    with bound(m.AT_TRIGGERS) as port:
        large, other, taken = port.peer(), port.peer(), []
        large.say(BEAT, bytes(wire.MAX_HEADER_BYTES + 1))
        other.say(BEAT)
        port.take_until(lambda *_: taken.append(1), lambda: taken, 0)
        assert (len(taken), port.counters) == (1, Counter())


def test_at_most_so_many_messages_are_taken_in_a_round() -> None:
    with bound(m.AT_TRIGGERS) as port:
        peer = port.peer()
        taken: list[int] = []
        for _ in range(5):
            peer.say(BEAT)
        port.take_until(lambda *_: taken.append(1), lambda: len(taken) == 5, 0)
        for _ in range(5):
            peer.say(BEAT)
        assert port.port.socket.poll(10_000)
        assert len(list(port.port.receive(2))) <= 2


def test_what_cannot_go_out_is_counted_and_raises_nothing() -> None:
    with bound(m.AT_CONTROL) as port:
        assert not port.port.send(None, BEAT)
        assert not port.port.send(b"nobody", BEAT)
        huge = m.Reply(id="0" * 32, ok=True, detail="", result=["x" * 100] * 1000)
        assert not port.port.send(b"nobody", huge)
        assert port.counters["undelivered"] == 3


def test_a_peer_that_does_not_read_costs_what_is_sent_to_it_and_no_time() -> None:
    with bound(m.AT_RECORDS) as port:
        peer, routes = port.peer(), []
        peer.socket.rcvhwm = 1
        peer.say(m.Ack(seq=1))
        port.take_until(lambda route, *_: routes.append(route), lambda: routes, 0)
        long = m.Gap(first=1, last=2, detail="x" * 2000)
        sent = [port.port.send(routes[0], long) for _ in range(100_000) if port.counters["undelivered"] == 0]
        assert sent[-1] is False
        assert port.counters["undelivered"] == 1


@pytest.mark.parametrize("detail", ["x" * 9000, "\0" * 9000], ids=["long", "escaped"])
def test_a_refusal_of_any_length_goes_out(detail: str) -> None:
    with bound(m.AT_TRIGGERS) as port:
        peer, routes = port.peer(), []
        peer.say(BEAT)
        port.take_until(lambda route, *_: routes.append(route), lambda: routes, 0)
        port.port.refuse(routes[0], m.Code.UNKNOWN_CAMERA, detail)
        assert peer.hear(m.Refused).detail == detail[:2000]
        assert port.counters["refused"] == 1


def test_an_address_in_use_is_said() -> None:
    with bound(m.AT_TRIGGERS) as port, pytest.raises(ConfigError, match="another service uses it"):
        Port(port.context, port.address, m.AT_TRIGGERS, Counter())


def test_every_message_arrives_where_it_belongs_as_it_was_sent() -> None:
    with bound(m.MESSAGES, pixel_bytes=200_000) as port:
        peer, taken = port.peer(), []
        for header in EXAMPLES:
            peer.say(header)
        peer.say(BEAT, b"p" * 150_000)
        port.take_until(lambda _, message, __: taken.append(message), lambda: len(taken) > len(EXAMPLES), 0)
        assert [message.header for message in taken] == [*EXAMPLES, BEAT]
        assert bytes(taken[-1].pixels or b"") == b"p" * 150_000
