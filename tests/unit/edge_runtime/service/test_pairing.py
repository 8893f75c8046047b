"""Each way to lose the count, and back; what holds for every order of events is in `tests/property/test_pairing.py`."""

import pytest

from edge_runtime.service.operations import Key
from edge_runtime.service.pairing import HardwarePairing, Paired

W = 100


def key(trigger_id: str) -> Key:
    return Key(client="plc", epoch=1, trigger_id=trigger_id)


@pytest.fixture
def pairing() -> HardwarePairing:
    return HardwarePairing(W)


def test_trigger_and_exposure_pair_in_either_order(pairing: HardwarePairing) -> None:
    assert pairing.on_trigger(key("a"), 0) == Paired()
    assert pairing.on_frame(1, W).matched == ((key("a"), 1),)
    assert pairing.on_frame(2, 300) == Paired()
    assert pairing.on_trigger(key("b"), 300 + W).matched == ((key("b"), 2),)


def test_the_first_exposure_may_have_any_counter(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    assert pairing.on_frame(4711, 1).matched == ((key("a"), 4711),)


@pytest.mark.parametrize("counter", [1, 3, 0])
def test_a_counter_that_does_not_grow_by_one_breaks_the_count(pairing: HardwarePairing, counter: int) -> None:
    pairing.on_trigger(key("a"), 0)
    pairing.on_frame(1, 1)
    pairing.on_trigger(key("b"), 300)
    paired = pairing.on_frame(counter, 301)
    assert paired.matched == ()
    assert paired.unmatched == (counter,)
    assert paired.broken == f"exposure counter went to {counter}, expected 2"


def test_a_trigger_without_exposure_breaks_the_count(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    assert pairing.tick(W) == Paired()
    assert pairing.tick(W + 1).broken == "trigger a had no exposure in time"


def test_an_exposure_without_trigger_breaks_the_count_and_is_dropped(pairing: HardwarePairing) -> None:
    pairing.on_frame(1, 0)
    assert pairing.tick(W) == Paired()
    assert pairing.tick(W + 1) == Paired(broken="exposure 1 had no trigger in time", unmatched=(1,))


def test_a_late_event_finds_the_count_broken_though_nobody_ticked(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    paired = pairing.on_frame(1, W + 1)
    assert (paired.broken, paired.matched, paired.unmatched) == ("trigger a had no exposure in time", (), (1,))


def test_a_trigger_that_ends_without_its_exposure_breaks_the_count(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    assert pairing.on_gone(key("b")) == Paired()
    assert pairing.on_gone(key("a")).broken == "trigger a ended without an exposure"
    assert pairing.on_gone(key("a")) == Paired()


def test_while_the_count_is_lost_triggers_are_mismatches_and_exposures_dropped(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    pairing.tick(W + 1)
    assert pairing.on_trigger(key("b"), 150).broken == "trigger a had no exposure in time"
    assert pairing.on_frame(1, 160) == Paired(unmatched=(1,))
    assert pairing.tick(160 + 2 * W - 1) == Paired()
    assert pairing.lost is not None


def test_after_two_quiet_windows_counting_starts_anew(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    pairing.tick(W + 1)
    pairing.on_frame(7, 150)
    pairing.tick(150 + 2 * W)
    assert pairing.lost is None
    pairing.on_trigger(key("b"), 400)
    assert pairing.on_frame(3, 401).matched == ((key("b"), 3),)


def test_a_restarted_camera_counts_anew_where_nothing_waits_and_else_the_count_is_lost(
    pairing: HardwarePairing,
) -> None:
    pairing.on_trigger(key("a"), 0)
    pairing.on_frame(9, 1)
    assert pairing.camera_restarted() == Paired()
    pairing.on_trigger(key("b"), 300)
    assert pairing.on_frame(1, 301).matched == ((key("b"), 1),)
    pairing.on_trigger(key("c"), 600)
    assert pairing.camera_restarted().broken == "the camera process restarted"


def test_resync_by_command_forgets_the_loss(pairing: HardwarePairing) -> None:
    pairing.on_trigger(key("a"), 0)
    pairing.tick(W + 1)
    pairing.resync()
    pairing.on_trigger(key("b"), 150)
    assert pairing.on_frame(5, 151).matched == ((key("b"), 5),)
