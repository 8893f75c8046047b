"""The camera process against the service's end of the protocol, over real sockets and real shared memory."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.broker_side import BrokerSide
from support.cameras import ScriptedSource, grey, running, write_images, write_video

from edge_runtime.camera import grabber, process
from edge_runtime.decision import Reason
from edge_runtime.errors import CameraError, DataError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import (
    CameraHello,
    CameraWelcome,
    Code,
    Credit,
    Frame,
    FrameSpec,
    RingSpec,
    SlotGrant,
    Transport,
    TriggerMode,
)
from edge_runtime.service.config import CameraFile

SPEC = FrameSpec(width=8, height=6, pixel_format=PixelFormat.MONO8)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerSide]:
    with BrokerSide(tmp_path, SPEC) as broker:
        yield broker


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", a=1, b=2, c=3)
    return tmp_path / "images"


def config(
    broker: BrokerSide,
    source: str = "folder:/nowhere",
    *,
    trigger: TriggerMode = TriggerMode.SOFTWARE,
    transport: Transport = Transport.MEMORY,
    period_ms: int = 10,
) -> CameraFile:
    return CameraFile(
        endpoint=broker.endpoint,
        name="top",
        source=source,
        trigger=trigger,
        transport=transport,
        period_ms=period_ms,
    )


def shown(broker: BrokerSide) -> tuple[str | None, int]:
    """Trigger and brightness of the next frame."""
    frame, pixels = broker.frame_pixels()
    assert pixels is not None, frame
    assert np.ptp(pixels) == 0
    return frame.trigger_id, int(pixels[0, 0])


def settled(broker: BrokerSide) -> None:
    """Greet, and give the camera time to read welcome and credit before its source does anything."""
    broker.greet()
    broker.state(lambda _: True)
    broker.pump(0.2)


# --- hello ------------------------------------------------------------------------------------------------------------


def test_a_camera_says_who_it_is_until_it_is_welcomed(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        first = broker.wait(CameraHello)
        assert broker.wait(CameraHello) == first  # nobody answered
        assert (first.name, first.trigger, first.transport) == ("top", TriggerMode.SOFTWARE, Transport.MEMORY)
        assert first.pid == os.getpid()
        broker.greet()
        assert broker.state(lambda state: state.ok).exposures == 0


def test_a_name_that_is_in_use_is_asked_for_again_later(
    broker: BrokerSide, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LAPSE_S", 1.0)
    with running(config(broker, f"folder:{images}")):
        instance = broker.wait(CameraHello).instance
        broker.refuse(Code.NAME_IN_USE)
        broker.pump(0.3)  # what was on its way
        broker.forget()
        refused = time.monotonic()
        assert broker.greet().instance == instance
        assert time.monotonic() - refused > 0.3  # later than the usual repetition, 0.2 s
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)


def test_a_service_that_forgot_the_camera_is_told_again_and_frames_go_on(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        first = broker.greet()
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)
        assert broker.greet() == first  # the heartbeat of an unknown route got HELLO_FIRST
        broker.grab("t2")
        assert shown(broker) == ("t2", 2)


def test_a_service_that_was_restarted_is_found_again_and_gets_none_of_the_old_orders(broker: BrokerSide) -> None:
    go = threading.Event()
    source = ScriptedSource(1, go, 2, 3)
    with running(config(broker), source):
        first = broker.greet()
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)
        broker.grab(*(f"old-{number}" for number in range(66)))  # one is served, 64 wait, and the last
        assert broker.wait(Frame).fault is Reason.OVERLOAD  # tells that all came
        broker.restart()
        assert broker.greet() == first
        broker.state(lambda _: True)  # the new welcome was read
        go.set()
        broker.grab("new")
        frame, pixels = broker.frame_pixels()
        assert (frame.trigger_id, frame.epoch, frame.counter) == ("new", 2, 3)
        assert pixels is not None
        broker.state(lambda state: state.dropped >= 2)  # an order too many, and the frame for the service that went


def test_a_service_that_falls_silent_is_greeted_anew(broker: BrokerSide, images: Path) -> None:
    broker.lapse_ms = 200
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        broker.mute = True
        broker.pump(0.6)
        broker.mute = False
        broker.hello = None
        assert broker.wait(CameraHello).name == "top"  # without HELLO_FIRST: the route was known


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", list(Transport))
def test_every_grab_gets_the_next_frame_in_order(broker: BrokerSide, images: Path, transport: Transport) -> None:
    with running(config(broker, f"folder:{images}", transport=transport)):
        broker.greet()
        got = []
        for first in range(0, 6, 2):
            broker.grab(f"t{first}", f"t{first + 1}")
            got += [shown(broker), shown(broker)]
            broker.credit(2)
        assert got == [("t0", 1), ("t1", 2), ("t2", 3), ("t3", 1), ("t4", 2), ("t5", 3)]


def test_a_frame_says_which_exposure_and_file_it_is(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        broker.grab("t1", "t2")
        frames = [broker.wait(Frame), broker.wait(Frame)]
        assert [(f.counter, f.label, f.frame, f.fault) for f in frames] == [
            (1, "a.png", SPEC, None),
            (2, "b.png", SPEC, None),
        ]


def test_frames_go_into_the_slots_in_the_order_of_their_grants(broker: BrokerSide, images: Path) -> None:
    broker.slots = 4
    with running(config(broker, f"folder:{images}")):
        broker.greet(grants=0)
        grants = broker.credit(3)
        broker.grab("t1", "t2", "t3")
        frames = [broker.wait(Frame) for _ in range(3)]
        assert [(f.slot, f.generation) for f in frames] == [(g.slot, g.generation) for g in grants]


@pytest.mark.parametrize("transport", list(Transport))
def test_a_frame_beyond_the_credit_is_overload_and_credit_brings_frames_back(
    broker: BrokerSide, images: Path, transport: Transport
) -> None:
    with running(config(broker, f"folder:{images}", transport=transport)):
        broker.greet(grants=1)
        broker.grab("t1", "t2")
        assert shown(broker) == ("t1", 1)
        frame, _ = broker.frame_pixels()
        assert (frame.trigger_id, frame.fault, frame.frame, frame.slot) == ("t2", Reason.OVERLOAD, None, None)
        broker.state(lambda state: (state.exposures, state.dropped) == (2, 1))
        broker.credit(1)
        broker.grab("t3")
        assert shown(broker) == ("t3", 3)


@pytest.mark.parametrize("transport", list(Transport))
def test_a_new_welcome_voids_all_earlier_credit(broker: BrokerSide, images: Path, transport: Transport) -> None:
    with running(config(broker, f"folder:{images}", transport=transport)):
        broker.greet(grants=2)
        broker.welcome()
        broker.grab("t1")
        frame, _ = broker.frame_pixels()
        assert frame.fault is Reason.OVERLOAD
        broker.credit(1)
        broker.grab("t2")
        assert shown(broker) == ("t2", 2)  # in the new ring: `shown` reads no other


def test_a_new_welcome_may_want_other_frames(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)
        broker.frame = FrameSpec(width=8, height=6, pixel_format=PixelFormat.RGB8)
        broker.welcome()
        broker.credit(1)
        broker.grab("t2")
        frame, pixels = broker.frame_pixels()
        assert pixels is not None
        assert (frame.frame, pixels.shape, pixels.max()) == (broker.frame, (6, 8, 3), 2)


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_keep_their_places_and_depths(
    broker: BrokerSide, tmp_path: Path, transport: Transport, dtype: type[np.unsignedinteger]
) -> None:
    rgb = np.arange(6 * 8 * 3).reshape(6, 8, 3).astype(dtype) * (np.iinfo(dtype).max // 144)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), rgb[:, :, ::-1])
    broker.frame = FrameSpec(
        width=8, height=6, pixel_format=PixelFormat.RGB8 if dtype is np.uint8 else PixelFormat.RGB16
    )
    with running(config(broker, f"folder:{tmp_path / 'images'}", transport=transport)):
        broker.greet()
        broker.grab("t1")
        _, pixels = broker.frame_pixels()
        assert np.array_equal(pixels, rgb)


def test_a_folder_of_mosaics_gives_colours_and_files_that_promise_no_depth_give_frames_that_promise_none(
    broker: BrokerSide, tmp_path: Path
) -> None:
    mosaic = np.tile(np.array([[3000, 1600], [1600, 500]], np.uint16), (3, 4))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), mosaic)
    broker.frame = FrameSpec(width=8, height=6, pixel_format=PixelFormat.RGB12)
    stated = config(broker, f"folder:{tmp_path / 'images'}")
    with running(stated.model_copy(update={"pixel_format": PixelFormat.BAYER_RG12})):
        broker.greet()
        broker.grab("t1")
        frame, pixels = broker.frame_pixels()
        assert frame.frame == broker.frame
        assert pixels is not None
        assert pixels.reshape(-1, 3).tolist() == [[3000, 1600, 500]] * 48
    broker.forget()
    broker.frame = FrameSpec(width=8, height=6, pixel_format=PixelFormat.MONO12)
    with running(stated):
        broker.greet()
        broker.grab("t2")
        frame, pixels = broker.frame_pixels()
        assert frame.frame is not None
        assert frame.frame.pixel_format is PixelFormat.MONO16  # nobody said that these are 12 bits
        assert np.array_equal(np.squeeze(pixels), mosaic)


def test_a_video_file_is_a_camera_too(broker: BrokerSide, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", [10, 200])
    broker.frame = FrameSpec(width=64, height=48, pixel_format=PixelFormat.RGB8)
    with running(config(broker, f"video:{tmp_path / 'clip.avi'}")):
        broker.greet()
        broker.grab("t1", "t2")
        frames = [broker.frame_pixels(), broker.frame_pixels()]
        assert [frame.label for frame, _ in frames] == ["clip.avi#1", "clip.avi#2"]
        assert [round(float(pixels.mean()), -1) for _, pixels in frames if pixels is not None] == [10, 200]


def test_a_file_name_that_is_no_unicode_is_a_label_all_the_same(broker: BrokerSide, tmp_path: Path) -> None:
    write_images(tmp_path / "images", a=1)
    (tmp_path / "images/a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/images/\xff.png"))
    with running(config(broker, f"folder:{tmp_path / 'images'}")):
        broker.greet()
        broker.grab("t1")
        assert broker.wait(Frame).label == "?.png"


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_truncated_image_is_bad_image_costs_no_credit_and_the_next_grab_goes_on(
    broker: BrokerSide, images: Path
) -> None:
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:40])
    with running(config(broker, f"folder:{images}")):
        broker.greet(grants=2)
        broker.grab("t1", "t2", "t3")
        assert shown(broker) == ("t1", 1)
        frame, _ = broker.frame_pixels()
        assert (frame.trigger_id, frame.fault, frame.counter) == ("t2", Reason.BAD_IMAGE, 2)
        assert "b.png" in frame.detail
        assert shown(broker) == ("t3", 3)
        assert broker.state(lambda state: state.exposures == 3).ok


def test_a_frame_of_another_size_is_bad_image_and_both_sizes_are_told(broker: BrokerSide, images: Path) -> None:
    cv2.imwrite(str(images / "a.png"), grey(1, width=10, height=4))
    with running(config(broker, f"folder:{images}")):
        broker.greet(grants=1)
        broker.grab("t1", "t2")
        frame, _ = broker.frame_pixels()
        assert frame.fault is Reason.BAD_IMAGE
        assert "10x4" in frame.detail
        assert "8x6" in frame.detail
        assert shown(broker) == ("t2", 2)


def test_a_frame_that_would_lose_its_colour_is_bad_image(broker: BrokerSide, images: Path) -> None:
    cv2.imwrite(str(images / "a.png"), np.dstack([grey(1), grey(2), grey(3)]))
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        broker.grab("t1")
        frame, _ = broker.frame_pixels()
        assert frame.fault is Reason.BAD_IMAGE
        assert "frame is rgb8, the bundle takes mono8" in frame.detail


def test_a_folder_that_vanishes_is_reported_unasked_and_the_camera_recovers_by_itself(
    broker: BrokerSide, images: Path
) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)
        images.rename(images.with_name("away"))
        broker.state(lambda state: not state.ok and "is not there: put it back" in state.detail)
        broker.grab("t2")
        frame, _ = broker.frame_pixels()
        assert (frame.trigger_id, frame.fault) == ("t2", Reason.NO_FRAME)
        assert "is not there: put it back" in frame.detail
        images.with_name("away").rename(images)
        broker.state(lambda state: state.ok)
        broker.grab("t3")
        assert shown(broker) == ("t3", 2)


def test_a_camera_whose_source_is_not_there_at_the_start_waits_for_it(broker: BrokerSide, tmp_path: Path) -> None:
    with running(config(broker, f"folder:{tmp_path / 'images'}")):
        broker.greet()
        assert "is not there" in broker.state(lambda state: "folder" in state.detail).detail
        write_images(tmp_path / "images", a=1)
        assert broker.state(lambda state: state.ok).detail == ""


@pytest.mark.parametrize("error", [CameraError("unplugged: plug it in"), RuntimeError("driver bug"), MemoryError()])
def test_whatever_a_source_throws_the_trigger_is_answered_and_the_source_opened_again(
    broker: BrokerSide, error: Exception
) -> None:
    source = ScriptedSource(error, 2)
    with running(config(broker), source):
        broker.greet()
        broker.grab("t1")
        frame, _ = broker.frame_pixels()
        assert (frame.fault, frame.counter) == (Reason.NO_FRAME, 0)
        assert str(error) in frame.detail
        broker.state(lambda state: not state.ok and state.detail == frame.detail)
        broker.state(lambda state: state.ok)
        assert source.opened == 2
        broker.grab("t2")
        assert shown(broker) == ("t2", 2)


def test_a_source_that_hangs_stops_no_heartbeat_and_is_reported(
    broker: BrokerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grabber, "HANG_S", 0.3)
    go = threading.Event()
    with running(config(broker), ScriptedSource(go, 1, 2)):
        broker.greet()
        broker.state(lambda state: state.ok)
        broker.grab("t1", "t2")
        assert "has not answered" in broker.state(lambda state: not state.ok).detail
        before = broker.heartbeats
        broker.pump(0.3)
        assert broker.heartbeats > before
        go.set()
        assert shown(broker) == ("t1", 1)
        frame, _ = broker.frame_pixels()  # what it shows now is not the part that was there when t2 came
        assert (frame.trigger_id, frame.fault) == ("t2", Reason.NO_FRAME)
        assert broker.state(lambda state: state.ok).exposures == 1


def test_more_orders_than_can_wait_are_overload(broker: BrokerSide) -> None:
    go = threading.Event()
    with running(config(broker), ScriptedSource(go, *range(1, 80))):
        broker.greet()
        broker.grab(*(f"t{number}" for number in range(70)))
        frame, _ = broker.frame_pixels()
        assert frame.fault is Reason.OVERLOAD
        assert "too many triggers" in frame.detail
        go.set()


def test_many_orders_at_once_are_all_served(broker: BrokerSide) -> None:
    broker.slots = 32
    with running(config(broker), ScriptedSource(*range(32))):
        broker.greet()
        broker.grab(*(f"t{number}" for number in range(32)))
        assert [shown(broker) for _ in range(32)] == [(f"t{number}", number) for number in range(32)]


# --- garbage from the service -----------------------------------------------------------------------------------------


def test_garbage_from_the_service_is_dropped_and_frames_go_on(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        good = wire.encode(Credit(messages=1))
        for parts in (
            [b""],
            [b"x"],
            [b"x"] * 9,
            [b"TAKT\x09\x00\x21", b"{}"],
            [good[0], b"{"],
            [b"TAKT\x01\x00\xff", b"{}"],
        ):
            broker.send_raw(parts)
        broker.send(CameraHello(name="top", instance="0" * 32, trigger=TriggerMode.STREAM, transport=Transport.MEMORY))
        broker.send(Frame(epoch=1, trigger_id="t0", counter=1, frame=None))
        broker.epoch += 1
        broker.grab("of-another-epoch")
        broker.epoch -= 1
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)


def test_a_welcome_for_frames_that_no_bundle_takes_changes_nothing(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet()
        frame = FrameSpec(width=8, height=6, pixel_format=PixelFormat.BGR8)
        broker.send(
            CameraWelcome(station="", epoch=1, heartbeat_ms=50, lapse_ms=1000, frame=frame, ring=None),
        )
        broker.grab("t1")
        assert shown(broker) == ("t1", 1)


def test_grants_of_slots_that_there_are_not_are_faults_and_no_crash(broker: BrokerSide, images: Path) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.greet(grants=0)
        broker.send(Credit(grants=(SlotGrant(slot=77, generation=1),)))
        broker.grab("t1")
        frame, _ = broker.frame_pixels()
        assert frame.fault is Reason.NO_FRAME
        assert "slot 77" in frame.detail
        broker.credit(1)
        broker.grab("t2")
        assert shown(broker) == ("t2", 2)


@pytest.mark.parametrize("ring", [None, RingSpec(path="/nowhere/camera.ring", slots=2, slot_bytes=4096)])
def test_a_ring_that_cannot_be_mapped_is_reported_and_asked_for_again(
    broker: BrokerSide, images: Path, ring: RingSpec | None
) -> None:
    with running(config(broker, f"folder:{images}")):
        broker.wait(CameraHello)
        broker.send(CameraWelcome(station="", epoch=1, heartbeat_ms=50, lapse_ms=1000, frame=SPEC, ring=ring))
        detail = broker.state(lambda state: not state.ok and "opened" not in state.detail).detail
        assert ("the camera must run on the service's host" if ring else "no ring") in detail
        broker.grab("t1")
        frame, _ = broker.frame_pixels()
        assert (frame.fault, frame.detail) == (Reason.OVERLOAD, detail)
        for _ in range(4):  # more than were on their way: nobody made it say HELLO again
            broker.wait(CameraHello)
        broker.greet()
        broker.state(lambda state: state.ok)
        broker.grab("t2")
        assert shown(broker) == ("t2", 2)


# --- cameras that run by themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [TriggerMode.HARDWARE, TriggerMode.STREAM])
def test_exposures_are_counted_whether_or_not_they_can_be_delivered(
    broker: BrokerSide, images: Path, trigger: TriggerMode
) -> None:
    with running(config(broker, f"folder:{images}", trigger=trigger)):
        broker.wait(CameraHello)
        broker.pump(0.1)  # exposures before the welcome count, too
        broker.greet(grants=2)
        frames = [broker.wait(Frame) for _ in range(6)]
        counters = [frame.counter for frame in frames]
        assert counters == list(range(counters[0], counters[0] + 6))
        assert counters[0] > 1
        assert [frame.fault for frame in frames] == [None, None, *[Reason.OVERLOAD] * 4]
        assert {frame.trigger_id for frame in frames} == {None}
        assert frames[1].label == ("a.png", "b.png", "c.png")[(frames[1].counter - 1) % 3]
        broker.credit(1)
        delivered = broker.wait(Frame, lambda frame: frame.fault is None)
        assert delivered.counter > counters[-1]
        state = broker.state(lambda state: state.exposures > delivered.counter)
        assert state.dropped >= state.exposures - 3 - 1  # three were delivered, one may be on its way


def test_a_bad_image_of_a_stream_is_an_exposure_with_a_fault(broker: BrokerSide) -> None:
    source = ScriptedSource()
    with running(config(broker, trigger=TriggerMode.STREAM), source):
        settled(broker)
        source.then(1, DataError("torn"), 3)
        frames = [broker.wait(Frame) for _ in range(3)]
        assert [(frame.counter, frame.fault) for frame in frames] == [(1, None), (2, Reason.BAD_IMAGE), (3, None)]


def test_a_stream_that_stops_is_no_exposure_and_goes_on_counting_when_it_is_back(broker: BrokerSide) -> None:
    source = ScriptedSource()
    with running(config(broker, trigger=TriggerMode.STREAM), source):
        settled(broker)
        source.then(1, CameraError("unplugged"))
        assert broker.wait(Frame).counter == 1
        broker.state(lambda state: not state.ok and state.detail == "unplugged")
        broker.state(lambda state: state.ok)
        source.then(2)
        assert broker.wait(Frame).counter == 2


def test_a_stream_that_falls_silent_is_reported_and_an_idle_hardware_line_is_not(
    broker: BrokerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grabber, "HANG_S", 0.2)
    idle = ScriptedSource()
    with running(config(broker, trigger=TriggerMode.STREAM), idle):
        broker.greet()
        assert "has not answered" in broker.state(lambda state: "answered" in state.detail).detail
        idle.then(1)
    with running(config(broker, trigger=TriggerMode.HARDWARE), idle):
        broker.greet()
        broker.state(lambda state: state.ok)
        broker.pump(0.6)
        assert all(state.ok for state in broker.states)
        idle.then(1)


def test_a_grab_for_a_camera_that_runs_by_itself_is_dropped(broker: BrokerSide) -> None:
    source = ScriptedSource()
    with running(config(broker, trigger=TriggerMode.HARDWARE), source):
        settled(broker)
        broker.grab("t1")
        source.then(5)
        assert shown(broker) == (None, 5)
