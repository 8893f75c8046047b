"""A frame whose time is over is never half of an ACCEPT, and a slow frame costs no other."""

import time

import numpy as np
import pytest
from support.toys import BrightnessEngine, make_inspector, make_recipe, make_region, make_thresholds

from edge_runtime.bundle.recipe import Recipe
from edge_runtime.decision import Reason, Verdict
from edge_runtime.engines import GraphOutput
from edge_runtime.errors import OutOfTimeError
from edge_runtime.hurry import Countdown
from edge_runtime.imaging.frames import Size

GOOD = np.full((64, 64), 40, np.uint8)
PATIENCE_S = 600.0


class SlowEngine(BrightnessEngine):
    """Takes its time for every run."""

    def __init__(self, recipe: Recipe, seconds: float) -> None:
        """Make buffers and remember how long."""
        super().__init__(recipe)
        self.seconds = seconds

    def run(self) -> GraphOutput:
        """Sleep, then measure."""
        time.sleep(self.seconds)
        return super().run()


def sixteen_tiles() -> Recipe:
    return make_recipe(frame=Size(64, 64), core=Size(16, 16), batch=1)


def test_a_frame_whose_time_is_over_before_it_begins_runs_no_tile() -> None:
    recipe = sixteen_tiles()
    engine = BrightnessEngine(recipe)
    inspection = make_inspector(recipe, engine=engine).inspect(GOOD, until=time.monotonic() - 1)
    assert (inspection.verdict, inspection.reason, inspection.complete) == (Verdict.ERROR, Reason.TIMEOUT, False)
    assert engine.runs == 0


def test_a_frame_whose_time_runs_out_is_cut_short_and_the_next_is_inspected_as_ever() -> None:
    recipe = sixteen_tiles()
    engine = SlowEngine(recipe, 0.05)
    inspector = make_inspector(recipe, engine=engine)
    inspection = inspector.inspect(GOOD, until=time.monotonic() + 0.2)
    assert (inspection.verdict, inspection.reason) == (Verdict.ERROR, Reason.TIMEOUT)
    assert "tiles" in inspection.detail
    assert inspection.scored is None
    assert engine.runs < 16
    again = inspector.inspect(GOOD, until=time.monotonic() + PATIENCE_S)
    assert (again.verdict, again.complete) == (Verdict.ACCEPT, True)


def test_a_batch_that_cannot_be_done_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    countdown = Countdown(110.0)
    countdown.before_batch(2)
    now[0] = 106.0  # there are 4 seconds left, and one batch took 6
    countdown.after_batch(1)
    with pytest.raises(OutOfTimeError, match="after 1 tiles, 1 of the region"):
        countdown.before_batch(1)


def test_the_first_batch_of_a_frame_is_tried_however_slow_others_were() -> None:
    Countdown(time.monotonic() + PATIENCE_S).before_batch(1)


def test_without_a_limit_no_time_is_too_late() -> None:
    countdown = Countdown(None)
    countdown.before_batch(1)
    countdown.after_batch(1)
    countdown.before_batch(1)


@pytest.mark.parametrize(("left", "verdict"), [(40, Verdict.REJECT), (255, Verdict.REJECT)])
def test_a_region_that_settles_the_frame_leaves_the_others_out(left: int, verdict: Verdict) -> None:
    regions = (make_region("one", (0, 0, 32, 64)), make_region("two", (32, 0, 64, 64)))
    recipe = make_recipe(frame=Size(64, 64), core=Size(32, 64), batch=1, regions=regions)
    engine = BrightnessEngine(recipe)
    thresholds = dict.fromkeys(("one", "two"), make_thresholds())
    made = make_inspector(recipe, engine=engine, thresholds=thresholds)
    inspector = type(made)(made.scorer, made.artefact, "d", early_reject=True)
    pixels = GOOD.copy()
    pixels[:, 32:] = 250
    pixels[:, :32] = left
    inspection = inspector.inspect(pixels)
    assert inspection.verdict is verdict
    assert engine.runs == (2 if left == 40 else 1)
    assert inspection.complete == (left == 40)
