import cmath
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.cameras import ScriptedSource

from edge_runtime.camera.grabber import Exposure, Grabber, Order
from edge_runtime.camera.source import Captured, Source
from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import TriggerMode

PERIOD_S = 0.03


class SlowSource(ScriptedSource):
    """Takes a good part of the period for each frame, and writes down when each was begun."""

    period_s = PERIOD_S

    def __init__(self) -> None:
        """Forty frames."""
        super().__init__(*range(40))
        self.begun: list[float] = []

    def grab(self) -> Captured:
        """Take a while."""
        self.begun.append(time.monotonic())
        time.sleep(0.4 * PERIOD_S)
        return super().grab()


class HangingSource(ScriptedSource):
    """Never comes back from `grab` before it is let go."""

    def __init__(self) -> None:
        """Nobody has called yet."""
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def grab(self) -> Captured:
        """Hang."""
        self.entered.set()
        self.then(self.let_go, 1)
        return super().grab()


@contextmanager
def grabbing(source: Source, trigger: TriggerMode) -> Iterator[Grabber]:
    grabber = Grabber(source, camera="top", trigger=trigger, wake=lambda: None)
    grabber.start()
    yield grabber
    grabber.stop(0.0)


def collected(grabber: Grabber, count: int) -> list[Exposure]:
    found: list[Exposure] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        outcome = grabber.outcome()
        found += [outcome] if outcome else []
        time.sleep(0 if outcome else 0.001)
    assert len(found) == count
    return found


def reached(grabber: Grabber, exposures: int) -> None:
    deadline = time.monotonic() + 20
    while grabber.exposures < exposures and time.monotonic() < deadline:
        time.sleep(0.001)
    assert grabber.exposures == exposures


def test_frames_of_a_free_running_source_stay_on_the_grid_however_long_each_takes() -> None:
    source = SlowSource()
    with grabbing(source, TriggerMode.STREAM) as grabber:
        collected(grabber, 30)
    turns = [cmath.exp(2j * cmath.pi * begun / PERIOD_S) for begun in source.begun[:30]]
    assert abs(sum(turns)) / len(turns) > 0.5  # 1: all at one phase; with 40 % more each time they would cancel


def test_where_nobody_collects_a_stream_gives_up_pixels_and_counts_on() -> None:
    with grabbing(ScriptedSource(*range(10)), TriggerMode.STREAM) as grabber:
        reached(grabber, 10)
        found = collected(grabber, 10)
        assert [outcome.counter for outcome in found] == list(range(1, 11))
        assert [outcome.fault for outcome in found] == [None] * 4 + [Reason.OVERLOAD] * 6
        assert {outcome.frame is None for outcome in found[4:]} == {True}


def test_where_nobody_collects_orders_wait_and_lose_nothing() -> None:
    with grabbing(ScriptedSource(*range(10)), TriggerMode.SOFTWARE) as grabber:
        for number in range(10):
            assert grabber.order(Order(epoch=1, trigger_id=f"t{number}", received=time.monotonic()))
        reached(grabber, 5)  # four are ready, one waits for room
        found = collected(grabber, 10)
        assert [outcome.order and outcome.order.trigger_id for outcome in found] == [f"t{n}" for n in range(10)]
        assert {outcome.fault for outcome in found} == {None}


def test_a_source_that_hangs_does_not_hold_up_the_end() -> None:
    source = HangingSource()
    with grabbing(source, TriggerMode.STREAM) as grabber:
        assert source.entered.wait(20)
        assert not grabber.stop(0.05)  # comes back, and says that the thread is still at it
        source.let_go.set()
        assert grabber.stop(20)


def test_a_source_that_cannot_be_opened_answers_each_order_with_what_to_do() -> None:
    source = ScriptedSource()
    source.refuses = OSError("no such device")
    with grabbing(source, TriggerMode.SOFTWARE) as grabber:
        grabber.order(Order(epoch=1, trigger_id="t1", received=time.monotonic()))
        (outcome,) = collected(grabber, 1)
        assert (outcome.fault, outcome.counter) == (Reason.NO_FRAME, 0)
        assert "no such device" in outcome.detail
        source.refuses = None
        source.then(5)
        deadline = time.monotonic() + 20
        while not grabber.health().ok and time.monotonic() < deadline:
            time.sleep(0.01)
        assert grabber.health().ok
