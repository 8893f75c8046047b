"""The client library against a service over real sockets that misbehaves in every way a line knows."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.service_side import ServiceSide, serving
from support.station import make_answer, make_record

from edge_runtime.clients import (
    AsyncGateway,
    AsyncRecordStream,
    Control,
    Gateway,
    Inspected,
    RecordStream,
    ServiceError,
)
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.protocol.endpoints import Endpoints
from edge_runtime.protocol.messages import Answer, Code, Gap, Queued, Record, Reply, Trigger

DEADLINE_MS = 3000  # generous: the machine may be busy


@pytest.fixture
def service() -> Iterator[ServiceSide]:
    """A service that behaves until it is told otherwise."""
    with serving(heartbeat_ms=50, lapse_ms=300, verdicts={"bad": Verdict.REJECT}) as running:
        yield running


@pytest.fixture
def gateway(service: ServiceSide) -> Iterator[Gateway]:
    """A client of it."""
    with Gateway(service.endpoint, name="plc", follow=["belt"]) as made:
        yield made


def inspect(gateway: Gateway, part_id: str = "good", deadline_ms: int = DEADLINE_MS) -> Inspected:
    return gateway.inspect(camera="top", part_id=part_id, deadline_ms=deadline_ms)


def test_the_first_part_right_after_construction_is_answered(gateway: Gateway) -> None:
    assert inspect(gateway).accepted
    rejected = inspect(gateway, "bad")
    assert (rejected.accepted, rejected.verdict, rejected.silent) == (False, Verdict.REJECT, False)
    assert 0 < rejected.latency_ms < DEADLINE_MS


def test_many_triggers_from_many_threads_get_their_own_answers(gateway: Gateway) -> None:
    wrong: list[str] = []

    def work(worker: int) -> None:
        for number in range(25):
            part = f"{worker}-{number}"
            pending = gateway.trigger(camera="top", part_id=part, deadline_ms=DEADLINE_MS)
            result = pending.wait()
            if not result.accepted or result.answer.part_id != part or result.answer.trigger_id != pending.trigger_id:
                wrong.append(part)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_service_that_is_not_there_is_silence_by_the_deadline_and_no_exception(service: ServiceSide) -> None:
    nobody = Endpoints("127.0.0.1", service.endpoints.port + 4)  # nothing listens on the ports after control
    with Gateway(nobody.triggers, name="plc") as gateway:
        result = inspect(gateway, deadline_ms=100)
    assert (result.silent, result.accepted, result.reason) == (True, False, Reason.TIMEOUT)
    assert "not reached" in result.detail
    assert result.latency_ms >= 100


def test_a_deaf_service_is_silence_and_when_it_hears_again_the_next_part_is_answered(
    service: ServiceSide, gateway: Gateway
) -> None:
    assert inspect(gateway).accepted
    before = set(service.station.clients)
    service.deaf = True
    assert inspect(gateway, deadline_ms=100).silent
    service.until(lambda: gateway.counters["reconnects"] > 0)
    assert not gateway.connected
    service.deaf = False
    assert inspect(gateway).accepted
    assert set(service.station.clients) > before  # nothing was heard: it is another connection


def test_an_open_trigger_outlives_a_restart_of_the_service_and_is_answered_restart(
    service: ServiceSide, gateway: Gateway
) -> None:
    service.station.hold = True
    pending = gateway.trigger(camera="top", part_id="A", deadline_ms=DEADLINE_MS)
    service.until(lambda: len(service.station.triggers) == 1)
    service.restart()
    assert pending.wait().reason is Reason.RESTART
    service.station.hold = False
    after = inspect(gateway)
    assert (after.accepted, after.answer.epoch) == (True, 2)


def test_a_service_that_comes_up_late_answers_the_part_that_waited(service: ServiceSide, gateway: Gateway) -> None:
    assert inspect(gateway).accepted
    worker = threading.Thread(target=lambda: service.restart(down_s=0.7))
    worker.start()
    service.until(lambda: not gateway.connected)
    assert gateway.trigger(camera="top", part_id="A", deadline_ms=DEADLINE_MS).wait().accepted
    worker.join()


def test_triggers_that_a_forgetful_service_refused_are_sent_again_unchanged(
    service: ServiceSide, gateway: Gateway
) -> None:
    assert inspect(gateway).accepted
    service.station.hold = True
    pending = gateway.trigger(camera="top", part_id="A", deadline_ms=DEADLINE_MS)
    service.until(lambda: len(service.station.triggers) == 2)
    service.forget()
    before = len(service.station.sendings)
    service.until(lambda: bool(service.station.clients) and len(service.station.sendings) > before)
    assert len({sending.model_dump_json() for sending in service.station.sendings[1:]}) == 1
    service.release()
    assert pending.wait().accepted


def test_lost_answers_are_asked_for_again(service: ServiceSide, gateway: Gateway) -> None:
    lost: list[Answer] = []

    def lose(header: object) -> bool:
        if isinstance(header, Answer) and not lost:
            lost.append(header)
            return True
        return False

    service.lose = lose
    assert inspect(gateway).accepted
    assert len(lost) == 1
    assert len(service.station.answers) == 1  # inspected once


def test_doubled_and_garbled_messages_change_nothing(service: ServiceSide, gateway: Gateway) -> None:
    service.copies = 3
    service.garbage = [b"TAKT\x01\x00\x14", b'{"verdict": "ACCEPT"}']
    results = [inspect(gateway, part) for part in ("good", "bad", "good")]
    assert [result.accepted for result in results] == [True, False, True]
    service.garbage = [b"\x00" * 100]
    assert inspect(gateway).accepted
    assert gateway.counters["malformed"] > 0


def test_an_answer_after_the_callers_deadline_does_not_open_the_gate(service: ServiceSide, gateway: Gateway) -> None:
    assert inspect(gateway).accepted
    service.delay_s = 0.3
    pending = gateway.trigger(camera="top", part_id="good", deadline_ms=100)
    result = pending.wait()
    assert (result.accepted, result.silent) == (False, True)
    service.until(lambda: gateway.counters["unmatched"] > 0)
    assert pending.wait() is result


def test_a_name_in_use_is_silence_that_says_so_and_is_taken_once_it_is_free(service: ServiceSide) -> None:
    service.station.refuse = Code.NAME_IN_USE
    with Gateway(service.endpoint, name="plc") as gateway:
        service.until(lambda: gateway.refusal != "")
        result = inspect(gateway, deadline_ms=100)
        assert (result.silent, "NAME_IN_USE" in result.detail) == (True, True)
        service.station.refuse = None
        assert gateway.wait_connected(10)
        assert inspect(gateway).accepted


def test_a_frame_of_the_clients_own_reaches_the_service(service: ServiceSide, gateway: Gateway) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert gateway.inspect(camera="given", deadline_ms=DEADLINE_MS, frame=pixels).verdict is Verdict.ACCEPT
    ((trigger, received, _),) = service.station.triggers.values()
    assert received == pixels.tobytes()
    assert trigger.frame is not None
    assert (trigger.frame.width, trigger.frame.height) == (4, 2)
    assert gateway.inspect(camera="given", deadline_ms=DEADLINE_MS, frame=Frame(pixels, PixelFormat.BGR8)).accepted
    assert list(service.station.triggers.values())[1][1] == pixels[:, :, ::-1].tobytes()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"camera": "no such name"}, "camera"),
        ({"camera": ""}, "camera"),
        ({"camera": "top", "deadline_ms": 0}, "deadline_ms"),
        ({"camera": "top", "deadline_ms": 600_001}, "deadline_ms"),
        ({"camera": "top", "deadline_ms": 1.5}, "deadline_ms"),
        ({"camera": "top", "part_id": "x" * 257}, "part_id"),
        ({"camera": "top", "trigger_id": "a b"}, "trigger_id"),
        ({"camera": "given", "frame": np.zeros((2, 4), np.float32)}, "frame"),
        ({"camera": "given", "frame": np.zeros((2, 4, 4), np.uint8)}, "frame"),
        ({"camera": "given", "frame": np.zeros((0, 4), np.uint8)}, "frame"),
    ],
)
def test_what_the_caller_can_mend_is_an_error_before_anything_is_sent(
    service: ServiceSide, gateway: Gateway, arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        gateway.trigger(**arguments)  # type: ignore[arg-type]
    assert inspect(gateway).accepted
    assert len(service.station.sendings) == 1


def test_a_trigger_id_is_used_once(gateway: Gateway) -> None:
    assert gateway.inspect(camera="top", deadline_ms=DEADLINE_MS, trigger_id="own-1").answer.trigger_id == "own-1"
    with pytest.raises(ConfigError, match="own-1"):
        gateway.trigger(camera="top", trigger_id="own-1")


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("tcp://192.168.0.1:5550", "plc"),
        ("5550", "plc"),
        ("tcp://127.0.0.1:5550", "a name"),
        ("tcp://127.0.0.1:5550", ""),
    ],
)
def test_a_gateway_that_cannot_work_is_not_made(endpoint: str, name: str) -> None:
    with pytest.raises(ConfigError):
        Gateway(endpoint, name=name)


def test_closing_settles_open_triggers_and_later_ones_are_an_error(service: ServiceSide) -> None:
    service.station.hold = True
    gateway = Gateway(service.endpoint, name="plc")
    pending = gateway.trigger(camera="top", deadline_ms=60_000)
    service.until(lambda: len(service.station.triggers) == 1)
    gateway.close()
    gateway.close()
    result = pending.wait()
    assert (result.accepted, result.silent) == (False, True)
    with pytest.raises(ConfigError, match="closed"):
        gateway.trigger(camera="top")
    assert list(gateway.answers()) == []


def stream_answer(number: int, verdict: Verdict = Verdict.ACCEPT) -> Answer:
    return make_answer(Trigger(epoch=1, trigger_id=str(number), camera="belt"), "@belt", verdict)


def test_answers_of_a_followed_stream_come_in_order(service: ServiceSide, gateway: Gateway) -> None:
    assert gateway.wait_connected(10)
    for number in range(1, 4):
        service.stream(stream_answer(number, Verdict.REJECT if number == 2 else Verdict.ACCEPT))
    answers = gateway.answers()
    found = [next(answers) for _ in range(3)]
    assert [(one.answer.trigger_id, one.accepted) for one in found] == [("1", True), ("2", False), ("3", True)]


def test_the_asyncio_gateway_awaits_the_same_results(service: ServiceSide) -> None:
    async def scene() -> None:
        async with AsyncGateway(service.endpoint, name="plc", follow=["belt"]) as gateway:
            parts = ["good", "bad", "good"]
            results = await asyncio.gather(
                *(gateway.inspect(camera="top", part_id=part, deadline_ms=DEADLINE_MS) for part in parts)
            )
            assert [result.accepted for result in results] == [True, False, True]
            service.deaf = True
            assert (await gateway.inspect(camera="top", deadline_ms=100)).silent
            service.deaf = False
            assert await asyncio.to_thread(gateway.plain.wait_connected, 10)
            service.stream(stream_answer(1))
            async for answer in gateway.answers():
                assert answer.accepted
                break

    asyncio.run(scene())


def test_a_cancelled_wait_leaves_the_others_alone(service: ServiceSide) -> None:
    async def scene() -> None:
        service.station.hold = True
        async with AsyncGateway(service.endpoint, name="plc") as gateway:
            one, two = (asyncio.create_task(gateway.inspect(camera="top", deadline_ms=DEADLINE_MS)) for _ in range(2))
            await asyncio.to_thread(service.until, lambda: len(service.station.triggers) == 2)
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
            service.release()
            assert (await two).accepted

    asyncio.run(scene())


def test_records_are_read_stored_and_acknowledged_and_the_next_reader_goes_on(service: ServiceSide) -> None:
    service.record(*(make_record(seq) for seq in range(1, 21)))
    with RecordStream(service.endpoint, "store") as stream:
        records = iter(stream)
        for seq in range(1, 13):
            record = next(records)
            assert record.seq == seq
            stream.ack(record)
    service.until(lambda: service.station.cursors.get("store") == 12)
    with RecordStream(service.endpoint, "store") as stream:
        assert next(iter(stream)).seq == 13


def test_a_reader_that_acknowledges_nothing_gets_no_more_than_the_window(service: ServiceSide) -> None:
    service.record(*(make_record(seq) for seq in range(1, 21)))
    with RecordStream(service.endpoint, "store") as stream:
        records = iter(stream)
        assert [next(records).seq for _ in range(service.station.window)] == list(range(1, 9))
        with pytest.raises(ConfigError, match="record 9"):
            stream.ack(9)
        stream.ack(8)
        assert next(records).seq == 9


def test_a_restart_in_the_middle_of_the_stream_loses_and_doubles_nothing(service: ServiceSide) -> None:
    service.record(*(make_record(seq) for seq in range(1, 6)))
    got: list[int | None] = []
    with RecordStream(service.endpoint, "store") as stream:
        for record in stream:
            got.append(record.seq)
            if record.seq == 3:
                service.restart()
                service.record(*(make_record(seq) for seq in range(6, 11)))
            stream.ack(record)
            if record.seq == 10:
                break
    assert got == list(range(1, 11))


def test_a_lost_record_is_asked_for_again(service: ServiceSide) -> None:
    lost: list[Record] = []

    def lose(header: object) -> bool:
        if isinstance(header, Record) and header.seq == 2 and not lost:
            lost.append(header)
            return True
        return False

    service.lose = lose
    service.copies = 2
    service.record(*(make_record(seq) for seq in range(1, 5)))
    with RecordStream(service.endpoint, "store") as stream:
        records = iter(stream)
        assert [next(records).seq for _ in range(4)] == [1, 2, 3, 4]
    assert len(lost) == 1


def test_removed_records_are_told_in_their_place(service: ServiceSide) -> None:
    service.record(*(make_record(seq) for seq in range(1, 11)))
    service.station.oldest = 6
    told: list[Gap] = []
    with RecordStream(service.endpoint, "store", on_gap=told.append) as stream:
        assert next(iter(stream)).seq == 6
    assert [(gap.first, gap.last) for gap in told] == [(1, 5)]


def test_a_reader_without_name_reads_from_now_on(service: ServiceSide) -> None:
    service.record(make_record(1), make_record(2))
    with RecordStream(service.endpoint) as stream:
        service.until(lambda: stream.connected)
        service.record(make_record(3))
        record = next(iter(stream))
        assert record.seq == 3
        with pytest.raises(ConfigError, match="name"):
            stream.ack(record)


def test_a_reader_ahead_of_the_journal_is_told_so(service: ServiceSide) -> None:
    with RecordStream(service.endpoint, "store", last_acked=5) as stream, pytest.raises(ConfigError, match="store"):
        next(iter(stream))


def test_closing_the_stream_from_elsewhere_ends_the_iteration(service: ServiceSide) -> None:
    stream = RecordStream(service.endpoint, "store")
    threading.Timer(0.2, stream.close).start()
    assert list(stream) == []


def test_the_asyncio_reader_reads_the_same_records(service: ServiceSide) -> None:
    service.record(*(make_record(seq) for seq in range(1, 13)))

    async def scene() -> list[int | None]:
        got: list[int | None] = []
        async with AsyncRecordStream(service.endpoint, "store") as stream:
            async for record in stream:
                got.append(record.seq)
                stream.ack(record)
                if record.seq == 12:
                    break
        return got

    assert asyncio.run(scene()) == list(range(1, 13))
    service.until(lambda: service.station.cursors.get("store") == 12)


def test_control_asks_once_and_takes_the_reply_that_belongs_to_it(service: ServiceSide) -> None:
    service.handler = lambda request: Reply(id=request.id, ok=True, detail="", result={"station": "line-1"})
    service.copies = 2
    service.garbage = [b"junk"]
    with Control(service.endpoint, actor="me") as control:
        assert control.status() == {"station": "line-1"}
        control.stage("part.takt", camera="top")
    (stage,) = [request for request in service.requests if request.command == "stage"]
    assert stage.arguments == {"camera": "top", "bundle": str(Path("part.takt").absolute())}
    assert stage.actor == "me"


def test_a_command_that_fails_says_why(service: ServiceSide) -> None:
    service.handler = lambda request: Reply(
        id=request.id, ok=request.command == "status", detail="nothing is staged", result={}
    )
    with Control(service.endpoint) as control, pytest.raises(ServiceError, match="nothing is staged"):
        control.activate()


def test_a_reply_to_another_request_is_not_taken(service: ServiceSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.clients.control.ASK_S", 0.3)
    service.handler = lambda _: Reply(id="f" * 32, ok=True, detail="", result={})
    with Control(service.endpoint) as control, pytest.raises(ServiceError, match="no reply"):
        control.status()


def test_what_a_gateway_imports_brings_no_inference_engine_and_inspector_is_still_exported() -> None:
    code = """
import sys
from edge_runtime.clients import Gateway
from edge_runtime import Frame, PixelFormat
heavy = {"openvino", "onnxruntime", "torch", "asyncua", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from edge_runtime import Inspector
assert "edge_runtime.inspector" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_process_that_forgets_to_close_ends_all_the_same(service: ServiceSide) -> None:
    code = f"""
from edge_runtime.clients import Gateway, RecordStream
gateway = Gateway({service.endpoint!r}, name="careless")
stream = RecordStream({service.endpoint!r}, "careless")
print(gateway.inspect(camera="top", part_id="good", deadline_ms=20000).accepted)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_queued_alone_is_no_answer(service: ServiceSide, gateway: Gateway) -> None:
    assert inspect(gateway).accepted
    service.lose = lambda header: not isinstance(header, Queued)
    result = inspect(gateway, deadline_ms=150)
    assert (result.accepted, result.silent) == (False, True)
    assert "took the trigger" in result.detail


def test_a_fault_inside_the_client_costs_no_more_than_the_part_at_hand(
    service: ServiceSide, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert inspect(gateway).accepted

    def broken(*_: object) -> None:
        message = "a fault for the test"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr("edge_runtime.clients.session.Session.receive", broken)
        assert inspect(gateway, deadline_ms=200).silent
    assert "a fault for the test" in caplog.text
    assert inspect(gateway).accepted
    assert len(service.station.answers) == 3


def test_a_trigger_that_the_io_thread_never_sees_is_silence_once_and_for_all(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = inspect(gateway)
    monkeypatch.setattr("edge_runtime.clients.link.Link.post", lambda *_: None)
    pending = gateway.trigger(camera="top", deadline_ms=10)
    result = pending.wait()
    assert (result.accepted, result.silent) == (False, True)
    pending.settle(accepted)
    assert pending.wait() is result


def test_the_same_holds_for_asyncio(service: ServiceSide, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> Inspected:
        async with AsyncGateway(service.endpoint, name="plc") as gateway:
            monkeypatch.setattr("edge_runtime.clients.link.Link.post", lambda *_: None)
            return await gateway.inspect(camera="top", deadline_ms=10)

    assert asyncio.run(scene()).silent
