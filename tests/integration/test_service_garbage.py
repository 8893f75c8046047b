"""Garbage on any of the sockets: counted, refused where an answer is possible, and nothing else happens."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.line import Line, serving, until
from support.raw import MONO, Peer, Wires, picture, wires

from edge_runtime.decision import Verdict
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import (
    CameraHello,
    ClientHello,
    Code,
    ConsumerHello,
    Frame,
    Refused,
    Reply,
    Request,
    Result,
    Transport,
    Trigger,
    TriggerMode,
    WorkerHello,
)

PORTS = {"triggers": 0, "frames": 1, "records": 2, "control": 3, "workers": 5}
HELLO = bytes((0x10,))
DEEP = b"[" * 20_000 + b"]" * 20_000
GARBAGE: dict[str, list[bytes]] = {
    "nothing": [b""],
    "one part": [b"TAKT\x01\x00\x10"],
    "noise": [b"\xff\x00\xfe" * 50, b"\x80" * 1000],
    "wrong magic": [b"TACT\x01\x00\x10", b"{}"],
    "wrong major": [b"TAKT\x02\x00\x10", b"{}"],
    "short preamble": [b"TAKT\x01\x00", b"{}"],
    "long preamble": [b"TAKT\x01\x00\x10\x00", b"{}"],
    "unknown type": [b"TAKT\x01\x00\xee", b"{}"],
    "only from the service": [b"TAKT\x01\x00\x02", b"{}"],
    "four parts": [b"TAKT\x01\x00\x10", b"{}", b"", b""],
    "a thousand parts": [b"TAKT\x01\x00\x10", *([b"{}"] * 999)],
}
HEADERS: dict[str, bytes] = {
    "no JSON": b"{",
    "not an object": b"[]",
    "a number": b"1",
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "a lone surrogate": b'{"name": "\\ud800", "actor": "\\ud800"}',
    "deep": DEEP,
    "deep inside": b'{"name": ' + DEEP + b"}",
    "wrong types": b'{"name": 1, "epoch": "one", "id": null, "token": [], "seq": 1.5, "job": {}}',
    "negative": b'{"epoch": -1, "seq": -1, "name": "-", "job": -1}',
    "not finite": b'{"epoch": NaN, "seq": Infinity, "name": NaN, "id": NaN, "token": NaN, "job": NaN}',
    "huge number": b'{"epoch": 1' + b"0" * 5000 + b', "seq": 1' + b"0" * 5000 + b"}",
}
TYPES = {"triggers": 0x12, "frames": 0x24, "records": 0x33, "control": 0x40, "workers": 0x62}


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A service that has to keep answering."""
    folder = tmp_path_factory.mktemp("garbage")
    given = {"name": "given", "bundle": str(stub), "source": "client"}
    with serving(folder, given) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


@pytest.fixture
def healthy(bench: Wires, line: Line) -> Iterator[None]:
    """The same processes answer as before the test, rightly, on the trigger socket."""
    before = line.status()
    assert before is not None
    yield
    after = line.status()
    assert after is not None
    assert (after["pid"], after["ready"]) == (before["pid"], True)
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    client = bench.client()
    assert client.inspect("given", value=60).verdict is Verdict.ACCEPT
    assert client.inspect("given", value=160).verdict is Verdict.REJECT
    assert "Traceback" not in line.log.read_text()


def malformed(line: Line) -> int:
    """How many messages were counted as malformed."""
    return int((line.status() or {})["counters"].get("malformed", 0))


def refused(bench: Wires, port: str, parts: list[bytes]) -> Refused:
    """What comes back for parts that are no message."""
    peer = Peer(bench, PORTS[port])
    peer.socket.send_multipart(parts)
    return peer.hear(Refused)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("port", PORTS)
def test_what_is_no_message_is_refused_and_counted(bench: Wires, line: Line, port: str) -> None:
    for count, (name, parts) in enumerate(GARBAGE.items(), malformed(line) + 1):
        answer = refused(bench, port, parts)
        assert answer.code is Code.BAD_MESSAGE, name
        assert answer.detail, name
        assert malformed(line) == count, name


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("port", PORTS)
def test_a_header_that_is_none_is_refused_and_counted(bench: Wires, line: Line, port: str) -> None:
    for count, (name, header) in enumerate(HEADERS.items(), malformed(line) + 1):
        answer = refused(bench, port, [b"TAKT\x01\x00" + bytes((TYPES[port],)), header])
        assert answer.code is Code.BAD_MESSAGE, name
        assert malformed(line) == count, name


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("port", PORTS)
def test_messages_of_other_sockets_are_refused(bench: Wires, port: str) -> None:
    others = {name: kind for name, kind in TYPES.items() if name != port}
    for kind in others.values():
        assert refused(bench, port, [b"TAKT\x01\x00" + bytes((kind,)), b"{}"]).code is Code.BAD_MESSAGE


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("port", PORTS)
def test_an_oversized_header_never_gets_in(bench: Wires, line: Line, port: str) -> None:
    """Where no pixels are taken ZeroMQ cuts the connection; else the message is refused."""
    peer = Peer(bench, PORTS[port])
    header = json.dumps({"name": "x" * 70_000}).encode()
    peer.socket.send_multipart([b"TAKT\x01\x00" + bytes((TYPES[port],)), header])
    if port in {"triggers", "frames"}:
        assert peer.hear(Refused).code is Code.BAD_MESSAGE
    else:
        bench.pump(0.2)
    for _ in range(3):
        assert refused(bench, port, [b"again"]).code is Code.BAD_MESSAGE
    assert (line.status() or {})["ready"]


def over_tcp(line: Line, port: str, sent: bytes) -> socket.socket:
    """A connection that is not ZeroMQ's."""
    connection = socket.create_connection(("127.0.0.1", line.port + PORTS[port]), timeout=30)
    connection.sendall(sent)
    return connection


def closed(connection: socket.socket) -> bool:
    """Whether the service closes a connection within the patience of its socket."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


TCP: dict[str, bytes] = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: takt\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "nothing": b"",
    "half a greeting": b"\xff\x00\x00\x00\x00\x00\x00\x00\x01",
    "a greeting and no more": b"\xff" + b"\x00" * 8 + b"\x7f\x03\x00NULL" + b"\x00" * 48,
}


@pytest.mark.usefixtures("healthy")
def test_what_is_not_zeromq_disturbs_nobody_and_is_hung_up_on(bench: Wires, line: Line) -> None:
    """All kinds on all ports at once: each is given three seconds."""
    with ExitStack() as stack:
        connections = {
            (port, name): stack.enter_context(over_tcp(line, port, sent))
            for port in PORTS
            for name, sent in TCP.items()
        }
        client = bench.client()
        for _ in range(10):
            assert client.inspect("given", value=60).verdict is Verdict.ACCEPT  # while they hang
        for (port, name), connection in connections.items():
            # what starts like HTTP looks to ZeroMQ like its first version, which had no handshake: a mere silent peer
            assert name == "HTTP" or closed(connection), f"{name} on {port}"


@pytest.mark.usefixtures("healthy")
def test_half_a_message_holds_up_nobody(bench: Wires, line: Line) -> None:
    """A greeting, a handshake, and a frame that announces more than ever comes."""
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
    start = TCP["a greeting and no more"] + b"\x04" + bytes((len(ready),)) + ready
    half = start + b"\x01\x07TAKT\x01\x00\x12" + b"\x00\x20{"  # more to come, and 32 bytes of which one is here
    with ExitStack() as stack:
        for port in PORTS:
            stack.enter_context(over_tcp(line, port, half))
        client = bench.client()
        for _ in range(5):
            assert client.inspect("given", value=60).verdict is Verdict.ACCEPT


@pytest.mark.usefixtures("healthy")
def test_a_flood_of_garbage_delays_nobody_beyond_measure(bench: Wires, line: Line) -> None:
    before = malformed(line)
    peers = [Peer(bench, offset) for offset in PORTS.values()]
    for peer in peers:
        for _ in range(500):
            peer.socket.send_multipart([b"TAKT", b"x"])
    client = bench.client()
    assert client.inspect("given", value=60, deadline_ms=30_000).verdict is Verdict.ACCEPT
    until(lambda: malformed(line) == before + 2500, "all to be counted")


NEWER = b"TAKT\x01\x09"  # version 1.9


@pytest.mark.usefixtures("healthy")
def test_fields_of_a_newer_minor_are_ignored(bench: Wires) -> None:
    peer = Peer(bench, PORTS["control"])
    request = json.loads(Request(id="0" * 32, command="status").model_dump_json()) | {"urgency": {"level": 9}}
    peer.socket.send_multipart([NEWER + bytes((0x40,)), json.dumps(request).encode()])
    assert peer.hear(Reply).ok


@pytest.mark.usefixtures("healthy")
def test_a_worker_that_does_not_know_the_token_is_no_worker(bench: Wires, line: Line) -> None:
    status = line.status() or {}
    (worker,) = status["workers"]
    intruder = Peer(bench, PORTS["workers"])
    before = status["counters"].get("refused", 0)
    said = {"worker": worker["name"], "pid": 1, "digest": worker["bundle"], "artefact": "x", "product": "stub"}
    for token in ("", "0" * 32, "guess"):
        intruder.say(WorkerHello(token=token, inspected=0, **said))
    until(lambda: (line.status() or {})["counters"].get("refused", 0) == before + 3, "the refusals to be counted")
    assert [seat["pid"] for seat in (line.status() or {})["workers"]] == [worker["pid"]]


@pytest.mark.usefixtures("healthy")
def test_a_result_from_a_stranger_decides_nothing(bench: Wires, line: Line) -> None:
    intruder = Peer(bench, PORTS["workers"])
    client = bench.client()
    epoch = (line.status() or {})["epoch"]
    blank: dict[str, Any] = dict.fromkeys(("region", "score", "threshold", "score_normalized", "reason"))
    times = {"preprocess_ms": 0.0, "infer_ms": 0.0, "postprocess_ms": 0.0}
    for job in range(1, 200):
        result = Result(
            job=(epoch << 40) + job, verdict=Verdict.ACCEPT, detail="", regions=(), regions_left_out=0, complete=True, bundle="x",
            artefact="x", **blank, **times,
        )  # fmt: skip
        intruder.say(result)
    answers = [client.inspect("given", value=200) for _ in range(5)]
    assert {answer.verdict for answer in answers} == {Verdict.REJECT}
    assert intruder.hear(Refused).code is Code.HELLO_FIRST


LONG = "x" * 2000
FITTING: dict[str, Callable[[int], Any]] = {
    "a part id in all alphabets": lambda epoch: Trigger(
        epoch=epoch, trigger_id="alphabets", camera="given", part_id="Ä漢🙂\u0000\u202e" * 20
    ),
    "the longest of all": lambda epoch: Trigger(
        epoch=epoch, trigger_id="!" * 128, camera="c" * 64, part_id="p" * 256, deadline_ms=600_000
    ),
    "SQL": lambda epoch: Trigger(epoch=epoch, trigger_id="';DROP--TABLE", camera="given", part_id="'; DROP TABLE x"),
    "the highest epoch": lambda _: Trigger(epoch=2**63 - 1, trigger_id="high", camera="given"),
    "the largest frame": lambda epoch: Trigger(
        epoch=epoch, trigger_id="large", camera="given", frame=MONO.model_copy(update={"width": 65_535})
    ),
}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("name", FITTING)
def test_what_the_protocol_allows_gets_an_answer(bench: Wires, name: str) -> None:
    client = bench.client()
    assert client.epoch is not None
    trigger = FITTING[name](client.epoch)
    client.say(trigger)
    answer = client.answer(trigger)
    assert answer.verdict is Verdict.ERROR
    assert (answer.part_id, answer.trigger_id) == (trigger.part_id, trigger.trigger_id)


@pytest.mark.usefixtures("healthy")
def test_hellos_on_the_wrong_sockets_and_twice_do_no_harm(bench: Wires) -> None:
    instance = "0" * 32
    hellos = [
        ClientHello(name="x", instance=instance, follow=("given", "nobody", "given")),
        CameraHello(name="given", instance=instance, trigger=TriggerMode.SOFTWARE, transport=Transport.MEMORY),
        ConsumerHello(name="x", instance=instance),
    ]
    for offset in PORTS.values():
        peer = Peer(bench, offset)
        for hello in hellos * 2:
            peer.socket.send_multipart(wire.encode(hello))
        bench.until(lambda peer=peer: len(peer.heard) >= 6, "an answer to each")


@pytest.mark.usefixtures("healthy")
def test_frames_from_who_is_no_camera_are_refused(bench: Wires) -> None:
    peer = Peer(bench, PORTS["frames"])
    frame = Frame(epoch=1, trigger_id="plc/t1", counter=1, frame=MONO)
    peer.say(frame, picture(50).tobytes())
    assert peer.hear(Refused).code is Code.HELLO_FIRST


@pytest.mark.usefixtures("healthy")
def test_peers_that_come_and_go_leave_nothing_behind(bench: Wires, line: Line) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for number in range(100):
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(line.endpoint)
            dealer.send_multipart(wire.encode(ClientHello(name=f"guest{number}", instance=f"{number:032x}")))
            assert dealer.poll(30_000)
    context.term()
    until(
        lambda: not any(name.startswith("guest") for name in (line.status() or {})["peers"]["clients"]), "them to lapse"
    )
    assert bench.client().inspect("given", value=60).score == 60
