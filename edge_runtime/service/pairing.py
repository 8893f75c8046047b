"""Owns how the frames of a hardware-triggered camera find their triggers: in order, by the exposure counter.

The camera is exposed by an electric line, the trigger comes over the network; both are counted. A frame and its trigger
arrive within a window of each other, and parts come more than two windows apart: a trigger whose exposure was missed is
noticed before the next part's frame can be taken for its own. Whatever breaks the count (a counter that
jumps, a trigger without exposure, an exposure without trigger) makes every open trigger an ERROR, until the line has
been quiet for as long as a straggler could take; then counting starts anew. A guess would give a part another part's verdict.
"""

from collections import deque
from dataclasses import dataclass, field

from edge_runtime.service.operations import Key

_QUIET_WINDOWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """What an event led to."""

    matched: tuple[tuple[Key, int], ...] = ()  # trigger and exposure counter
    broken: str | None = None  # the count is lost, and why: every open trigger of the camera is a mismatch
    unmatched: tuple[int, ...] = ()  # counters of frames that belong to no trigger


@dataclass(slots=True)
class HardwarePairing:
    """Triggers that wait for frames, and frames that wait for triggers. Times in nanoseconds, monotonic."""

    window_ns: int
    triggers: deque[tuple[Key, int]] = field(default_factory=deque)
    frames: deque[tuple[int, int]] = field(default_factory=deque)
    last_counter: int | None = None
    lost: str | None = None  # why the count is lost; None while it holds
    _last_event_ns: int = 0

    def on_trigger(self, key: Key, now_ns: int) -> Paired:
        """A trigger came."""
        before = self.tick(now_ns)
        self._last_event_ns = now_ns
        if self.lost is not None:
            return Paired(broken=self.lost, unmatched=before.unmatched)
        self.triggers.append((key, now_ns))
        return self._match()

    def on_frame(self, counter: int, now_ns: int) -> Paired:
        """A frame came; counters of one camera process grow by one with every exposure."""
        before = self.tick(now_ns)
        self._last_event_ns = now_ns
        expected = None if self.last_counter is None else self.last_counter + 1
        self.last_counter = counter
        if self.lost is None and expected is not None and counter != expected:
            return self._break(f"exposure counter went to {counter}, expected {expected}", counter)
        if self.lost is not None:
            return Paired(broken=before.broken, unmatched=(*before.unmatched, counter))
        self.frames.append((counter, now_ns))
        return self._match()

    def on_gone(self, key: Key) -> Paired:
        """A trigger ended without its frame."""
        if all(waiting != key for waiting, _ in self.triggers):
            return Paired()
        return self._break(f"trigger {key.trigger_id} ended without an exposure")

    def tick(self, now_ns: int) -> Paired:
        """Time passed."""
        if self.lost is not None:
            if now_ns - self._last_event_ns >= _QUIET_WINDOWS * self.window_ns:
                self.resync()
            return Paired()
        if self.triggers and now_ns - self.triggers[0][1] > self.window_ns:
            return self._break(f"trigger {self.triggers[0][0].trigger_id} had no exposure in time")
        if self.frames and now_ns - self.frames[0][1] > self.window_ns:
            return self._break(f"exposure {self.frames[0][0]} had no trigger in time")
        return Paired()

    def resync(self) -> None:
        """Start counting anew."""
        self.lost = None
        self.last_counter = None
        self.triggers.clear()
        self.frames.clear()

    def camera_restarted(self) -> Paired:
        """The camera's counter starts anew; what waits cannot be paired any more."""
        if not self.triggers and not self.frames:
            self.last_counter = None
            return Paired()
        return self._break("the camera process restarted")

    def _match(self) -> Paired:
        matched = []
        while self.triggers and self.frames:
            key, _ = self.triggers.popleft()
            counter, _ = self.frames.popleft()
            matched.append((key, counter))
        return Paired(matched=tuple(matched))

    def _break(self, why: str, *also: int) -> Paired:
        unmatched = (*(counter for counter, _ in self.frames), *also)
        self.lost = why
        self.triggers.clear()
        self.frames.clear()
        return Paired(broken=why, unmatched=unmatched)
