"""Owns when frames of a live device really came: a frame that waited in a buffer is older than its arrival says."""

import math
from collections import deque

_SPAN_S = 10.0
_SPANS = 60  # ten minutes: long enough to see any backlog, short enough that two clocks drift apart by little


class ArrivalClock:
    """Arrival times without the time spent in buffers, from the stamps that the device gives its frames.

    Stamp and arrival differ by a constant and by what the frame waited: for us, for the driver, for the network. The
    smallest difference seen is taken for the constant. So frames that piled up while this process did not run are known
    for what they are, although all of them arrive now. A delay that every frame has (the exposure, a camera's encoder)
    does not show: sources allow for it apart. A device without stamps gets the plain arrival time.
    """

    def __init__(self) -> None:
        """No frame was seen."""
        self._stamp_s = -math.inf
        self._least: deque[tuple[int, float]] = deque(maxlen=_SPANS)  # (span, smallest difference in it)

    def arrived(self, now: float, stamp_ms: float) -> float:
        """When a frame would have arrived without waiting anywhere; never later than it did.

        Args:
            now: when it arrived, seconds of the monotonic clock.
            stamp_ms: the device's own stamp.
        """
        stamp_s = stamp_ms / 1000
        if not stamp_s > self._stamp_s:  # no stamps, or the stream began anew
            self._least.clear()
        self._stamp_s = stamp_s
        if not math.isfinite(stamp_s):
            return now
        span, difference = int(now // _SPAN_S), now - stamp_s
        if self._least and self._least[-1][0] == span:
            difference = min(difference, self._least.pop()[1])
        self._least.append((span, difference))
        return min(now, stamp_s + min(least for _, least in self._least))
