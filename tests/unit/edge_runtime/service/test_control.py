"""Commands to a real broker: what they do, what they say, and that none of them takes it down."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.broker_thread import BrokerThread, broker_thread
from support.headers import EXAMPLES, FRAME
from support.line import until
from support.sockets import DealerPeer, instance

from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import messages as m
from edge_runtime.service.store import BundleFacts

C = BundleFacts(path=Path("/srv/c.takt"), digest="c" * 64, product="r", frame=FRAME)
B = BundleFacts(path=Path("/srv/b.takt"), digest="b" * 64, product="q", frame=FRAME)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[BrokerThread]:
    with broker_thread(tmp_path, {"name": "top"}, {"name": "side"}) as started:
        yield started
        assert started.alive
        assert started.broker.counters["internal"] == 0


def staged(running: BrokerThread, facts: BundleFacts = B, **arguments: Any) -> None:  # noqa: ANN401
    """Stage a bundle, as far as the supervisor's part of it."""
    before = len(running.supervising.heard("stage"))
    request = m.Request(id=instance(), command="stage", arguments={"bundle": str(facts.path), **arguments}, actor="ann")
    running.control.say(request)
    until(lambda: len(running.supervising.heard("stage")) > before, "the order to stage")
    ticket = running.supervising.heard("stage")[-1]["ticket"]
    running.supervising.command("staged", ticket=ticket, facts=facts.as_json())


@pytest.mark.parametrize(
    ("command", "arguments", "word"),
    [
        ("status now", {}, "no command 'status now'"),
        ("activate", {}, "no staged bundle"),
        ("rollback", {"camera": "top"}, "no bundle to go back to"),
        ("activate", {"camera": "none"}, "line.toml has no camera 'none'"),
        ("activate", {"camera": ["top"]}, "line.toml has no camera ['top']"),
        ("rollback", {"camera": {"a": 1}}, "line.toml has no camera"),
        ("resync", {"camera": 7}, "line.toml has no camera 7"),
        ("resync", {}, "nothing to count anew"),
        ("stage", {"bundle": "part.takt"}, "absolute path"),
        ("stage", {"bundle": None}, "absolute path"),
        ("stage", {"bundle": "/srv/a.takt", "camera": [1]}, "line.toml has no camera"),
        ("audit", {"limit": 0}, "limit is 0"),
        ("audit", {"limit": "all"}, "limit is 'all'"),
        ("audit", {"limit": 9**4000}, "limit is 9"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(
    running: BrokerThread, command: str, arguments: dict[str, Any], word: str
) -> None:
    reply = running.ask(command, **arguments)
    assert not reply.ok
    assert word in reply.detail
    assert running.ask("status").ok


def test_halt_refuses_triggers_and_resume_takes_them_again(running: BrokerThread) -> None:
    assert running.ask("halt").detail == "halted"
    assert running.status()["state"] == "Halted"
    assert running.ask("resume").detail == "resumed"
    assert running.status()["state"] != "Halted"


def test_stage_activate_and_roll_back_change_what_is_active_and_are_audited(running: BrokerThread) -> None:
    running.worker()
    staged(running, camera="top")
    running.worker(B.digest)
    assert running.control.hear(m.Reply).ok
    assert running.ask("activate", camera="top").result == B.digest
    top, side = running.status()["cameras"]
    assert (top["bundle"]["digest"], top["previous"]["digest"], top["staged"]) == (B.digest, "a" * 64, None)
    assert side["bundle"]["digest"] == "a" * 64
    assert running.ask("rollback", camera="top").result == "a" * 64
    assert not running.ask("rollback").ok  # `side` has none, so nothing is changed
    assert running.status()["cameras"][0]["bundle"]["digest"] == "a" * 64
    rows = running.ask("audit", limit=10).result
    assert isinstance(rows, list)
    assert [(row["command"], row["ok"]) for row in rows] == [  # type: ignore[index,call-overload]
        ("rollback", False),
        ("rollback", True),
        ("activate", True),
        ("stage", True),
    ]


def ask_to_roll_back(running: BrokerThread) -> DealerPeer:
    """B is active, and the bundle before has no worker yet, as just after a start: who asked for rollback, and waits."""
    staged(running, camera="top")
    running.worker(B.digest)
    assert running.control.hear(m.Reply).ok
    assert running.ask("activate", camera="top").ok
    ann = running.peer(running.config.endpoints.control)
    ann.say(m.Request(id=instance(), command="rollback", arguments={"camera": "top"}, actor="ann"))
    time.sleep(0.1)
    assert running.status()["cameras"][0]["bundle"]["digest"] == B.digest
    return ann


def test_a_switch_is_acknowledged_when_a_kill_cannot_undo_it(running: BrokerThread) -> None:
    ann = ask_to_roll_back(running)
    assert running.broker.writer.journal.active()["top"][1:] == (B.digest, "a" * 64)  # as committed
    running.worker()
    assert ann.hear(m.Reply).ok
    assert running.broker.writer.journal.active()["top"][1:] == ("a" * 64, B.digest)


def test_a_rollback_waits_until_the_bundle_before_is_loaded(running: BrokerThread) -> None:
    ann = ask_to_roll_back(running)
    running.worker()
    assert ann.hear(m.Reply).ok
    top = running.status()["cameras"][0]
    assert (top["bundle"]["digest"], top["previous"]["digest"]) == ("a" * 64, B.digest)


def test_a_rollback_to_a_bundle_that_fails_changes_nothing(running: BrokerThread) -> None:
    ann = ask_to_roll_back(running)
    running.supervising.command("worker_failed", worker="w", digest="a" * 64, detail="no such file")
    reply = ann.hear(m.Reply)
    assert (reply.ok, reply.detail) == (False, "no such file")
    running.worker()
    top = running.status()["cameras"][0]
    assert (top["bundle"]["digest"], top["previous"]["digest"]) == (B.digest, "a" * 64)


def test_of_two_waiting_rollbacks_only_the_first_is_done(running: BrokerThread) -> None:
    ann = ask_to_roll_back(running)
    ann.say(m.Request(id=instance(), command="rollback", arguments={"camera": "top"}, actor="bob"))
    time.sleep(0.1)
    running.worker()
    done, refused = sorted((ann.hear(m.Reply) for _ in range(2)), key=lambda reply: not reply.ok)
    assert (done.ok, refused.ok) == (True, False)
    assert "another change came first" in refused.detail


def test_a_rollback_whose_bundle_is_no_longer_wanted_is_answered(tmp_path: Path) -> None:
    """The other change lets the bundle go that was waited for: nothing would ever load it."""
    with broker_thread(tmp_path, {"name": "top"}, warm_previous=False) as running:
        ann = ask_to_roll_back(running)
        staged(running, C, camera="top")
        running.worker(C.digest)
        assert running.control.hear(m.Reply).ok
        assert running.ask("activate", camera="top").ok
        reply = ann.hear(m.Reply)
        assert (reply.ok, "another change came first" in reply.detail) == (False, True)
        assert running.status()["cameras"][0]["bundle"]["digest"] == C.digest


def test_a_bundle_staged_over_another_one_answers_both(running: BrokerThread) -> None:
    staged(running, camera="top")
    until(lambda: "bbb" in str(running.supervising.heard("want")), "its worker to be wanted")
    ann = running.control
    staged(running, C, camera="top")
    first = ann.hear(m.Reply)
    assert (first.ok, "another change came first" in first.detail) == (False, True)
    running.worker(C.digest)
    assert ann.hear(m.Reply).ok


def test_a_bundle_that_cannot_be_loaded_is_dropped_and_its_failure_said(running: BrokerThread) -> None:
    running.worker()
    staged(running)
    until(lambda: "bbb" in str(running.supervising.heard("want")), "its worker to be wanted")
    running.supervising.command("worker_failed", worker="w", digest=B.digest, detail="x" * 9000)
    reply = running.control.hear(m.Reply)
    assert (reply.ok, reply.detail) == (False, "x" * 2000)
    assert not running.ask("activate").ok
    assert running.ask("status").ok


def test_the_supervisor_may_say_that_it_could_not_stage(running: BrokerThread) -> None:
    running.control.say(m.Request(id=instance(), command="stage", arguments={"bundle": "/srv/b.takt"}))
    until(lambda: running.supervising.heard("stage"), "the order to stage")
    ticket = running.supervising.heard("stage")[0]["ticket"]
    running.supervising.command("staged", ticket=ticket, error="is no bundle: " + "ß" * 5000)
    reply = running.control.hear(m.Reply)
    assert not reply.ok
    assert len(reply.detail) == 2000
    running.supervising.command("staged", ticket=ticket, error="again")
    assert running.ask("status").ok


def test_a_log_that_does_not_fit_into_a_message_is_refused_with_what_to_do(running: BrokerThread) -> None:
    for _ in range(100):
        running.ask("\0" * 60, note="\0" * 2000)
    reply = running.ask("audit", limit=100)
    assert not reply.ok
    assert "ask for less" in reply.detail
    assert running.ask("audit", limit=5).ok


def test_status_fits_into_a_message_however_many_readers_there_were(running: BrokerThread) -> None:
    readers = running.peer(running.config.endpoints.records)
    for number in range(1000):
        readers.say(m.ConsumerHello(name=f"{'reader' * 9}-{number}", instance=instance()))
    for _ in range(1000):
        readers.hear(m.ConsumerWelcome)
    status = running.status()
    assert len(status["journal"]["consumers"]) == 100
    assert len(status["peers"]["consumers"]) <= 100


def test_status_is_there_even_where_the_run_folder_is_not(running: BrokerThread) -> None:
    moved = running.config.run_dir.with_name("moved")
    running.config.run_dir.rename(moved)
    try:
        assert running.status()["disk"]["free_bytes"] is None
    finally:
        moved.rename(running.config.run_dir)


def test_nothing_that_a_peer_sends_ends_the_loop(running: BrokerThread) -> None:
    """Every message, sound or not, from who is known and who is not, to every socket."""
    running.worker()
    at = running.config.endpoints
    hellos: dict[str, list[m.Header]] = {
        at.triggers: [m.ClientHello(name="plc", instance=instance(), follow=("top",))],
        at.frames: [],
        at.records: [m.ConsumerHello(name="mes", instance=instance())],
        at.control: [],
        at.workers: [],
    }
    for address, greetings in hellos.items():
        peer = running.peer(address)
        for header in (*EXAMPLES, *greetings, *EXAMPLES):
            peer.say(header)
            peer.say(header, b"odd")
            peer.say_raw(b"TAKT\x01\x00" + bytes([m.TYPES[type(header)]]), b'{"epoch":' + b"9" * 5000)
    client = running.peer(at.triggers)
    client.say(m.ClientHello(name="last", instance=instance()))
    welcome = client.hear(m.ClientWelcome)
    for frame, pixels in [(FRAME, b"odd"), (FRAME, bytes(FRAME.nbytes)), (None, None), (FRAME, None)]:
        client.say(
            m.Trigger(epoch=welcome.epoch, trigger_id=instance(), camera="top", deadline_ms=300, frame=frame), pixels
        )
    heard = [type(client.hear_any()) for _ in range(8)]
    assert heard.count(m.Answer) == heard.count(m.Queued) == 4
    assert running.ask("status").ok


def test_half_a_pixel_is_a_bad_image(tmp_path: Path) -> None:
    deep = m.FrameSpec(width=4, height=4, pixel_format=PixelFormat.MONO16)
    with broker_thread(tmp_path, {"name": "top"}) as running:
        running.worker()
        staged(running, BundleFacts(path=Path("/srv/b.takt"), digest="b" * 64, product="q", frame=deep))
        running.worker(B.digest)
        assert running.control.hear(m.Reply).ok
        assert running.ask("activate").ok
        client = running.peer(running.config.endpoints.triggers)
        client.say(m.ClientHello(name="plc", instance=instance()))
        epoch = client.hear(m.ClientWelcome).epoch
        client.say(m.Trigger(epoch=epoch, trigger_id="t", camera="top", frame=deep), b"p" * 31)
        answer = next(one for one in (client.hear_any() for _ in range(2)) if isinstance(one, m.Answer))
        assert (answer.reason, answer.detail) == ("BAD_IMAGE", "31 bytes of pixels, expected 32")
        assert running.broker.counters["internal"] == 0
