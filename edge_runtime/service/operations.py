"""Owns what the journal can be asked to do: each operation with its result, pure data."""

from dataclasses import dataclass
from typing import TypeAlias

from edge_runtime.protocol.messages import Answer, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What an answer is given for, exactly once."""

    client: str
    epoch: int  # that the client's TRIGGER carries: of the broker's start, or of an earlier one
    trigger_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """A trigger that was taken on."""

    key: Key
    camera: str
    part_id: str | None
    content: str  # digest of what the TRIGGER says: the same id with another one is a conflict
    deadline_ms: int  # from receipt
    received_ns: int  # on the monotonic clock of the broker that received it
    received_utc: str  # a label


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What the journal holds for a key."""

    acceptance: Acceptance
    answer: Answer | None  # with `seq`; None while it is open
    deadline_passed: bool  # on the monotonic clock; true where its clock cannot be compared (another boot)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordPage:
    """Records in order, without holes."""

    records: tuple[Record, ...]
    first: int  # oldest seq that is still in the journal; newest + 1 where it holds none


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow:
    """One line of the audit log."""

    utc: str
    actor: str
    command: str
    detail: str
    ok: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Accept:
    """Store a trigger. Result: None where it is new, else the `Stored` that was there already."""

    acceptance: Acceptance


@dataclass(frozen=True, kw_only=True, slots=True)
class Decide:
    """Store a verdict, and its trigger where that is missing. Result: the `Answer` with its seq.

    A key that has a verdict keeps it, and that one is the result.
    """

    acceptance: Acceptance
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Store a verdict that belongs to no stored trigger (ERROR/CONFLICT). Result: the `Answer` with its seq."""

    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What is stored for an id of another epoch. Result: `Stored`; an unknown id is stored with `otherwise` first."""

    acceptance: Acceptance
    otherwise: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRecords:
    """Read records after a seq, `limit` at most. Result: `RecordPage`."""

    after: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Acked:
    """A consumer has all records up to `seq`; its cursor never goes back. Makes the consumer known. Result: None."""

    consumer: str
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SetCursor:
    """Put a consumer's cursor to exactly `seq`, backwards as well: its own store is behind. Result: None."""

    consumer: str
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Activate:
    """Remember which bundle a camera runs. Result: None. The audit log gets its line from an `Audit` beside it."""

    camera: str
    configured: str
    digest: str
    previous: str | None
    actor: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """Add a line to the audit log. Result: None."""

    actor: str
    command: str
    detail: str
    ok: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAudit:
    """Read the newest lines of the audit log. Result: a tuple of `AuditRow`, newest first."""

    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove the oldest records that are over so many days old, 2000 at most. Result: how many went.

    The first younger record ends it, so that what stays has no holes; the newest record always stays.
    """

    days: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Write and commit something: does the disk take it (again)? Result: None."""


Operation: TypeAlias = (
    Accept | Decide | Conflict | Lookup | ReadRecords | Acked | SetCursor | Activate | Audit | ReadAudit | Prune | Probe
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of an operation."""

    operation: Operation
    value: object  # the operation's result; None with an error
    error: str | None  # why nothing of it may be relied on
    commit_ms: float  # how long the journal took for the transaction that it was part of
