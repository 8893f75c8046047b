"""Cameras at a real socket: slots are granted, frames find their triggers, and no camera can take a slot away for good."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.camera_bench import EPOCH, LAPSE, OTHER, PIXELS, SLOTS, WINDOW, Bench, Camera
from support.headers import FRAME
from support.journals import acceptance
from support.sockets import BoundPort, bound, instance

from edge_runtime.decision import Reason
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Frame, PixelFormat
from edge_runtime.protocol import messages as m
from edge_runtime.service.camera_seat import Fault, suits
from edge_runtime.service.rings import HeldFrame


@pytest.fixture
def port() -> Iterator[BoundPort]:
    with bound(m.AT_FRAMES, pixel_bytes=100_000) as made:
        yield made


@pytest.fixture
def bench(port: BoundPort, tmp_path: Path) -> Bench:
    return Bench(port, tmp_path, m.TriggerMode.SOFTWARE, "process")


def test_a_grabbed_frame_reaches_its_trigger_and_its_slot_is_granted_again(bench: Bench) -> None:
    camera = bench.connect()
    name = bench.grab(camera, "t1")
    assert bench.seat.room == SLOTS - 1
    camera.send(name, 1, camera.grants[0])
    bench.until(1)
    ((trigger_id, held),) = bench.framed
    assert (trigger_id, bench.seat.room) == ("t1", SLOTS - 1)
    assert (bench.open[acceptance("t1").key].counter, bench.open[acceptance("t1").key].label) == (1, "a.png")
    assert isinstance(held, HeldFrame)
    held.release()
    (again,) = camera.peer.hear(m.Credit).grants
    assert (again.slot, again.generation) == (camera.grants[0].slot, camera.grants[0].generation + 1)
    assert bench.seat.room == SLOTS


def test_a_frame_whose_trigger_is_over_is_late_and_frees_its_slot(bench: Bench) -> None:
    camera = bench.connect()
    name = bench.grab(camera, "t1")
    bench.open.clear()
    camera.send(name, 1, camera.grants[0])
    bench.take()
    assert len(camera.peer.hear(m.Credit).grants) == 1
    assert (bench.seat.counts["late"], bench.framed) == (1, [])


@pytest.mark.parametrize("fault", Reason)
def test_a_camera_may_say_that_it_has_no_frame_but_gives_no_other_reason(bench: Bench, fault: Reason) -> None:
    camera = bench.connect()
    name = bench.grab(camera, "t1")
    camera.peer.say(m.Frame(epoch=EPOCH, trigger_id=name, counter=1, frame=None, fault=fault, detail="x" * 2000))
    bench.until(1)
    own = {Reason.NO_FRAME, Reason.BAD_IMAGE, Reason.OVERLOAD}
    assert bench.faults == [("t1", fault if fault in own else Reason.NO_FRAME)]
    assert bench.seat.room == SLOTS


def test_a_slot_that_does_not_hold_the_frame_is_a_mismatch_and_comes_free(bench: Bench) -> None:
    camera = bench.connect()
    name = bench.grab(camera, "t1")
    grant = camera.grants[0]
    camera.peer.say(
        m.Frame(epoch=EPOCH, trigger_id=name, counter=1, frame=FRAME, slot=grant.slot, generation=grant.generation)
    )
    bench.until(1)
    assert bench.faults == [("t1", Reason.FRAME_MISMATCH)]
    assert bench.seat.counts["refused"] == 1
    assert len(camera.peer.hear(m.Credit).grants) == 1


def test_a_frame_of_another_size_is_a_bad_image_that_names_both(bench: Bench) -> None:
    camera = bench.connect()
    name = bench.grab(camera, "t1")
    camera.send(name, 1, camera.grants[0], OTHER)
    bench.until(1)
    got = bench.framed[0][1]
    assert isinstance(got, Fault)
    assert got.reason is Reason.BAD_IMAGE
    assert "8x8" in got.detail
    assert "96x64" in got.detail
    assert len(camera.peer.hear(m.Credit).grants) == 1


def test_frames_of_a_message_camera_that_do_not_fit_cost_no_credit(bench: Bench) -> None:
    """Else a camera in a wrong mode is dead for good after as many frames as it has slots."""
    camera = bench.connect(m.Transport.MESSAGE)
    for number, (frame, pixels) in enumerate([(OTHER, bytes(64)), (FRAME, b"short"), (OTHER, bytes(64))]):
        name = bench.grab(camera, f"t{number}")
        camera.peer.say(m.Frame(epoch=EPOCH, trigger_id=name, counter=number + 1, frame=frame), pixels)
        bench.until(number + 1)
        assert camera.peer.hear(m.Credit).messages == 1
        assert bench.seat.room == SLOTS
    assert {reason for _, reason in bench.faults} == {Reason.BAD_IMAGE}
    name = bench.grab(camera, "good")
    camera.peer.say(m.Frame(epoch=EPOCH, trigger_id=name, counter=9, frame=FRAME), PIXELS)
    bench.until(4)
    assert isinstance(bench.framed[-1][1], HeldFrame)


def test_a_message_camera_that_sends_beyond_its_credit_gets_overload_and_no_more_credit(bench: Bench) -> None:
    camera = bench.connect(m.Transport.MESSAGE)
    for number in range(4):
        bench.seat.outstanding.clear()
        name = bench.grab(camera, f"t{number}")
        camera.peer.say(m.Frame(epoch=EPOCH, trigger_id=name, counter=number + 1, frame=FRAME), PIXELS)
        bench.until(number + 1)
    assert bench.faults == [("t2", Reason.OVERLOAD), ("t3", Reason.OVERLOAD)]
    assert bench.seat.credits == 0


def test_a_grab_that_is_never_answered_does_not_count_against_the_camera_for_ever(bench: Bench) -> None:
    camera = bench.connect()
    bench.grab(camera, "t1")
    camera.peer.say(m.Heartbeat(epoch=EPOCH))
    bench.take(60_000_000_000)
    bench.cameras.tick(60_000_000_000)
    assert bench.seat.room == SLOTS - 1  # its trigger is open
    bench.open.clear()
    bench.cameras.tick(60_000_000_000)
    assert bench.seat.room == SLOTS


def test_a_camera_that_goes_silent_leaves_no_trigger_waiting(bench: Bench) -> None:
    camera = bench.connect()
    bench.grab(camera, "t1")
    bench.cameras.tick(LAPSE)
    assert bench.faults == [("t1", Reason.NO_FRAME)]
    assert (bench.seat.peer, bench.seat.ok, bench.seat.slots) == (None, False, None)
    assert list(bench.folder.glob("*.ring")) == []
    assert not bench.cameras.grab(bench.seat, acceptance("t2").key, None, 0)
    camera.hello(bench.mode, m.Transport.MEMORY)
    bench.take(LAPSE)
    assert bench.seat.peer is not None


def test_a_frame_for_an_earlier_ring_takes_no_slot_of_the_new_one(bench: Bench) -> None:
    camera = bench.connect()
    name, old = bench.grab(camera, "t1"), camera.grants[0]
    bench.cameras.lay_out(bench.seat)  # another bundle was activated
    camera.peer.say(
        m.Frame(epoch=EPOCH, trigger_id=name, counter=1, frame=FRAME, slot=old.slot, generation=old.generation)
    )
    bench.until(1)
    assert bench.faults == [("t1", Reason.FRAME_MISMATCH)]
    camera.greeted()
    fresh = camera.peer.hear(m.Credit).grants
    assert bench.seat.slots is not None
    assert bench.seat.slots.granted == SLOTS
    camera.send(bench.grab(camera, "t2"), 2, fresh[0])
    bench.until(2)
    assert isinstance(bench.framed[1][1], HeldFrame)


@pytest.mark.parametrize("change", [{"name": "side"}, {"trigger": m.TriggerMode.STREAM}], ids=["name", "mode"])
def test_a_camera_that_line_toml_does_not_have_is_refused(bench: Bench, change: dict[str, object]) -> None:
    hello = m.CameraHello(name="top", instance=instance(), trigger=m.TriggerMode.SOFTWARE, transport=m.Transport.MEMORY)
    peer = bench.port.peer()
    peer.say(hello.model_copy(update=change))
    peer.say(m.CameraState(ok=True))
    bench.port.take_until(bench.cameras.on_message, lambda: bench.port.counters["refused"] == 2, 0)
    assert peer.hear(m.Refused).code is m.Code.UNKNOWN_CAMERA
    assert peer.hear(m.Refused).code is m.Code.HELLO_FIRST
    assert bench.seat.peer is None


def test_a_second_live_process_for_a_camera_is_refused(bench: Bench) -> None:
    bench.connect()
    second = Camera(bench.port.peer())
    second.hello(bench.mode, m.Transport.MEMORY)
    bench.take()
    assert second.peer.hear(m.Refused).code is m.Code.NAME_IN_USE


def test_what_a_camera_says_of_its_source_is_its_condition(bench: Bench) -> None:
    camera = bench.connect()
    for state in (m.CameraState(ok=True, exposures=4, dropped=1), m.CameraState(ok=False, detail="no signal")):
        camera.peer.say(state)
        bench.take()
        assert (bench.seat.ok, bench.seat.detail) == (state.ok, state.detail)
    assert bench.seat.exposures == 4


@pytest.mark.parametrize("counter", [1, 2**63 - 1])
def test_counters_of_any_size_stay_within_what_an_answer_can_hold(
    port: BoundPort, tmp_path: Path, counter: int
) -> None:
    """Of a stream, exposures count on over restarts of the camera process."""
    bench = Bench(port, tmp_path, m.TriggerMode.STREAM, "process")
    for _ in range(2):
        camera = bench.connect()
        camera.peer.say(m.CameraState(ok=True, exposures=counter))
        camera.send(None, counter, camera.grants[0])
        before = len(bench.framed)
        bench.until(before + 1)
        bench.cameras.on_gone("top", "ended")
    assert bench.exposed == [counter, min(2 * counter, 2**63 - 1)]


def test_an_exposure_that_is_announced_twice_leaves_no_slot_behind(port: BoundPort, tmp_path: Path) -> None:
    bench = Bench(port, tmp_path, m.TriggerMode.HARDWARE, "process")
    camera = bench.connect()
    for grant in camera.grants:
        camera.send(None, 7, grant)
    bench.port.take_until(bench.cameras.on_message, lambda: bench.seat.counts["unmatched"] == 2, 0)
    assert bench.mismatches == ["exposure counter went to 7, expected 8"]
    assert bench.seat.waiting == {}
    assert bench.seat.slots is not None
    assert bench.seat.slots.granted == SLOTS


def test_a_hardware_trigger_gets_the_exposure_that_comes_with_it(port: BoundPort, tmp_path: Path) -> None:
    bench = Bench(port, tmp_path, m.TriggerMode.HARDWARE, "process")
    camera = bench.connect()
    trigger = bench.trigger("t1")
    bench.cameras.expect(bench.seat, trigger.acceptance.key, 0)
    camera.send(None, 5, camera.grants[0])
    bench.until(1)
    assert (bench.framed[0][0], trigger.counter, trigger.label) == ("t1", 5, "a.png")
    late = bench.trigger("t2")
    bench.cameras.expect(bench.seat, late.acceptance.key, 2 * WINDOW)
    bench.cameras.tick(3 * WINDOW + 1)
    assert bench.mismatches == ["trigger t2 had no exposure in time"]
    assert bench.cameras.resync(bench.seat)


def test_frames_of_clients_are_stored_without_any_camera(port: BoundPort, tmp_path: Path) -> None:
    bench = Bench(port, tmp_path, m.TriggerMode.SOFTWARE, "client")
    held = [bench.cameras.store(bench.seat, FRAME, PIXELS) for _ in range(SLOTS + 1)]
    assert [type(one) for one in held] == [HeldFrame, HeldFrame, Fault]
    for frame, pixels, reason in [
        (None, PIXELS, Reason.NO_FRAME),
        (FRAME, None, Reason.NO_FRAME),
        (OTHER, bytes(64), Reason.BAD_IMAGE),
        (FRAME, b"", Reason.OVERLOAD),
    ]:
        got = bench.cameras.store(bench.seat, frame, pixels)
        assert isinstance(got, Fault)
        assert got.reason is reason
    bench.cameras.close()
    assert list(bench.folder.glob("*.ring")) == []


def test_hellos_that_queued_up_while_the_service_was_away_are_answered_by_one_welcome(bench: Bench) -> None:
    camera = bench.connect()
    before = sorted(bench.folder.iterdir())
    for _ in range(5):
        camera.hello(bench.mode, m.Transport.MEMORY)
    bench.take(now_ns=1_000_000)
    camera.send(bench.grab(camera, "t1"), 1, camera.grants[0])  # the next that the camera hears is the GRAB
    bench.until(1)
    assert isinstance(bench.framed[0][1], HeldFrame)
    assert sorted(bench.folder.iterdir()) == before


def test_a_slot_that_was_announced_with_a_wrong_generation_is_granted_anew(bench: Bench) -> None:
    camera = bench.connect()
    grant = camera.grants[0]
    wrong = m.SlotGrant(slot=grant.slot, generation=grant.generation + 5)
    camera.send(bench.grab(camera, "t1"), 1, wrong)
    bench.until(1)
    assert bench.faults == [("t1", Reason.FRAME_MISMATCH)]
    again = camera.peer.hear(m.Credit).grants
    assert [(new.slot, new.generation > grant.generation) for new in again] == [(grant.slot, True)]
    camera.send(bench.grab(camera, "t2"), 2, again[0])
    bench.until(2)
    assert isinstance(bench.framed[1][1], HeldFrame)


@pytest.mark.parametrize("wanted", [known for known in PixelFormat if known.canonical is known])
@pytest.mark.parametrize("given", list(PixelFormat))
def test_frames_are_taken_that_become_the_bundles_without_loss_and_no_others(
    given: PixelFormat, wanted: PixelFormat
) -> None:
    def spec(pixel_format: PixelFormat, width: int = 6) -> m.FrameSpec:
        return m.FrameSpec(width=width, height=4, pixel_format=pixel_format)

    pixels = np.ones((4, 6, given.channels), given.dtype)
    pixels[0, 0, 0] = 2  # no colour frame is grey
    try:
        Frame(pixels, given).as_format(wanted)
        becomes = True
    except DataError:
        becomes = False
    assert suits(spec(given), spec(wanted)) == becomes
    assert not suits(spec(given, width=5), spec(wanted))
    if becomes:  # the slots are made for the bundle's frames
        assert spec(given).nbytes <= spec(wanted).nbytes
