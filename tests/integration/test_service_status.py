"""Status and logs: all keys that are promised, true figures, and lines that a machine can read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.line import Line, children, frozen, serving
from support.raw import Wires, paint, wires

from edge_runtime.bundle.load import load

STAGES = {"frame", "queue", "preprocess", "infer", "postprocess", "journal", "total"}
KEYS = {
    "": {
        "station", "state", "reason", "ready", "epoch", "uptime_s", "pid", "cameras", "workers", "journal", "disk",
        "peers", "counters",
    },
    "cameras": {
        "name", "source", "trigger", "ok", "detail", "pid", "ready", "open", "exposures", "dropped", "bundle", "staged",
        "previous", "verdicts", "reasons", "recent", "latency_ms", "frames",
    },
    "workers": {"name", "pid", "state", "inspected", "bundle"},
    "journal": {
        "ok", "detail", "newest_seq", "open", "backlog", "bytes", "commit_ms", "unjournaled", "consumers",
    },
    "disk": {"free_bytes", "path"},
    "peers": {"clients", "consumers", "cameras"},
    "pid": {"supervisor", "broker"},
}  # fmt: skip


@pytest.fixture
def line(stub: Path, tmp_path: Path) -> Iterator[Line]:
    """A folder, and a camera whose frames come with the trigger."""
    source = f"folder:{paint(tmp_path / 'images', 50)}"
    top = {"name": "top", "bundle": str(stub), "source": source}
    with serving(tmp_path, top, {"name": "given", "bundle": str(stub), "source": "client"}) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def status(line: Line) -> dict[str, Any]:
    """What the service says of itself."""
    found = line.status()
    assert found is not None
    return found


def test_status_has_every_key_that_is_promised(line: Line) -> None:
    said = status(line)
    for part, keys in KEYS.items():
        for value in [said] if not part else said[part] if isinstance(said[part], list) else [said[part]]:
            assert keys <= set(value), (part, keys - set(value))
    for camera in said["cameras"]:
        assert {"product", "digest", "path", "artefact"} <= set(camera["bundle"])
        assert set(camera["verdicts"]) == {"ACCEPT", "REVIEW", "REJECT", "ERROR"}
        assert set(camera["recent"]) == {"n", "accept", "review", "reject", "error"}
        assert set(camera["latency_ms"]) == STAGES
        assert all(set(figures) == {"p50", "p90", "p99", "max", "n"} for figures in camera["latency_ms"].values())
        assert {"late", "unmatched", "refused"} <= set(camera["frames"])
    assert {"p50", "p99", "max"} <= set(said["journal"]["commit_ms"])


def test_status_of_a_service_that_has_done_nothing_is_true(line: Line, stub: Path) -> None:
    said = status(line)
    assert (said["station"], said["state"], said["ready"], said["epoch"]) == ("test", "Ready", True, 1)
    assert line.process is not None
    assert said["pid"] == {"supervisor": line.process.pid, "broker": line.pid("broker")}
    top, given = said["cameras"]
    assert (top["name"], top["pid"], top["ok"], top["ready"]) == ("top", line.pid("camera"), True, True)
    assert top["source"].startswith("folder:")
    assert (given["source"], given["pid"], given["staged"], given["previous"]) == ("client", None, None, None)
    bundle = load(stub)
    assert (top["bundle"]["digest"], top["bundle"]["product"]) == (bundle.digest, "stub")
    (worker,) = said["workers"]
    assert (worker["pid"], worker["bundle"], worker["state"]) == (line.pid("worker"), bundle.digest, "ready")
    assert len(children(line.process.pid)) == 3
    assert given["recent"]["n"] == said["journal"]["newest_seq"] == 0


def test_status_counts_what_was_answered(bench: Wires, line: Line) -> None:
    client, consumer = bench.client("plc"), bench.consumer("mes")
    for value in (50, 60, 70, 200, 210, 255):
        client.inspect("given", value=value)
    client.inspect("given")
    client.inspect("top", deadline_ms=60_000)
    consumer.read(8)
    bench.until(lambda: status(line)["journal"]["consumers"][0]["acked"] == 8, "the cursor")
    said = status(line)
    top, given = said["cameras"]
    assert given["verdicts"] == {"ACCEPT": 3, "REVIEW": 0, "REJECT": 2, "ERROR": 2}
    assert given["reasons"] == {"NOT_FINITE": 1, "NO_FRAME": 1}
    assert given["recent"] == {
        "n": 7,
        "accept": pytest.approx(3 / 7),
        "review": 0.0,
        "reject": pytest.approx(2 / 7),
        "error": pytest.approx(2 / 7),
    }
    assert {stage: given["latency_ms"][stage]["n"] for stage in ("infer", "total", "journal")} == {
        "infer": 6,
        "total": 7,
        "journal": 7,
    }
    assert given["latency_ms"]["total"]["max"] >= given["latency_ms"]["total"]["p50"] > 0
    assert (top["verdicts"]["ACCEPT"], top["exposures"], top["open"]) == (1, 1, 0)
    assert sum(worker["inspected"] for worker in said["workers"]) == 7
    journal = said["journal"]
    assert (journal["ok"], journal["newest_seq"], journal["open"], journal["unjournaled"]) == (True, 8, 0, 0)
    assert journal["consumers"] == [{"name": "mes", "acked": 8, "behind": 0, "connected": True}]
    assert journal["commit_ms"]["max"] >= journal["commit_ms"]["p50"] > 0
    assert journal["bytes"] > 0
    assert said["disk"]["free_bytes"] > 0
    assert said["peers"] == {"clients": ["plc"], "consumers": ["mes"], "cameras": ["top"]}


def test_status_shows_what_is_in_work(bench: Wires, line: Line) -> None:
    client = bench.client()
    with frozen(line.pid("worker")):
        triggers = [client.send("given", value=50, deadline_ms=60_000) for _ in range(3)]
        said = bench.until(lambda: (now := status(line))["cameras"][1]["open"] == 3 and now, "three open triggers")
        assert said["state"] == "SingleExecution"
        assert said["ready"]
        assert said["workers"][0]["state"] == "busy"
        assert said["cameras"][1]["queued"] == 2
    for trigger in triggers:
        client.answer(trigger)
    assert (status(line)["state"], status(line)["cameras"][1]["open"]) == ("Ready", 0)


def test_every_log_line_is_json_and_answers_can_be_found_by_their_ids(bench: Wires, line: Line) -> None:
    client = bench.client("plc")
    client.inspect("given", "needle-1", value=50)
    client.inspect("given", "needle-2")
    line.stop()
    events = line.events()
    assert all({"event", "level", "utc", "process", "pid"} <= set(event) for event in events)
    answered = {event["trigger_id"]: event for event in events if event["event"] == "answered"}
    assert (answered["needle-1"]["verdict"], answered["needle-1"]["reason"]) == ("ACCEPT", None)
    assert (answered["needle-2"]["verdict"], answered["needle-2"]["reason"]) == ("ERROR", "NO_FRAME")
    assert answered["needle-1"]["client"] == "plc"
    assert {"supervisor", "broker", "camera:top"} <= {event["process"] for event in events}
    names = {event["event"] for event in events}
    assert {"broker_started", "bundle_loaded", "worker_ready", "camera_connected", "client_connected", "state"} <= names
