"""What a campaign left behind, read without the product: ledgers of the checkers, the journal's database, the kills."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]
_NEVER_NS = 2**62
SETTLE_NS = 1_000_000_000  # after Ready, until peers are back and have heard of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A time in which something was just killed; `scope` names the camera or the client that it concerns, or None."""

    start_ns: int
    end_ns: int
    scope: str | None

    def touches(self, start_ns: int, end_ns: int, *scopes: str) -> bool:
        """Whether a trigger of these scopes lay, in part, in it."""
        return (self.scope is None or self.scope in scopes) and start_ns <= self.end_ns and self.start_ns <= end_ns


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A record as the journal's database holds it; `key` is the trigger's own row, not what the body says."""

    seq: int
    key: tuple[str, int, str] | None
    arrived: int | None  # in which epoch the trigger came
    body: Line


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All of it."""

    clients: dict[str, list[Line]]
    readers: dict[str, list[Line]]
    campaign: list[Line]  # kill, recovered, stall, fault
    rows: list[Row]  # by seq
    open_keys: list[tuple[str, int, str]]  # triggers in the journal without a verdict

    def windows(self) -> list[Window]:
        """When what was disturbed: from each kill until all was well again, and a little longer."""
        kills = [line for line in self.campaign if line["did"] == "kill"]
        return [
            Window(start_ns=kill["at"], end_ns=self.recovered_ns(kill) + SETTLE_NS, scope=kill["scope"])
            for kill in kills
        ]

    def recovered_ns(self, kill: Line) -> int:
        """When what was killed was well again: a client when it was welcome again, all else when the campaign saw it."""
        sign, lines = ("recovered", self.campaign)
        if kill["kind"] == "client":
            sign, lines = ("welcome", {**self.clients, **self.readers}[kill["scope"]])
        return next((line["at"] for line in lines if line["did"] == sign and line["at"] > kill["at"]), _NEVER_NS)

    def stalls(self) -> list[Window]:
        """When the machine itself stood still, as the campaign's own clock saw."""
        lines = (line for line in self.campaign if line["did"] == "stall")
        return [Window(start_ns=line["start"], end_ns=line["at"] + SETTLE_NS // 4, scope=None) for line in lines]


def read_journal(path: Path) -> tuple[list[Row], list[tuple[str, int, str]]]:
    """All records and all triggers without one; the file is opened read-only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = [
            Row(
                seq=seq,
                key=None if client is None else (client, epoch, name),
                arrived=arrived,
                body=json.loads(body),
            )
            for seq, body, client, epoch, name, arrived in database.execute(
                """SELECT seq, body, client, epoch, trigger_id, arrived FROM verdicts
                   LEFT JOIN triggers ON id = trigger_row ORDER BY seq"""
            )
        ]
        still_open = database.execute(
            """SELECT client, epoch, trigger_id FROM triggers
               WHERE id NOT IN (SELECT trigger_row FROM verdicts WHERE trigger_row IS NOT NULL)"""
        ).fetchall()
    return rows, still_open


def lives(lines: list[Line]) -> Iterator[list[Line]]:
    """A ledger by the lives of its process: each begins with `start`."""
    life: list[Line] = []
    for line in lines:
        if line["did"] == "start" and life:
            yield life
            life = []
        life.append(line)
    if life:
        yield life
