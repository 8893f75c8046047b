"""Owns the suspicion that the disk hangs: it neither takes what the journal wants to write, nor refuses it."""

from dataclasses import dataclass

_PATIENCE_NS = 1_000_000_000


@dataclass(slots=True)
class DiskWatch:
    """When the disk last did something, or had nothing to do. Times in nanoseconds, monotonic."""

    heard_ns: int

    def heard(self, now_ns: int) -> None:
        """The journal is done with something, well or not."""
        self.heard_ns = now_ns

    def hangs(self, now_ns: int, backlog: int) -> bool:
        """Whether operations wait, so many of them, and none came back for a second."""
        if backlog == 0:
            self.heard_ns = now_ns
        return now_ns - self.heard_ns >= _PATIENCE_NS
