"""A trigger never gets the exposure of another part; what cannot be told apart is a mismatch.

What is assumed, as the module says: trigger and exposure of a part arrive within the window of each other, and parts come
more than two windows apart. The camera counts every exposure, whether or not its message arrives; an exposure that was
not even made is not counted.
"""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.service.operations import Key
from edge_runtime.service.pairing import HardwarePairing

WINDOW = 1000
QUIET = 10 * WINDOW


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What happens when a part passes."""

    interval: int  # since the part before
    trigger_after: int | None  # when its trigger arrives; None: it is lost
    frame_after: int | None
    exposed: bool  # whether the camera counted it at all


delay = st.integers(0, WINDOW)
parts = st.lists(
    st.builds(
        Part,
        interval=st.sampled_from([2 * WINDOW + 1, 2 * WINDOW + 2, 3 * WINDOW, 6 * WINDOW]),
        trigger_after=st.none() | delay,
        frame_after=st.none() | delay,
        exposed=st.booleans() | st.just(value=True),
    ),
    min_size=1,
    max_size=12,
)


def key(number: int) -> Key:
    return Key(client="plc", epoch=1, trigger_id=str(number))


class Line:
    """Runs parts past a pairing and keeps what came of each."""

    def __init__(self) -> None:
        """No part yet."""
        self.pairing = HardwarePairing(WINDOW)
        self.now = 100 * WINDOW
        self.counter = 0
        self.part_of: dict[int, int] = {}  # by exposure counter
        self.matched: dict[Key, int] = {}
        self.broken: set[Key] = set()  # triggers that were open when the count was lost
        self.dropped: list[int] = []
        self.waiting: set[int] = set()
        self.open: set[Key] = set()

    def run(self, number: int, part: Part) -> None:
        """One part, with its trigger and its exposure in the order in which they arrive."""
        self.now += part.interval
        if part.exposed:
            self.counter += 1
            self.part_of[self.counter] = number
        arrivals: list[tuple[int, str]] = []
        if part.trigger_after is not None:
            arrivals.append((part.trigger_after, "trigger"))
        if part.exposed and part.frame_after is not None:
            arrivals.append((part.frame_after, "frame"))
        for after, what in sorted(arrivals):
            if what == "trigger":
                self.open.add(key(number))
                self.note(self.pairing.on_trigger(key(number), self.now + after))
            else:
                self.waiting.add(self.counter)
                self.note(self.pairing.on_frame(self.counter, self.now + after))

    def quiet(self) -> None:
        """Nothing comes for a while; the loop ticks."""
        for _ in range(4):
            self.now += QUIET // 4
            self.note(self.pairing.tick(self.now))

    def note(self, paired: object) -> None:
        """Do what cameras and flow do."""
        for trigger, counter in getattr(paired, "matched", ()):
            assert trigger in self.open, "a trigger that was a mismatch got a frame"
            self.matched[trigger] = counter
            self.waiting.remove(counter)
        if getattr(paired, "broken", None) is not None:
            self.broken |= self.open - set(self.matched)
            self.open.clear()
        for counter in getattr(paired, "unmatched", ()):
            self.waiting.discard(counter)
            self.dropped.append(counter)


@settings(max_examples=400, deadline=None)
@given(parts)
def test_no_trigger_is_ever_given_the_exposure_of_another_part(script: list[Part]) -> None:
    line = Line()
    for number, part in enumerate(script):
        line.run(number, part)
    line.quiet()
    for trigger, counter in line.matched.items():
        assert trigger == key(line.part_of[counter])
    assert not line.waiting, "a frame was neither matched nor dropped: its slot is lost"
    assert len(set(line.dropped)) == len(line.dropped)
    triggered = {key(number) for number, part in enumerate(script) if part.trigger_after is not None}
    assert triggered == set(line.matched) | line.broken, "a trigger was forgotten"


@settings(max_examples=200, deadline=None)
@given(parts, st.lists(st.tuples(delay, delay), min_size=1, max_size=4))
def test_after_quiet_it_pairs_again(script: list[Part], delays: list[tuple[int, int]]) -> None:
    line = Line()
    for number, part in enumerate(script):
        line.run(number, part)
    whole = [Part(interval=4 * WINDOW, trigger_after=a, frame_after=b, exposed=True) for a, b in delays]
    line.run(100, whole[0])  # an exposure of which nothing arrived shows at the next one
    line.quiet()
    assert line.pairing.lost is None
    for number, part in enumerate(whole, 101):
        line.run(number, part)
        assert line.matched[key(number)] == line.counter


@given(
    st.lists(st.tuples(st.sampled_from(["trigger", "frame", "gone", "tick", "camera"]), st.integers(0, 5)), max_size=30)
)
def test_no_sequence_of_events_loses_a_frame_or_pairs_one_twice(events: list[tuple[str, int]]) -> None:
    """Without any assumption on times or counters: each frame is matched once, or dropped, or still waits."""
    pairing, now = HardwarePairing(WINDOW), 0
    given_out: list[int] = []
    dropped: list[int] = []
    came: list[int] = []
    for what, number in events:
        now += number * WINDOW // 4
        match what:
            case "trigger":
                paired = pairing.on_trigger(key(number), now)
            case "frame":
                came.append(number)
                paired = pairing.on_frame(number, now)
            case "gone":
                paired = pairing.on_gone(key(number))
            case "tick":
                paired = pairing.tick(now)
            case _:
                paired = pairing.camera_restarted()
        given_out += [counter for _, counter in paired.matched]
        dropped += paired.unmatched
        assert not (pairing.triggers and pairing.frames)
        assert pairing.lost is None or not (pairing.triggers or pairing.frames)
    assert sorted(came) == sorted([*given_out, *dropped, *(counter for counter, _ in pairing.frames)])
