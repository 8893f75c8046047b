"""Owns the time that a frame has: looked at between batches of tiles, since a batch that runs cannot be stopped."""

import time
from collections import deque

from edge_runtime.errors import OutOfTimeError

_RECENT = 8  # batches; an odd slow one is forgotten


class Countdown:
    """Ends a frame's tile plan when its time is over, or is sure to be before the next batch is done.

    How long a batch takes is learned from this frame alone. One slow frame cannot make the next one give up before it began.
    """

    def __init__(self, until: float | None) -> None:
        """Start.

        Args:
            until: seconds on the clock of `time.monotonic`; None for no limit.
        """
        self._until = until
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._tiles = 0
        self._started = time.monotonic()

    def before_batch(self, left: int) -> None:
        """Go on only if there is time.

        Args:
            left: tiles of the region that are to be scored.

        Raises:
            OutOfTimeError: there is not.
        """
        if self._until is None:
            return
        self._started = time.monotonic()
        if self._started + max(self._recent, default=0.0) >= self._until:
            message = f"the time ran out after {self._tiles} tiles, {left} of the region were left"
            raise OutOfTimeError(message)

    def after_batch(self, tiles: int) -> None:
        """So many tiles more are scored."""
        self._tiles += tiles
        self._recent.append(time.monotonic() - self._started)
