"""The judge of the kill campaigns is judged: each violation planted in otherwise clean evidence is found, and only that."""

import copy
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.evidence import Evidence, Row, read_journal
from faults.ledger import Ledger, read_ledger
from faults.parts import name_part, truth_of
from faults.verify import Findings, verify

Plant = Callable[[Evidence], object]
MS = 1_000_000
KILL_MS, RECOVERED_MS = 20_000, 21_000


def answer_to(trigger: dict[str, Any], client: str, value: int, seq: int | None) -> dict[str, Any]:
    """The true answer."""
    truth = truth_of(value)._asdict()
    told = {"client": client, "epoch": 1, "seq": seq, "journaled": seq is not None, "label": None, "counter": 1}
    shared = {name: trigger[name] for name in ("trigger_id", "camera", "part_id", "deadline_ms")}
    marks = {"bundle": "b", "detail": "", "timings_ms": {}, "expired": False, "replayed": False}
    return {**shared, **told, **truth, **marks}


def evidence() -> Evidence:
    """Two clients with a good, a defective and a white part each, two readers, one kill of the broker long after."""
    clients, rows = {}, []
    for role, client in (("raw", "plain"), ("library", "gateway")):
        lines = [{"did": "start", "at": 0, "role": role}]
        for number, value in enumerate((60, 200, 255)):
            name = f"{client}-{number}"
            trigger = {"trigger_id": name, "camera": "top", "part_id": name_part(value, name), "deadline_ms": 500}
            answer = answer_to(trigger, client, value, len(rows) + 1)
            at = (1000 * number + 1000) * MS
            accepted = value == 60 if role == "library" else None
            rows.append(Row(seq=len(rows) + 1, key=(client, 1, name), arrived=1, body=copy.deepcopy(answer)))
            lines += [
                {"did": "sent", "at": at, "trigger": trigger, "value": value},
                {"did": "queued", "at": at + MS, "epoch": 1, "trigger_id": name},
                {"did": "answer", "at": at + 30 * MS, "silent": False, "accepted": accepted, "answer": answer},
            ]
        clients[client] = [*lines, {"did": "end", "at": 30_000 * MS}]
    records = [{"did": "record", "at": 0, "record": copy.deepcopy(row.body)} for row in rows]
    readers = {name: [*copy.deepcopy(records), {"did": "end", "at": 0}] for name in ("one", "two")}
    kill = {"did": "kill", "at": KILL_MS * MS, "kind": "broker", "name": "broker", "scope": None}
    campaign = [kill, {"did": "recovered", "at": RECOVERED_MS * MS}]
    return Evidence(clients=clients, readers=readers, campaign=campaign, rows=rows, open_keys=[])


def told(found: Evidence, client: str, number: int) -> dict[str, Any]:
    """The ledger's line of an answer."""
    lines = [line for line in found.clients[client] if line["did"] == "answer"]
    return lines[number]


def unite(found: Evidence, client: str, number: int, **fields: object) -> None:
    """Change what everybody says of a trigger: client, journal and readers."""
    answer = told(found, client, number)["answer"]
    answer.update(fields)
    found.rows[answer["seq"] - 1].body.update(fields)
    for lines in found.readers.values():
        lines[answer["seq"] - 1]["record"].update(fields)


def drop(found: Evidence, client: str, number: int) -> None:
    found.clients[client].remove(told(found, client, number))


def drop_everywhere(found: Evidence, client: str, number: int) -> None:
    """Remove the last trigger's record from the journal and from all readers."""
    seq = told(found, client, number)["answer"]["seq"]
    del found.rows[seq - 1]
    for lines in found.readers.values():
        del lines[seq - 1]


def silence(found: Evidence, number: int, **fields: object) -> None:
    """The library's own result instead of an answer."""
    line = told(found, "gateway", number)
    line["at"] += 470 * MS
    line.update(silent=True, accepted=False)
    line["answer"].update(verdict="ERROR", reason="TIMEOUT", score=None, seq=None, journaled=False, epoch=0, **fields)
    found.clients["gateway"] = [line for line in found.clients["gateway"] if line["did"] != "queued"]


def move(found: Evidence, client: str, number: int, to_ms: int) -> None:
    """Let a trigger have been sent at another time."""
    line = told(found, client, number)
    sent = next(
        other
        for other in found.clients[client]
        if other["did"] == "sent" and other["trigger"]["trigger_id"] == line["answer"]["trigger_id"]
    )
    line["at"] += to_ms * MS - sent["at"]
    sent["at"] = to_ms * MS


def repeat(found: Evidence, client: str, number: int, **fields: object) -> None:
    """Tell an answer once more."""
    line = copy.deepcopy(told(found, client, number))
    line["answer"].update(fields)
    found.clients[client].insert(-1, line)


def add_row(found: Evidence, key: tuple[str, int, str], **fields: object) -> None:
    """One more record, which everybody got."""
    seq = len(found.rows) + 1
    client, epoch, name = key
    body = {**found.rows[0].body, "client": client, "epoch": epoch, "trigger_id": name, "seq": seq, **fields}
    found.rows.append(Row(seq=seq, key=key, arrived=key[1], body=body))
    for lines in found.readers.values():
        lines.insert(-1, {"did": "record", "at": 0, "record": copy.deepcopy(body)})


def kinds(findings: Findings) -> set[str]:
    return {violation.kind for violation in findings.violations}


def unjournaled(found: Evidence, journal: str) -> None:
    """A client was told ERROR/JOURNAL; the journal holds this reason."""
    unite(found, "plain", 1, verdict="ERROR", score=None, reason=journal)
    told(found, "plain", 1)["answer"].update(reason="JOURNAL", seq=None, journaled=False)
    found.campaign.append({"did": "stall", "start": 2000 * MS, "at": 2100 * MS})


PLANTED: list[tuple[str, str, Plant]] = [
    ("a raw client never got an answer", "unanswered", lambda e: drop(e, "plain", 0)),
    ("a user of the library never got a result", "unanswered", lambda e: drop(e, "gateway", 0)),
    ("a trigger in the journal has no verdict", "unanswered", lambda e: e.open_keys.append(("plain", 1, "plain-9"))),
    (
        "a confirmed trigger is not in the journal",
        "unanswered",
        lambda e: e.clients["plain"].insert(1, {"did": "queued", "at": 0, "epoch": 1, "trigger_id": "plain-9"}),
    ),
    (
        "a trigger was refused",
        "unanswered",
        lambda e: e.clients["plain"].insert(1, {"did": "refused", "refused": {"code": "BAD_MESSAGE"}}),
    ),
    (
        "silence without a kill, and the journal knows nothing",
        "unanswered",
        lambda e: (drop_everywhere(e, "gateway", 2), silence(e, 2)),
    ),
    ("the library gave two results", "doubled", lambda e: repeat(e, "gateway", 0)),
    ("a repeat says something else", "doubled", lambda e: repeat(e, "plain", 0, score=61.0)),
    ("a repeat has another place in the stream", "doubled", lambda e: repeat(e, "plain", 0, seq=9)),
    ("an answer for nobody", "doubled", lambda e: repeat(e, "plain", 0, trigger_id="plain-9")),
    ("two records of one trigger", "doubled", lambda e: add_row(e, ("plain", 1, "plain-0"))),
    (
        "the journal has the other verdict",
        "contradicted",
        lambda e: e.rows[0].body.update(verdict="ERROR", reason="TIMEOUT", score=None),
    ),
    (
        "a reader was told another score",
        "contradicted",
        lambda e: e.readers["one"][1]["record"].update(score=201.0),
    ),
    ("the answer is of another part", "contradicted", lambda e: unite(e, "plain", 1, part_id="d200-other")),
    ("the answer is of another camera", "contradicted", lambda e: unite(e, "plain", 1, camera="bottom")),
    ("a record of a trigger that nobody sent", "contradicted", lambda e: add_row(e, ("plain", 1, "plain-9"))),
    (
        "the record's body speaks of another trigger",
        "contradicted",
        lambda e: e.rows.__setitem__(0, Row(seq=1, key=("plain", 1, "plain-9"), arrived=1, body=e.rows[0].body)),
    ),
    (
        "an answer that is in no journal",
        "contradicted",
        lambda e: (drop_everywhere(e, "gateway", 2), e.clients["gateway"].remove(e.clients["gateway"][8])),
    ),
    ("told ERROR/JOURNAL, journalled a verdict", "contradicted", lambda e: unjournaled(e, "TIMEOUT")),
    (
        "a verdict that was not journalled",
        "contradicted",
        lambda e: told(e, "plain", 0)["answer"].update(journaled=False),
    ),
    ("a hole in the journal", "lost", lambda e: e.rows.pop(2)),
    ("a reader lacks a record", "lost", lambda e: e.readers["two"].pop(2)),
    ("a reader has a record twice", "lost", lambda e: e.readers["two"].insert(2, e.readers["two"][2])),
    ("a reader has records out of order", "lost", lambda e: e.readers["two"].insert(2, e.readers["two"].pop(3))),
    ("a reader was told of a gap", "lost", lambda e: e.readers["two"].insert(2, {"did": "gap", "first": 1, "last": 2})),
    ("a defective part was accepted", "escaped", lambda e: unite(e, "plain", 1, verdict="ACCEPT")),
    ("a defective part was accepted on record alone", "escaped", lambda e: e.rows[1].body.update(verdict="ACCEPT")),
    ("the gate opened for a reject", "escaped", lambda e: told(e, "gateway", 1).update(accepted=True)),
    ("the gate opened too late", "escaped", lambda e: told(e, "gateway", 0)["answer"].update(expired=True)),
    ("a good part was rejected", "wrong", lambda e: unite(e, "plain", 0, verdict="REJECT")),
    ("another part's score", "wrong", lambda e: unite(e, "plain", 0, score=61.0)),
    (
        "another part's score, amid a kill",
        "wrong",
        lambda e: (move(e, "plain", 0, KILL_MS), unite(e, "plain", 0, score=61.0)),
    ),
    (
        "an error without need",
        "wrong",
        lambda e: unite(e, "plain", 0, verdict="ERROR", reason="WORKER_LOST", score=None),
    ),
    (
        "an error of another camera's kill",
        "wrong",
        lambda e: (
            move(e, "plain", 0, KILL_MS),
            e.campaign[0].update(scope="bottom"),
            unite(e, "plain", 0, verdict="ERROR", reason="NO_FRAME", score=None),
        ),
    ),
    (
        "a lost worker while the machine stood still",
        "wrong",
        lambda e: (
            e.campaign.append({"did": "stall", "start": 1000 * MS, "at": 1300 * MS}),
            unite(e, "plain", 0, verdict="ERROR", reason="WORKER_LOST", score=None),
        ),
    ),
    (
        "a score that is not finite",
        "wrong",
        lambda e: unite(e, "plain", 0, verdict="ERROR", reason="NOT_FINITE", score=None),
    ),
    (
        "a trigger of an epoch that was over was inspected",
        "wrong",
        lambda e: e.rows.__setitem__(0, replace(e.rows[0], arrived=2)),
    ),
    ("a start that failed", "service", lambda e: e.campaign.append({"did": "fault", "what": "exit code 1"})),
    ("a checker that did not end", "service", lambda e: e.clients["plain"].pop()),
]


def test_one_late_answer_that_nothing_excuses_is_a_violation() -> None:
    found = evidence()
    unite(found, "plain", 1, verdict="ERROR", reason="TIMEOUT", score=None)
    assert [violation.kind for violation in verify(found).violations] == ["wrong"]


def test_clean_evidence_has_no_violation() -> None:
    assert verify(evidence()).violations == []


@pytest.mark.parametrize(("kind", "plant"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_a_planted_violation_is_found(kind: str, plant: Plant) -> None:
    found = evidence()
    plant(found)
    assert kind in kinds(verify(found))


EXCUSED: list[tuple[str, Plant]] = [
    (
        "an error amid a kill",
        lambda e: (move(e, "plain", 0, KILL_MS), unite(e, "plain", 0, verdict="ERROR", reason="RESTART", score=None)),
    ),
    (
        "a timeout while the machine stood still",
        lambda e: (
            e.campaign.append({"did": "stall", "start": 1000 * MS, "at": 1300 * MS}),
            unite(e, "plain", 0, verdict="ERROR", reason="TIMEOUT", score=None),
        ),
    ),
    (
        "silence amid a kill, and the journal knows nothing",
        lambda e: (drop_everywhere(e, "gateway", 2), move(e, "gateway", 2, KILL_MS), silence(e, 2)),
    ),
    (
        "a raw client is told again in the same words",
        lambda e: repeat(e, "plain", 0, expired=True, timings_ms={"total": 9.0}),
    ),
    ("told ERROR/JOURNAL, journalled the same", lambda e: unjournaled(e, "JOURNAL")),
    ("told ERROR/JOURNAL, journalled a restart", lambda e: unjournaled(e, "RESTART")),
]


@pytest.mark.parametrize("plant", [row[1] for row in EXCUSED], ids=[row[0] for row in EXCUSED])
def test_what_a_kill_explains_is_no_violation(plant: Plant) -> None:
    found = evidence()
    plant(found)
    assert verify(found).violations == []


def test_a_killed_user_of_the_library_is_owed_no_result_for_what_it_did_not_live_to_see() -> None:
    found = evidence()
    drop(found, "gateway", 2)
    lines = found.clients["gateway"]
    lines[-1:] = [{"did": "start", "at": 40_000 * MS, "role": "library"}, {"did": "end", "at": 50_000 * MS}]
    assert verify(found).violations == []
    lines.insert(-2, {"did": "welcome", "at": 3000 * MS + 1600 * MS})  # it lived past the deadline
    assert kinds(verify(found)) == {"unanswered"}


def test_a_ledger_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).put("start")
    with path.open("ab") as file:
        file.write(b'{"did": "se')
    again = Ledger(path)
    again.put("sent", number=2)
    assert [line["did"] for line in again.earlier] == ["start"]
    assert [line["did"] for line in read_ledger(path)] == ["start", "sent"]


def test_the_journal_is_read_as_its_database_has_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE triggers (id INTEGER PRIMARY KEY, client, epoch, trigger_id, arrived)")
        database.execute("CREATE TABLE verdicts (seq INTEGER PRIMARY KEY, trigger_row, body)")
        database.executemany("INSERT INTO triggers VALUES (?, 'plc', 1, ?, 2)", [(1, "a"), (2, "b"), (3, "c")])
        bodies = [(2, None), (1, 2), (3, 1)]
        database.executemany("INSERT INTO verdicts VALUES (?, ?, ?)", [(*row, json.dumps({})) for row in bodies])
        database.commit()
    rows, still_open = read_journal(path)
    assert [(row.seq, row.key) for row in rows] == [(1, ("plc", 1, "b")), (2, None), (3, ("plc", 1, "a"))]
    assert [row.arrived for row in rows] == [2, None, 2]
    assert still_open == [("plc", 1, "c")]
