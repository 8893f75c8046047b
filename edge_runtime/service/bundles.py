"""Owns which bundle each camera's frames are inspected with: active, staged, and the one before."""

from collections.abc import Iterable
from dataclasses import dataclass

from edge_runtime.service.store import BundleFacts


@dataclass(slots=True, eq=False)
class Choice:
    """The bundles of one camera."""

    configured: BundleFacts  # what line.toml names
    active: BundleFacts
    staged: BundleFacts | None = None
    previous: BundleFacts | None = None
    staging_failed: str | None = None  # why the last staged bundle was dropped
    returning: bool = False  # the bundle before is loaded, to take over again

    @property
    def running(self) -> tuple[BundleFacts, ...]:
        """All that may be inspected with and that once loaded: what is staged is not among them."""
        return (self.configured, self.active, *(() if self.previous is None else (self.previous,)))

    def activate(self) -> None:
        """The staged bundle takes over; one that was active already leaves the way back as it is."""
        if self.staged is not None and self.staged.digest != self.active.digest:
            self.previous, self.active = self.active, self.staged
        self.staged, self.returning = None, False

    def roll_back(self) -> None:
        """The bundle before takes over again; the one that was rolled back can be returned to in the same way."""
        if self.previous is not None:
            self.previous, self.active = self.active, self.previous
        self.returning = False


def wanted(choices: Iterable[Choice], *, workers: int, warm_previous: bool) -> dict[str, BundleFacts]:
    """The workers that there should be, by name, and the bundle that each holds."""
    found: dict[str, BundleFacts] = {}
    for choice in choices:
        bundles = [choice.active, choice.staged, choice.previous if warm_previous or choice.returning else None]
        for facts in bundles:
            if facts is not None:
                found.update({f"{facts.digest[:12]}-{number}": facts for number in range(workers)})
    return found
