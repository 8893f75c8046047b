"""Clients at a real socket: who is known, what becomes of their triggers, and who gets which answer."""

from collections.abc import Iterator

import pytest
from support.headers import EXAMPLES, FRAME
from support.journals import acceptance, answer
from support.sockets import BoundPort, DealerPeer, bound, instance

from edge_runtime.protocol import messages as m
from edge_runtime.protocol.wire import Buffer
from edge_runtime.service.desk import Desk, DeskHooks, content_digest
from edge_runtime.service.operations import Acceptance, Key
from edge_runtime.service.peers import LAPSE_MS

LAPSE = LAPSE_MS * 1_000_000
FACTS = m.CameraFacts(name="top", trigger=m.TriggerMode.SOFTWARE, deadline_ms=250, takes_frames=False, frame=FRAME)


class Bench:
    """A desk behind a real port."""

    def __init__(self, port: BoundPort) -> None:
        """Nobody is there."""
        self.port = port
        self.triggered: list[tuple[Acceptance, bytes | None]] = []
        self.reason = "waiting"
        self.desk = Desk(
            port.port,
            station="press-4",
            epoch=3,
            hooks=DeskHooks(
                triggered=self._triggered,
                state=lambda: (m.State.READY, self.reason),
                cameras=lambda: (FACTS,),
                deadline_ms=lambda _: 250,
            ),
        )

    def _triggered(self, given: Acceptance, _: m.Trigger, pixels: Buffer | None) -> None:
        self.triggered.append((given, None if pixels is None else bytes(pixels)))

    def take(self, now_ns: int = 0) -> None:
        """Take what came."""
        self.port.take(self.desk.on_message, now_ns)

    def greeted(self, name: str, *follow: str) -> DealerPeer:
        """A client that is known."""
        peer = self.port.peer()
        peer.say(m.ClientHello(name=name, instance=instance(), follow=follow))
        self.take()
        peer.hear(m.ClientWelcome)
        return peer


@pytest.fixture
def bench() -> Iterator[Bench]:
    with bound(m.AT_TRIGGERS, pixel_bytes=100_000) as port:
        yield Bench(port)


def trigger(trigger_id: str = "t1", epoch: int = 3, **more: object) -> m.Trigger:
    return m.Trigger(epoch=epoch, trigger_id=trigger_id, camera="top", **more)  # type: ignore[arg-type]


def test_hello_is_answered_with_what_a_client_must_know(bench: Bench) -> None:
    peer = bench.port.peer()
    peer.say(m.ClientHello(name="plc", instance=instance()))
    bench.take()
    welcome = peer.hear(m.ClientWelcome)
    assert (welcome.station, welcome.epoch, welcome.state, welcome.cameras) == ("press-4", 3, m.State.READY, (FACTS,))
    assert (welcome.heartbeat_ms, welcome.lapse_ms) == (500, 2000)


def test_who_did_not_say_hello_is_told_so_with_the_trigger(bench: Bench) -> None:
    peer = bench.port.peer()
    peer.say(trigger())
    bench.take()
    refused = peer.hear(m.Refused)
    assert (refused.code, refused.trigger_id, refused.epoch) == (m.Code.HELLO_FIRST, "t1", 3)
    peer.say(m.Heartbeat(epoch=3))
    bench.take()
    assert peer.hear(m.Refused).code is m.Code.HELLO_FIRST
    assert bench.triggered == []


def test_a_second_live_client_of_a_name_is_refused_until_the_first_lapses(bench: Bench) -> None:
    bench.greeted("plc")
    second = bench.port.peer()
    hello = m.ClientHello(name="plc", instance=instance())
    second.say(hello)
    bench.take()
    assert second.hear(m.Refused).code is m.Code.NAME_IN_USE
    bench.desk.tick(LAPSE)
    second.say(hello)
    bench.take(LAPSE)
    second.hear(m.ClientWelcome)


def test_a_trigger_becomes_an_acceptance_of_its_client(bench: Bench) -> None:
    peer = bench.greeted("plc")
    peer.say(trigger(part_id="part ä", deadline_ms=40))
    peer.say(trigger("t2", epoch=2), b"pixels")
    bench.port.take_until(bench.desk.on_message, lambda: len(bench.triggered) == 2, 9)
    (first, none), (second, pixels) = bench.triggered
    assert first.key == Key(client="plc", epoch=3, trigger_id="t1")
    assert (first.camera, first.part_id, first.deadline_ms, first.received_ns) == ("top", "part ä", 40, 9)
    assert (second.key.epoch, second.deadline_ms, none, pixels) == (2, 250, None, b"pixels")


def test_answers_go_to_the_client_that_asked_and_streams_to_who_follows(bench: Bench) -> None:
    plc, mes = bench.greeted("plc"), bench.greeted("mes", "belt")
    given = answer(acceptance("t1"))
    streamed = given.model_copy(update={"client": "@belt", "camera": "belt", "trigger_id": "7"})
    bench.desk.deliver(streamed)
    bench.desk.deliver(given)
    assert plc.hear(m.Answer) == given
    assert mes.hear(m.Answer) == streamed
    bench.desk.queued(acceptance("t1").key)
    assert plc.hear(m.Queued) == m.Queued(epoch=1, trigger_id="t1")


def test_an_answer_to_who_is_gone_is_counted(bench: Bench) -> None:
    bench.desk.deliver(answer(acceptance("t1")))
    assert bench.port.counters["undelivered"] == 1
    bench.desk.queued(acceptance("t1").key)


def test_a_heartbeat_is_answered_with_the_state_however_long_its_reason(bench: Bench) -> None:
    bench.reason = "ß" * 5000
    peer = bench.greeted("plc")
    peer.say(m.Heartbeat(epoch=3))
    bench.take()
    heard = peer.hear(m.Heartbeat)
    assert (heard.epoch, heard.state, heard.reason) == (3, m.State.READY, "ß" * 2000)


def test_a_malformed_trigger_is_refused_by_its_name(bench: Bench) -> None:
    peer = bench.greeted("plc")
    preamble = b"TAKT\x01\x00\x12"
    peer.say_raw(preamble, b'{"epoch":3,"trigger_id":"t1","camera":"no such name!"}')
    peer.say_raw(preamble, b'{"epoch":3,"trigger_id":"","camera":"top"}')
    bench.port.take_until(bench.desk.on_message, lambda: bench.port.counters["malformed"] == 2, 0)
    named, nameless = peer.hear(m.Refused), peer.hear(m.Refused)
    assert (named.code, named.trigger_id, named.epoch) == (m.Code.BAD_MESSAGE, "t1", 3)
    assert "camera" in named.detail
    assert (nameless.code, nameless.trigger_id, nameless.epoch) == (m.Code.BAD_MESSAGE, None, None)


@pytest.mark.parametrize(
    "change",
    [{"camera": "side"}, {"part_id": "p"}, {"deadline_ms": 251}, {"frame": FRAME}, {"trigger_id": "t2"}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_trigger_says_is_part_of_its_content(change: dict[str, object]) -> None:
    plain = content_digest(trigger(), 250, None)
    changed = trigger().model_copy(update=change)
    assert content_digest(changed, changed.deadline_ms or 250, None) != plain
    assert content_digest(trigger(), 250, b"") == plain
    assert content_digest(trigger(), 250, b"x") != plain
    assert content_digest(trigger(deadline_ms=250), 250, None) == plain


def test_every_message_of_another_socket_is_refused(bench: Bench) -> None:
    peer = bench.greeted("plc")
    others = [one for one in EXAMPLES if type(one) not in m.AT_TRIGGERS.values()]
    for one in others:
        peer.say(one)
    bench.port.take_until(bench.desk.on_message, lambda: bench.port.counters["malformed"] == len(others), 0)
    assert {peer.hear(m.Refused).code for _ in others} == {m.Code.BAD_MESSAGE}
