"""The wall clock may jump by an hour while parts run: answers stay in time, in order, and right."""

from pathlib import Path

import pytest
from support.line import Line
from support.raw import paint, painted, wires

from edge_runtime.decision import Verdict

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime: `apt-get install faketime`")
@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_a_clock_that_jumps_by_an_hour_changes_no_answer(stub: Path, tmp_path: Path, step: str) -> None:
    assert LIBRARY is not None
    stamp = tmp_path / "time"
    stamp.write_text("+0", encoding="ascii")
    environment = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    top = {"name": "top", "bundle": str(stub), "source": f"folder:{paint(tmp_path / 'images', 50, 200)}"}
    line = Line(tmp_path / "line", top, {"name": "given", "bundle": str(stub), "source": "client"})
    try:
        line.start(env=environment)
        with wires(line.port) as bench:
            client, consumer = bench.client(), bench.consumer("mes")
            before = [client.inspect(deadline_ms=20_000) for _ in range(4)]
            open_trigger = client.send("given", "early", value=60, deadline_ms=600_000)
            client.answer(open_trigger)
            set_clock(stamp, step)
            after = [client.inspect(deadline_ms=20_000) for _ in range(8)]
            labels = {answer.decided_utc[:13] for answer in (before[-1], after[-1])}
            assert len(labels) == 2, "the service's clock did not jump: nothing was shown"
            for answer in (*before, *after):
                value = painted(answer.label)
                assert answer.score == value
                assert answer.verdict is (Verdict.REJECT if value >= 128 else Verdict.ACCEPT)
                assert not answer.expired
                assert answer.timings_ms.total is not None
                assert 0 <= answer.timings_ms.total < 20_000
            again = client.inspect("given", "early", value=60, deadline_ms=600_000)
            assert not again.expired  # its deadline is on the monotonic clock
            short = client.inspect("given", "late", value=60, deadline_ms=300)
            bench.pump(0.5)
            late = client.inspect("given", "late", value=60, deadline_ms=300)
            assert (short.trigger_id, late.expired) == ("late", True)
            newest = (line.status() or {})["journal"]["newest_seq"]
            consumer.read(newest)
            assert consumer.seqs == list(range(1, newest + 1))
            status = line.status() or {}
            assert status["ready"]
            assert 0 < status["uptime_s"] < 3000
            assert status["epoch"] == 1  # nobody was taken for dead
        line.end()  # by SIGKILL: under libfaketime short sleeps fail, as `subprocess` takes them while it waits for an end
        line.start()  # a journal that was written in the future or the past is none the worse
        assert (line.status() or {})["journal"]["newest_seq"] == newest
    finally:
        line.end()


def set_clock(stamp: Path, step: str) -> None:
    """Step the service's wall clock, in one instant."""
    draft = stamp.with_suffix(".new")
    draft.write_text(step, encoding="ascii")
    draft.replace(stamp)
