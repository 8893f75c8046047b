"""Compares what clients and consumers saw with the journal and with the truth.

What must hold:

- *unanswered*: the raw client, which asks until it is answered and over its own death, has an answer for every trigger that
  it ever sent. A user of the library has one result for every trigger whose deadline its process lived to see; where the
  result is the library's own (`silent`), the journal holds one verdict for the trigger, or none if something was killed
  between its sending and its deadline. A trigger that was confirmed (QUEUED) has a verdict in the journal, and so has
  every trigger in the journal. No trigger was refused.
- *doubled*: of each (client, epoch, trigger_id) the journal has one verdict; the user of the library gets one result; the
  raw client may be told again, in the same words: verdict, reason, score, seq.
- *contradicted*: an answer says what the journal's record and every consumer's record say, in all but the times and marks
  of its delivery, and it speaks of the trigger's own camera and part. Sole exception: ERROR/JOURNAL with
  `journaled: false`; the journal then holds ERROR/JOURNAL or ERROR/RESTART, or nothing if it was killed after the answer.
- *lost*: the journal's `seq` runs from 1 without hole, and every named consumer has stored each record, once, in order.
- *escaped*: no defective part was accepted: not by a gate, not in an answer, not in the journal, not in a record.
- *wrong*: a verdict that is not ERROR is the true one, with the true score, at all times. ERROR is true for white parts;
  for others it is excused only while something that concerns the trigger was killed and not yet well again. Where it is a
  matter of time alone (see `LATE`) it is excused while the machine or its disk stood still, as a probe beside the service
  measured it. A gate opens for a journalled ACCEPT in time alone.
  A trigger that came first in a later epoch than its own is ERROR/RESTART: the part has gone by.
- *service*: what the campaign itself found: a start that failed, a state from which there was no recovery.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from faults import parts
from faults.evidence import Evidence, Line, Row, lives

LATE = frozenset({"TIMEOUT", "NO_FRAME", "OVERLOAD", "JOURNAL"})
_SLOW_DISK = "the journal cannot be written: the disk "  # NOT_READY for as long as commits take too long
KINDS = ("unanswered", "doubled", "contradicted", "lost", "escaped", "wrong", "service")
_GRACE_NS = 1_000_000_000  # the library ends a trigger at its deadline, or at the latest so much after it
_OF_DELIVERY = ("timings_ms", "expired", "replayed")
_TOLD = ("verdict", "reason", "score", "seq", "journaled", "camera", "part_id", "label", "counter", "bundle")

Key = tuple[str, int, str]


class Violation(NamedTuple):
    """Something that must never be."""

    kind: str
    what: str


class Findings(NamedTuple):
    """What a comparison came to."""

    violations: list[Violation]
    excused: Counter[str]  # ERROR answers for good or defective parts, by reason
    calm: int  # answers that nothing disturbed


def verify(evidence: Evidence) -> Findings:
    """All violations; none where the service did what it promises."""
    records: dict[Key, Row] = {}
    found = [*_service(evidence), *_journal(evidence, records), *_readers(evidence)]
    excused: Counter[str] = Counter()
    calm = 0
    for name, lines in evidence.clients.items():
        client = Client(name, lines, evidence, records)
        found += [*client.unanswered(), *client.doubled(), *client.contradicted(), *client.wrong(excused)]
        calm += client.calm
    return Findings(found, excused, calm)


def _service(evidence: Evidence) -> Iterator[Violation]:
    for line in evidence.campaign:
        if line["did"] == "fault":
            yield Violation("service", line["what"])
    for name, lines in {**evidence.clients, **evidence.readers}.items():
        if not lines or lines[-1]["did"] != "end":
            yield Violation("service", f"{name}: the checker did not come to its end")


def _journal(evidence: Evidence, records: dict[Key, Row]) -> Iterator[Violation]:
    known = {(name, line["trigger"]["trigger_id"]) for name, line in _sent(evidence)}
    for expected, row in enumerate(evidence.rows, start=1):
        key = (row.body["client"], row.body["epoch"], row.body["trigger_id"])
        if row.seq != expected or row.body["seq"] != expected:
            yield Violation("lost", f"journal: record {expected} is {row.seq}, its body says {row.body['seq']}")
        if key in records:
            yield Violation("doubled", f"journal: {key} has records {records[key].seq} and {row.seq}")
        if row.key != key:
            yield Violation("contradicted", f"journal: record {row.seq} of {row.key} speaks of {key}")
        if (key[0], key[2]) not in known:
            yield Violation("contradicted", f"journal: nobody sent {key}")
        if row.arrived is not None and row.arrived > key[1] and row.body["reason"] != "RESTART":
            yield Violation("wrong", f"journal: {key} came in epoch {row.arrived}, and is no ERROR/RESTART: {row.body}")
        records[key] = row
        yield from _true_record("journal", row.body)
    for key in evidence.open_keys:
        yield Violation("unanswered", f"journal: {tuple(key)} has no verdict")


def _readers(evidence: Evidence) -> Iterator[Violation]:
    for name, lines in evidence.readers.items():
        stored = [line["record"] for line in lines if line["did"] == "record"]
        seqs = [record["seq"] for record in stored]
        if seqs != [row.seq for row in evidence.rows]:
            odd = [line for line in lines if line["did"] in {"gap", "hole"}]
            yield Violation("lost", f"{name}: {_difference(seqs, len(evidence.rows))}; {odd}")
        bodies = {row.seq: row.body for row in evidence.rows}
        for record in stored:
            if _without_delivery(record) != _without_delivery(bodies.get(record["seq"], {})):
                yield Violation("contradicted", f"{name}: record {record['seq']} is not the journal's: {record}")
            yield from _true_record(name, record)
        for line in lines:
            if line["did"] in {"gap", "hole", "refused"}:
                yield Violation("lost", f"{name}: {line}")


def _true_record(where: str, body: Line) -> Iterator[Violation]:
    """What needs no ledger: a verdict against the truth in the part's or the file's name."""
    value = parts.value_of(body["label"] or body["part_id"])
    yield from _true(f"{where}: record {body['seq']}", body, value)


def _true(where: str, answer: Line, value: int) -> Iterator[Violation]:
    told = (answer["verdict"], answer["reason"], answer["score"])
    if answer["verdict"] == "ACCEPT" and value >= parts.LIMIT:
        yield Violation("escaped", f"{where}: part of {value} was accepted: {told}")
    elif answer["verdict"] != "ERROR" and told != parts.truth_of(value):
        yield Violation("wrong", f"{where}: {told}, the truth is {parts.truth_of(value)}")


class Client:
    """One client's triggers and what it was told of them."""

    def __init__(self, name: str, lines: list[Line], evidence: Evidence, records: dict[Key, Row]) -> None:
        """Sort a ledger."""
        self.name = name
        self.lines = lines
        self.records = records
        self.by_library = any(line.get("role") == "library" for line in lines)
        self.windows, self.stalls = evidence.windows(), evidence.stalls()
        self.sent = {line["trigger"]["trigger_id"]: line for line in lines if line["did"] == "sent"}
        self.told: dict[str, list[Line]] = {name: [] for name in self.sent}
        self.strangers = []
        self.calm = 0
        for line in lines:
            if line["did"] == "answer":
                known = self.told.get(line["answer"]["trigger_id"])
                (self.strangers if known is None else known).append(line)
        self.recorded = {key[2]: row for key, row in records.items() if key[0] == name}

    def unanswered(self) -> Iterator[Violation]:
        """See the module."""
        for name in self.sent:
            if not self.told[name] and not (self.by_library and self._died_with(name)):
                yield self._violation("unanswered", name, "no answer")
        for line in self.lines:
            if line["did"] == "queued" and (self.name, line["epoch"], line["trigger_id"]) not in self.records:
                yield self._violation("unanswered", line["trigger_id"], "was confirmed and is not in the journal")
            if line["did"] == "refused":
                yield Violation("unanswered", f"{self.name}: {line['refused']}")
        for name, line in self._answers():
            silent = line["silent"] and name not in self.recorded
            if silent and not self._disturbed(name, line) and not self._stalled(name, line):
                yield self._violation(
                    "unanswered", name, f"silence, and not in the journal: {line['answer']['detail']}"
                )

    def doubled(self) -> Iterator[Violation]:
        """See the module."""
        for name, told in self.told.items():
            if self.by_library and len(told) > 1:
                yield self._violation("doubled", name, f"{len(told)} results")
            first = told[0]["answer"] if told else {}
            for line in told[1:]:
                unlike = [field for field in _TOLD if line["answer"][field] != first[field]]
                if unlike and not _late_restart(first, line["answer"]):
                    yield self._violation("doubled", name, f"told {first}, then {line['answer']}")
        for line in self.strangers:
            yield Violation("doubled", f"{self.name}: an answer that nobody asked for: {line['answer']}")

    def contradicted(self) -> Iterator[Violation]:
        """See the module."""
        for name, line in self._answers():
            answer, trigger = line["answer"], self.sent[name]["trigger"]
            if (answer["camera"], answer["part_id"]) != (trigger["camera"], trigger["part_id"]):
                yield self._violation("contradicted", name, f"the answer is another trigger's: {answer}")
            if line["silent"]:
                continue
            row = self.records.get((self.name, answer["epoch"], name))
            if not answer["journaled"]:
                if answer["verdict"] != "ERROR" or answer["reason"] != "JOURNAL":
                    yield self._violation("contradicted", name, f"not journalled, yet no ERROR/JOURNAL: {answer}")
                elif row is None and not any(window.end_ns > line["at"] for window in self.windows):
                    yield self._violation("contradicted", name, "ERROR/JOURNAL never came into the journal")
                elif row is not None and row.body["reason"] not in {"JOURNAL", "RESTART"}:
                    yield self._violation("contradicted", name, f"told ERROR/JOURNAL, journal: {row.body}")
            elif row is None or _without_delivery(row.body) != _without_delivery(answer):
                yield self._violation("contradicted", name, f"told {answer}, journal: {row and row.body}")

    def wrong(self, excused: Counter[str]) -> Iterator[Violation]:
        """Escaped parts, too. See the module."""
        for name, line in self._answers():
            answer, value = line["answer"], self.sent[name]["value"]
            if value is None and answer["label"] is not None:
                value = parts.value_of(answer["label"])
            if value is not None:
                yield from _true(f"{self.name} {name}", answer, value)
            elif answer["verdict"] != "ERROR":
                yield self._violation("wrong", name, f"a verdict on a frame without name: {answer}")
            gate_may_open = answer["verdict"] == "ACCEPT" and answer["journaled"] and not answer["expired"]
            if line["accepted"] and not (gate_may_open and not answer["replayed"] and not line["silent"]):
                yield self._violation("escaped", name, f"the gate opened for {answer}")
            if answer["reason"] == "NOT_FINITE" and value != parts.WHITE:
                yield self._violation("wrong", name, f"NOT_FINITE for a part of {value}")
            self.calm += not self._disturbed(name, line)
            if answer["verdict"] == "ERROR" and answer["reason"] != "NOT_FINITE":
                yield from self._error(name, line, excused)

    def _error(self, name: str, line: Line, excused: Counter[str]) -> Iterator[Violation]:
        reason = "silence" if line["silent"] else line["answer"]["reason"]
        answer = line["answer"]
        late = answer["reason"] in LATE or (answer["reason"] == "NOT_READY" and _SLOW_DISK in answer["detail"])
        if self._disturbed(name, line):
            excused[reason] += 1
        elif late and self._stalled(name, line):
            excused[f"{reason} (machine)"] += 1
        else:
            yield self._violation("wrong", name, f"ERROR/{reason} without need: {answer['detail']}")

    def _answers(self) -> Iterator[tuple[str, Line]]:
        return ((name, line) for name, told in self.told.items() for line in told)

    def _died_with(self, name: str) -> bool:
        """Whether the client was killed before it had to have a result for this trigger."""
        line = self.sent[name]
        end_ns = line["at"] + line["trigger"]["deadline_ms"] * 1_000_000 + _GRACE_NS
        return any(
            life[0]["at"] <= line["at"] <= life[-1]["at"] < end_ns and life[-1]["did"] != "end"
            for life in lives(self.lines)
        )

    def _disturbed(self, name: str, line: Line) -> bool:
        return any(window.touches(*self._span(name, line)) for window in self.windows)

    def _stalled(self, name: str, line: Line) -> bool:
        return any(window.touches(*self._span(name, line)) for window in self.stalls)

    def _span(self, name: str, line: Line) -> tuple[Any, ...]:
        return self.sent[name]["at"], line["at"], self.name, self.sent[name]["trigger"]["camera"]

    def _violation(self, kind: str, name: str, what: str) -> Violation:
        at = self.sent[name]["at"] if name in self.sent else 0
        return Violation(kind, f"{self.name} {name} (sent at {at / 1e9:.3f}): {what}")


def _sent(evidence: Evidence) -> Iterator[tuple[str, Line]]:
    return ((name, line) for name, lines in evidence.clients.items() for line in lines if line["did"] == "sent")


def _late_restart(first: Line, again: Line) -> bool:
    """Told ERROR/JOURNAL, unjournalled; told again what the journal made of it."""
    return first["reason"] == "JOURNAL" and not first["journaled"] and again["reason"] in {"JOURNAL", "RESTART"}


def _without_delivery(body: Line) -> Line:
    return {field: value for field, value in body.items() if field not in _OF_DELIVERY}


def _difference(seqs: list[int], newest: int) -> str:
    missing = sorted(set(range(1, newest + 1)) - set(seqs))
    twice = sorted(seq for seq, count in Counter(seqs).items() if count > 1)
    return f"stored {len(seqs)} of {newest} records, missing {missing[:5]}, twice {twice[:5]}, in order: {seqs == sorted(seqs)}"
