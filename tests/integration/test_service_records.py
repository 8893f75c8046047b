"""The record stream: everything, in order, once; whatever a consumer does, it costs nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.line import Line, serving, until
from support.raw import Client, Consumer, Wires, wires

from edge_runtime.protocol.messages import Ack, Code, ConsumerHello, ConsumerWelcome, Gap, Refused

WINDOW = 256


@pytest.fixture(scope="module")
def line(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One camera whose frames come with the trigger."""
    folder = tmp_path_factory.mktemp("records")
    with serving(folder, {"name": "given", "bundle": str(stub), "source": "client", "slots": 16}) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def newest(line: Line) -> int:
    """The last record of the journal."""
    return int((line.status() or {})["journal"]["newest_seq"])


def fill(client: Client, count: int) -> list[int]:
    """So many answered triggers; their numbers in the record stream. No frame, no work: NO_FRAME is a record, too."""
    triggers = [client.send("given", deadline_ms=60_000) for _ in range(count)]
    return sorted(client.answer(trigger).seq or 0 for trigger in triggers)


def test_records_are_the_answers_in_the_order_of_their_numbers(bench: Wires, line: Line) -> None:
    consumer = bench.consumer("order", last_acked=newest(line))
    client = bench.client()
    answers = {answer.seq: answer for answer in (client.inspect("given", value=value) for value in (40, 200, 255, 50))}
    records = consumer.read(max(seq or 0 for seq in answers))
    assert [record.seq for record in records] == sorted(seq or 0 for seq in answers)
    for record in records:
        answer = answers[record.seq]
        same = answer.model_copy(update={"timings_ms": record.timings_ms}).model_dump()
        assert record.model_dump() == same
        assert not record.replayed


def test_a_consumer_gets_all_once_over_any_number_of_connections(bench: Wires, line: Line) -> None:
    start = last = newest(line)
    client = bench.client()
    consumer, got = bench.consumer("mes", last_acked=start), []
    for _ in range(4):
        fill(client, 20)
        consumer.read(last + 1)
        got += consumer.seqs
        last = got[-1]
        consumer.close()  # whatever comes now is lost with the connection
        fill(client, 5)
        before, consumer = consumer, Consumer(bench, "mes")
        consumer.instance = before.instance
        consumer.enter(last)
    consumer.read(newest(line))
    got += consumer.seqs
    assert got == list(range(start + 1, newest(line) + 1))


def test_what_was_decided_before_the_consumer_came_is_marked_replayed(bench: Wires, line: Line) -> None:
    start = newest(line)
    client = bench.client()
    old = fill(client, 5)
    consumer = bench.consumer("late", last_acked=start)
    consumer.read(old[-1])
    new = fill(client, 5)
    consumer.read(new[-1])
    assert [(record.seq, record.replayed) for record in consumer.records] == [
        *((seq, True) for seq in old),
        *((seq, False) for seq in new),
    ]


def test_far_more_than_the_window_is_replayed_from_the_disk(bench: Wires, line: Line) -> None:
    fill(bench.client(), 4 * WINDOW)
    consumer = bench.consumer("archive", last_acked=0)
    consumer.read(newest(line))
    assert consumer.seqs == list(range(1, newest(line) + 1))


def test_an_acknowledgement_is_the_cursor_that_the_next_one_starts_from(bench: Wires, line: Line) -> None:
    consumer = bench.consumer("cursor", last_acked=newest(line))
    seqs = fill(bench.client(), 10)
    consumer.read(seqs[-1])
    bench.until(lambda: cursor(line, "cursor") == seqs[-1], "the cursor to be written")
    consumer.close()
    more = fill(bench.client(), 3)
    again = Consumer(bench, "cursor")
    bench.until(lambda: isinstance(again.hello(), ConsumerWelcome), "the name to be free")
    again.read(more[-1])
    assert again.seqs == more
    assert all(record.replayed for record in again.records)


def cursor(line: Line, name: str) -> int | None:
    """How far a consumer is, in status."""
    consumers = (line.status() or {})["journal"]["consumers"]
    return next((int(found["acked"]) for found in consumers if found["name"] == name), None)


def test_a_consumer_may_go_back_to_where_its_own_store_stands(bench: Wires, line: Line) -> None:
    fill(bench.client(), 10)
    consumer = bench.consumer("restored")
    consumer.read(newest(line))
    again = Consumer(bench, "restored")
    again.instance = consumer.instance
    consumer.close()
    again.enter(newest(line) - 5)
    again.read(newest(line))
    assert again.seqs == list(range(newest(line) - 4, newest(line) + 1))


def test_a_cursor_from_another_journal_is_refused(bench: Wires, line: Line) -> None:
    consumer = Consumer(bench, "foreign")
    refused = consumer.hello(newest(line) + 1)
    assert isinstance(refused, Refused)
    assert refused.code is Code.CURSOR_AHEAD
    assert str(newest(line)) in refused.detail
    assert isinstance(consumer.hello(newest(line)), ConsumerWelcome)


def test_a_name_belongs_to_one_live_consumer(bench: Wires) -> None:
    bench.consumer("single")
    refused = Consumer(bench, "single").hello()
    assert isinstance(refused, Refused)
    assert refused.code is Code.NAME_IN_USE


def test_who_has_no_name_gets_what_comes_and_keeps_no_cursor(bench: Wires, line: Line) -> None:
    before = known(line)
    watchers = [bench.consumer(None), bench.consumer(None)]
    seqs = fill(bench.client(), 2 * WINDOW)
    for watcher in watchers:
        watcher.read(seqs[-1])
        assert watcher.seqs == seqs
    assert known(line) == before


def known(line: Line) -> list[str]:
    """Names of the consumers that have a cursor."""
    return [consumer["name"] for consumer in (line.status() or {})["journal"]["consumers"]]


@pytest.mark.parametrize("seq", [0, 2**40, 2**63 - 1])
def test_an_acknowledgement_of_what_was_not_sent_changes_nothing(bench: Wires, line: Line, seq: int) -> None:
    name = f"boast-{seq}"
    consumer = bench.consumer(name, last_acked=newest(line))
    consumer.acks = False
    before = cursor(line, name)
    consumer.say(Ack(seq=seq))
    seqs = fill(bench.client(), 3)
    consumer.read(seqs[-1])
    assert consumer.seqs == seqs
    assert cursor(line, name) == before


def test_a_consumer_that_never_acknowledges_gets_its_window_and_no_more(bench: Wires, line: Line) -> None:
    lazy = bench.consumer("lazy", last_acked=newest(line))
    lazy.acks = False
    diligent = bench.consumer("diligent", last_acked=newest(line))
    start = newest(line)
    seqs = fill(bench.client(), WINDOW + 50)
    diligent.read(seqs[-1])
    assert diligent.seqs == seqs
    bench.pump(0.6)  # over a heartbeat, which would feed it
    assert lazy.seqs == list(range(start + 1, start + WINDOW + 1))


def resident_kb(pid: int) -> int:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.slow
def test_a_subscriber_that_never_reads_costs_neither_memory_nor_anybody_else(stub: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"}) as line,
        wires(line.port) as bench,
    ):
        broker, client = line.pid("broker"), bench.client()
        fill(client, 500)
        for name in (None, "deaf"):
            deaf = Consumer(bench, name, deaf=True)
            deaf.say(ConsumerHello(name=name, instance=deaf.instance))
            deaf.epoch = 1  # it is welcome and lives on: its heartbeats come
        diligent = bench.consumer("diligent", last_acked=newest(line))
        before = resident_kb(broker)
        for _ in range(4):
            diligent.read(fill(client, 500)[-1])
        assert diligent.seqs == list(range(501, 2501))
        assert resident_kb(broker) - before < 30_000
        assert client.inspect("given", value=60).score == 60


def test_cursors_survive_a_restart_of_the_service(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, {"name": "given", "bundle": str(stub), "source": "client"}) as line:
        with wires(line.port) as bench:
            client, consumer = bench.client(), bench.consumer("mes")
            fill(client, 5)
            consumer.read(5)
            until(lambda: cursor(line, "mes") == 5, "the cursor")
            consumer.acks = False
            fill(client, 3)
        line.stop()
        line.start()
        with wires(line.port) as bench:
            consumer = bench.consumer("mes")
            consumer.read(8)
            assert consumer.seqs == [6, 7, 8]
            assert all(record.replayed for record in consumer.records)
            assert consumer.all_heard(Gap) == []
            assert fill(bench.client(), 1) == [9]
