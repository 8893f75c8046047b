"""Triggers with a journal in memory, and what they did."""

from support.journals import acceptance
from support.memory_journal import MemoryJournal

from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import Answer
from edge_runtime.service.open_trigger import OpenTrigger
from edge_runtime.service.operations import Key
from edge_runtime.service.triggers import Hooks, Triggers

MS = 1_000_000
END = 10_000 * MS  # past all deadlines


class Bench:
    """Triggers with a journal in memory, and what they did."""

    def __init__(self, journal: MemoryJournal | None = None) -> None:
        """Epoch 1, as `support.journals` has it."""
        self.journal = journal or MemoryJournal()
        self.told: list[Answer] = []
        self.queued: list[Key] = []
        self.published: list[Answer] = []
        self.frameless: list[OpenTrigger] = []
        self.news: list[str | None] = []
        self.triggers = Triggers(
            station="press-4",
            epoch=1,
            writer=self.journal,
            hooks=Hooks(
                deliver=self.told.append,
                queued=self.queued.append,
                publish=self.published.append,
                frameless=self.frameless.append,
                journal=self.news.append,
            ),
        )

    def new(self, trigger_id: str, *, content: str = "c") -> OpenTrigger:
        """Receive a trigger that is new."""
        trigger = self.triggers.receive(acceptance(trigger_id, content=content))
        assert trigger is not None
        return trigger

    def reject(self, trigger: OpenTrigger, now_ns: int = 0) -> None:
        """Decide it."""
        self.triggers.decide(trigger, now_ns, reason=Reason.NO_FRAME, detail="none")

    def disk(self, error: str | None = None, now_ns: int = 0) -> None:
        """The disk does all that is queued, or fails at it."""
        self.journal.take()
        self.journal.finish(error)
        for outcome in self.journal.fetch():
            self.triggers.on_outcome(outcome, now_ns)

    @property
    def said(self) -> list[tuple[str, Reason | None]]:
        """What clients were told."""
        return [(one.trigger_id, one.reason) for one in self.told]
