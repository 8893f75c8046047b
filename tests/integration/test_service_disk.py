"""A full disk under the journal: nothing is accepted that is not on disk, and all is in order when there is room again."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.line import Line, until
from support.raw import wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.messages import Answer


@contextmanager
def small_disk(at: Path) -> Iterator[tuple[str, ...]]:
    """A file system of a few megabytes, in a namespace that lives as long as this; the command that enters it."""
    at.mkdir(parents=True)
    script = f"mount -t tmpfs -o size=24m tmpfs {at} && echo mounted && exec sleep 1000"
    keeper = subprocess.Popen(["unshare", "-rm", "bash", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "mounted\n", "`unshare -rm` and a tmpfs must be permitted"
        yield ("nsenter", f"--target={keeper.pid}", "--user", "--mount", "--preserve-credentials")
    finally:
        keeper.kill()
        keeper.communicate(timeout=10)


def inside(enter: tuple[str, ...], script: str) -> None:
    """Run a shell's line on the small disk."""
    subprocess.run([*enter, "bash", "-c", script], capture_output=True, check=False, timeout=60)


@pytest.mark.slow
def test_a_full_disk_stops_acceptance_and_loses_no_answer(stub: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as enter:
        run_dir = tmp_path / "disk" / "run"
        line = Line(tmp_path / "line", {"name": "given", "bundle": str(stub), "source": "client"}, run_dir=str(run_dir))
        try:
            line.start(prefix=enter)
            _fill_and_free(line, enter, tmp_path)
        finally:
            line.end()


def _fill_and_free(line: Line, enter: tuple[str, ...], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with wires(line.port) as bench:
        client, consumer = bench.client("plc"), bench.consumer("mes")
        answers: list[Answer] = [client.inspect("given", value=50, deadline_ms=5000) for _ in range(3)]
        inside(enter, f"head -c 100M /dev/zero > {disk}/ballast")
        for _ in range(1000):
            answers.append(client.inspect("given", value=50, deadline_ms=5000))
            if not answers[-1].journaled:
                break
        status = line.status() or {}
        assert (status["state"], status["ready"], status["journal"]["ok"]) == ("Error", False, False)
        assert "journal" in status["reason"]
        answers += [client.inspect("given", value=50, deadline_ms=5000) for _ in range(5)]
        for answer in answers[-6:]:
            assert (answer.verdict, answer.reason, answer.journaled) == (Verdict.ERROR, Reason.JOURNAL, False)
            assert answer.seq is None
            assert not answer.expired
        inside(enter, f"rm {disk}/ballast")
        bench.until(lambda: (now := line.status()) and now["ready"] and not now["journal"]["unjournaled"], "Ready")
        answers += [client.inspect("given", value=value, deadline_ms=5000) for value in (60, 200)]
        assert [answer.verdict for answer in answers[-2:]] == [Verdict.ACCEPT, Verdict.REJECT]
        newest = until(lambda: (line.status() or {})["journal"]["newest_seq"], "the last record")
        consumer.read(newest)
        stored = journal(enter, line, tmp_path)
    assert consumer.seqs == list(range(1, newest + 1)) == [record.seq for record in stored]
    assert len(stored) == len(answers)  # each trigger once
    by_id = {record.trigger_id: record for record in stored}
    for record, streamed in zip(stored, consumer.records, strict=True):
        assert (record.trigger_id, record.verdict, record.reason) == (
            streamed.trigger_id,
            streamed.verdict,
            streamed.reason,
        )
    for answer in answers:
        record = by_id[answer.trigger_id]
        assert (record.verdict, record.reason, record.journaled) == (answer.verdict, answer.reason, answer.journaled)


def journal(enter: tuple[str, ...], line: Line, tmp_path: Path) -> list[Answer]:
    """What stands in the journal, copied out of the namespace once the service is down."""
    assert line.stop() == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    archive = subprocess.run(
        [*enter, "tar", "-C", str(tmp_path / "disk" / "run"), "-c", "journal.sqlite"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    subprocess.run(["tar", "-C", str(copy), "-x"], input=archive.stdout, check=True, timeout=60)
    with sqlite3.connect(copy / "journal.sqlite") as connection:
        rows = connection.execute("SELECT seq, body FROM verdicts ORDER BY seq").fetchall()
    return [Answer.model_validate_json(body).model_copy(update={"seq": seq}) for seq, body in rows]
