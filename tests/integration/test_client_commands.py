"""`takt trigger`, `watch`, `status` and `control` as processes of their own, against a service over real sockets."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pytest
from pydantic import JsonValue
from support.service_side import ServiceSide, serving
from support.station import make_record

from edge_runtime.clients import ServiceError
from edge_runtime.clients.station import read_station
from edge_runtime.commands.status import screen
from edge_runtime.decision import Reason, Verdict
from edge_runtime.protocol.endpoints import Endpoints
from edge_runtime.protocol.messages import Answer, Reply

TAKT = Path(sys.executable).parent / "takt"
KEYS = [
    "trigger_id",
    "part_id",
    "camera",
    "epoch",
    "seq",
    "verdict",
    "reason",
    "score",
    "threshold",
    "score_normalized",
    "replayed",
    "expired",
    "journaled",
    "latency_ms",
    "timings_ms",
]

STATUS: dict[str, JsonValue] = {
    "station": "line-1",
    "state": "Error",
    "reason": "camera side: no such folder",
    "ready": False,
    "epoch": 4,
    "uptime_s": 93784.0,
    "pid": {"supervisor": 10, "broker": 11},
    "cameras": [
        {
            "name": "top",
            "source": "folder:/parts",
            "trigger": "software",
            "ok": True,
            "detail": "",
            "pid": 12,
            "ready": True,
            "open": 2,
            "exposures": 1234,
            "dropped": 3,
            "bundle": {"product": "flange", "digest": "ab" * 32, "path": "/b/flange.takt", "artefact": "openvino-f32"},
            "staged": {"product": "flange-2", "digest": "cd" * 32, "path": "/b/new.takt", "artefact": "openvino-f32"},
            "previous": None,
            "verdicts": {"ACCEPT": 1200, "REVIEW": 0, "REJECT": 30, "ERROR": 4},
            "reasons": {"TIMEOUT": 4},
            "recent": {"n": 1000, "accept": 0.971, "review": 0.0, "reject": 0.025, "error": 0.004},
            "latency_ms": {
                "infer": {"p50": 31.25, "p90": 40.0, "p99": 55.5, "max": 90.0, "n": 1000},
                "total": {"p50": 45.0, "p90": 52.0, "p99": 70.0, "max": 101.5, "n": 1000},
                "queue": {"p50": None, "p90": None, "p99": None, "max": None, "n": 0},
            },
            "frames": {"late": 1, "unmatched": 0, "refused": 0},
        },
        {
            "name": "side",
            "source": "folder:/gone",
            "trigger": "stream",
            "ok": False,
            "detail": "no such folder",
            "bundle": None,
        },
    ],
    "workers": [{"name": "w0", "pid": 13, "state": "busy", "inspected": 1234, "bundle": "ab" * 32}],
    "journal": {
        "ok": True,
        "detail": "",
        "newest_seq": 1234,
        "open": 2,
        "backlog": 1,
        "bytes": 5 << 20,
        "commit_ms": {"p50": 2.5, "p99": 9.0, "max": 12.0},
        "unjournaled": 0,
        "consumers": [{"name": "mes", "acked": 1200, "behind": 34, "connected": False}],
    },
    "disk": {"free_bytes": 12 << 30, "path": "/run/takt"},
    "peers": {"clients": ["plc-1"], "consumers": [], "cameras": ["top"]},
    "counters": {"malformed": 0, "refused": 7},
}


class Ran(Protocol):
    """What a command left behind."""

    code: int
    out: str
    err: str
    json: dict[str, Any]
    lines: list[dict[str, Any]]


Takt = Callable[..., Ran]


@pytest.fixture
def service() -> Iterator[ServiceSide]:
    """A service that rejects the part `bad`."""
    with serving(verdicts={"bad": Verdict.REJECT}) as running:
        yield running


@pytest.fixture
def nobody(service: ServiceSide) -> str:
    """An endpoint where nothing listens."""
    return Endpoints("127.0.0.1", service.endpoints.port + 4).triggers


def test_a_trigger_prints_the_promised_keys_and_ends_with_0(service: ServiceSide, takt: Takt) -> None:
    ran = takt("trigger", "--endpoint", service.endpoint, "--camera", "top", "--part-id", "bad", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert set(KEYS) <= set(ran.json)
    told = {key: ran.json[key] for key in ("part_id", "camera", "epoch", "verdict", "reason", "accepted", "silent")}
    assert told == {
        "part_id": "bad",
        "camera": "top",
        "epoch": 1,
        "verdict": "REJECT",
        "reason": None,
        "accepted": False,
        "silent": False,
    }
    assert set(ran.json["timings_ms"]) == {"frame", "queue", "preprocess", "infer", "postprocess", "journal", "total"}


def test_a_trigger_for_people_names_verdict_and_part(service: ServiceSide, takt: Takt) -> None:
    ran = takt("trigger", "--endpoint", service.endpoint, "--camera", "top", "--part-id", "A17", "--count", 2)
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 2
    assert all(line.startswith("ACCEPT") and "part A17" in line for line in ran.out.splitlines())


def test_triggers_on_a_schedule_do_not_wait_for_each_others_answers(service: ServiceSide) -> None:
    service.station.hold = True  # nothing is answered until all twenty are there
    flags = ["--deadline-ms", "60000", "--count", "20", "--period-ms", "10", "--json"]
    command = [TAKT, "trigger", "--endpoint", service.endpoint, "--camera", "top", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        service.until(lambda: len(service.station.triggers) == 20)
        service.release()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len({json.loads(line)["trigger_id"] for line in out.splitlines()}) == 20


def test_without_a_period_each_trigger_waits_for_the_last_answer(service: ServiceSide, takt: Takt) -> None:
    in_flight: list[int] = []

    def count(header: object) -> bool:
        if isinstance(header, Answer):
            in_flight.append(len(service.station.triggers))
        return False

    service.delay_s = 0.05
    service.lose = count
    ran = takt("trigger", "--endpoint", service.endpoint, "--camera", "top", "--deadline-ms", 20_000, "--count", 4)
    assert ran.code == 0
    assert in_flight == [1, 2, 3, 4]


def test_a_silent_service_ends_with_1_and_a_line_for_every_trigger(nobody: str, takt: Takt) -> None:
    flags = ("--deadline-ms", 50, "--count", 3, "--period-ms", 10, "--json")
    ran = takt("trigger", "--endpoint", nobody, "--camera", "top", *flags)
    assert ran.code == 1
    assert [(line["verdict"], line["reason"], line["silent"]) for line in ran.lines] == [("ERROR", "TIMEOUT", True)] * 3
    assert "3 of 3 without answer" in ran.err
    assert nobody in ran.err


def test_an_error_that_the_service_answers_is_an_answer(service: ServiceSide, takt: Takt) -> None:
    service.station.verdicts["broken"] = Verdict.ERROR
    ran = takt("trigger", "--endpoint", service.endpoint, "--camera", "top", "--part-id", "broken", "--json")
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (0, "ERROR", Reason.ENGINE.value)


def test_a_frame_from_a_file_is_sent_as_rgb(service: ServiceSide, takt: Takt, tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    bgr = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cv2.imwrite(str(path), bgr)
    ran = takt("trigger", "--endpoint", service.endpoint, "--camera", "given", "--frame", path, "--json")
    assert (ran.code, ran.json["verdict"]) == (0, "ACCEPT")
    ((_, pixels, _),) = service.station.triggers.values()
    assert pixels == bgr[:, :, ::-1].tobytes()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--camera", "none"), 2, "top"),
        (("--camera", "bad name"), 2, "camera"),
        (("--camera", "given"), 2, "--frame"),
        (("--camera", "top", "--frame", "PNG"), 2, "--frame"),
        (("--camera", "top", "--frame", "/no/such.png"), 5, "/no/such.png"),
        (("--camera", "top", "--deadline-ms", "0"), 2, "deadline"),
        (("--camera", "top", "--period-ms", "nan"), 2, "period"),
        (("--camera", "top", "--name", "a b"), 2, "name"),
    ],
)
def test_a_users_mistake_is_said_in_one_line_and_sends_nothing(
    service: ServiceSide, takt: Takt, tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    path = tmp_path / "part.png"
    cv2.imwrite(str(path), np.zeros((2, 4, 3), np.uint8))
    ran = takt("trigger", "--endpoint", service.endpoint, *(str(path) if flag == "PNG" else flag for flag in flags))
    assert ran.code == code
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert service.station.sendings == []


def test_watch_prints_records_from_now_on(service: ServiceSide) -> None:
    service.record(make_record(1))
    with subprocess.Popen(
        [TAKT, "watch", "--endpoint", service.endpoint, "--count", "2", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        service.until(lambda: len(service.station.readers) == 1)
        service.record(make_record(2), make_record(3))
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [2, 3]


def test_watch_with_a_name_goes_on_where_it_stopped(service: ServiceSide, takt: Takt) -> None:
    service.record(*(make_record(seq) for seq in range(1, 6)))
    arguments = ("watch", "--endpoint", service.endpoint, "--name", "mes", "--json", "--count")
    assert [line["seq"] for line in takt(*arguments, 3).lines] == [1, 2, 3]
    service.until(lambda: service.station.cursors.get("mes") == 3)
    assert [line["seq"] for line in takt(*arguments, 2).lines] == [4, 5]


def test_watch_for_people_says_what_was_decided_and_what_is_missing(service: ServiceSide, takt: Takt) -> None:
    service.record(make_record(1), make_record(2, verdict=Verdict.ERROR, reason=Reason.TIMEOUT, detail="too slow"))
    service.record(make_record(3))
    service.station.oldest = 2
    ran = takt("watch", "--endpoint", service.endpoint, "--name", "mes", "--count", 2)
    assert ran.code == 0
    assert "records 1 to 1 are missing" in ran.err
    first, second = ran.out.splitlines()
    assert "ERROR" in first
    assert "TIMEOUT  too slow" in first
    assert "part part-3" in second


def test_status_as_json_is_what_the_service_says(service: ServiceSide, takt: Takt) -> None:
    service.handler = lambda request: Reply(id=request.id, ok=True, detail="", result=STATUS)
    ran = takt("status", "--endpoint", service.endpoint, "--json")
    assert (ran.code, ran.json) == (0, STATUS)


def test_status_for_people_begins_with_the_state_and_its_reason(service: ServiceSide, takt: Takt) -> None:
    service.handler = lambda request: Reply(id=request.id, ok=True, detail="", result=STATUS)
    ran = takt("status", "--endpoint", service.endpoint)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "NOT READY  line-1  Error: camera side: no such folder"
    assert ran.out.splitlines() == screen(read_station(STATUS))


@pytest.mark.parametrize(
    "said",
    [
        "up 1 d 2 h, start number 4",
        "side: no such folder",
        "top: 1234 answer(s), 1200 ACCEPT, 30 REJECT, 4 ERROR",
        "last 1000: 97.1 % ACCEPT, 0.0 % REVIEW, 2.5 % REJECT, 0.4 % ERROR",
        "errors: 4 TIMEOUT",
        "frames: 1 late",
        "staged: flange-2 cdcdcdcdcdcd  /b/new.takt",
        "infer  31.2  40.0  55.5  90.0   1000",
        "total  45.0  52.0  70.0  101.5  1000",
        "workers  w0 busy",
        "2 trigger(s) open, 1 answer(s) waiting",
        "newest record 1234, 5.0 MiB",
        "commit 2.5 ms (longest 12.0)",
        "reader mes: acknowledged 1200, 34 behind, not connected",
        "disk     12.0 GiB free at /run/takt",
        "clients  plc-1",
        "counted  7 refused",
    ],
)
def test_the_screen_shows(said: str) -> None:
    lines = screen(read_station(STATUS))
    assert any(said in line for line in lines), "\n".join(lines)


def test_the_screens_camera_table_tells_ready_from_faulty() -> None:
    lines = screen(read_station(STATUS))
    top, side = (next(line for line in lines if line.startswith(name)) for name in ("top ", "side "))
    assert top.split()[3:] == ["ready", "2", "1234", "3", "flange", "abababababab"]
    assert "FAULT" in side


def test_a_status_without_details_still_makes_a_screen_and_nonsense_is_refused() -> None:
    assert screen(read_station({"station": "s", "state": "Ready", "ready": True}))[0] == "READY  s  Ready"
    with pytest.raises(ServiceError, match="cameras"):
        read_station({"station": "s", "state": "Ready", "cameras": 3})


@pytest.mark.parametrize("command", [("status",), ("control", "halt"), ("control", "audit")])
def test_a_service_that_is_not_there_ends_with_1_and_says_where_it_was_looked_for(
    nobody: str, takt: Takt, command: tuple[str, ...]
) -> None:
    ran = takt(command[0], "--endpoint", nobody, *command[1:])
    assert (ran.code, ran.out) == (1, "")
    assert nobody in ran.err
    assert "is the service running" in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "command", "arguments"),
    [
        (("activate",), "activate", {"camera": None}),
        (("activate", "--camera", "top"), "activate", {"camera": "top"}),
        (("rollback",), "rollback", {"camera": None}),
        (("resync", "--camera", "top"), "resync", {"camera": "top"}),
        (("halt",), "halt", {}),
        (("resume",), "resume", {}),
    ],
)
def test_a_control_command_is_asked_as_typed(
    service: ServiceSide, takt: Takt, flags: tuple[str, ...], command: str, arguments: dict[str, object]
) -> None:
    ran = takt("control", "--endpoint", service.endpoint, *flags)
    assert (ran.code, ran.out) == (0, f"{command}: done\n")
    (asked,) = [request for request in service.requests if request.command != "status"]
    assert (asked.command, asked.arguments) == (command, arguments)
    assert "@" in asked.actor


def test_stage_sends_an_absolute_path(service: ServiceSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part.takt").write_bytes(b"sealed elsewhere")
    monkeypatch.chdir(tmp_path)
    command = [TAKT, "control", "--endpoint", service.endpoint, "--json", "stage", "--bundle", "part.takt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert json.loads(done.stdout) == {"ok": True, "detail": "done", "result": {}}
    assert service.requests[-1].arguments == {"camera": None, "bundle": str(tmp_path / "part.takt")}


def test_a_bundle_that_is_not_there_is_said_before_the_service_is_asked(service: ServiceSide, takt: Takt) -> None:
    ran = takt("control", "--endpoint", service.endpoint, "stage", "--bundle", "/no/part.takt")
    assert (ran.code, "/no/part.takt" in ran.err) == (2, True)
    assert service.requests == []


def test_a_command_that_is_not_done_ends_with_1_and_the_services_reason(service: ServiceSide, takt: Takt) -> None:
    service.handler = lambda request: Reply(
        id=request.id, ok=request.command == "status", detail="camera top: nothing is staged", result={}
    )
    ran = takt("control", "--endpoint", service.endpoint, "activate")
    assert (ran.code, "camera top: nothing is staged" in ran.err) == (1, True)


def test_audit_lists_who_did_what(service: ServiceSide, takt: Takt) -> None:
    entries: list[JsonValue] = [
        {"utc": "2026-01-01T00:00:00Z", "actor": "anna@pc", "command": "halt", "detail": "", "ok": True},
        {"utc": "2026-01-01T00:01:00Z", "actor": "ben@pc", "command": "activate", "detail": "none staged", "ok": False},
    ]
    service.handler = lambda request: Reply(id=request.id, ok=True, detail="", result=entries)
    ran = takt("control", "--endpoint", service.endpoint, "audit", "--limit", 2)
    assert ran.out.splitlines() == [
        "ok  2026-01-01T00:00:00Z  anna@pc  halt",
        "NO  2026-01-01T00:01:00Z  ben@pc  activate  none staged",
    ]
    assert service.requests[0].arguments == {"limit": 2}
    assert takt("control", "--endpoint", service.endpoint, "--json", "audit").json == {"audit": entries}
