import threading
import time
from collections.abc import Iterator

import pytest
from support.cameras import ToyDevice

from edge_runtime.camera.fresh import FreshSource
from edge_runtime.camera.source import Captured
from edge_runtime.camera.video import Device
from edge_runtime.errors import CameraError


@pytest.fixture
def device() -> ToyDevice:
    return ToyDevice()


@pytest.fixture
def source(device: ToyDevice) -> Iterator[FreshSource]:
    toy = Device(name="toy", capture=lambda: device, advice="plug it in", delay_s=0.0)
    source = FreshSource(toy, timeout_s=1.5)
    source.open()
    yield source
    source.close()


def test_a_frame_was_exposed_after_it_was_asked_for(source: FreshSource, device: ToyDevice) -> None:
    for pause in (0.0, 0.003, 0.007, 0.02, 0.05):
        time.sleep(pause)
        asked = time.monotonic()
        assert device.exposed(source.grab().frame.pixels) >= asked


def test_frames_that_piled_up_in_a_buffer_are_not_taken_for_new_ones(source: FreshSource, device: ToyDevice) -> None:
    source.grab()
    device.stalled.set()
    time.sleep(0.3)  # thirty frames pile up
    got: list[Captured] = []
    asked = time.monotonic()
    asking = threading.Thread(target=lambda: got.append(source.grab()))
    asking.start()
    time.sleep(0.05)
    device.stalled.clear()  # and arrive at once, after the question
    asking.join()
    assert device.exposed(got[0].frame.pixels) >= asked


def test_a_delay_that_nobody_can_see_is_allowed_for(device: ToyDevice) -> None:
    late = Device(name="late", capture=lambda: device, advice="", delay_s=0.2)
    source = FreshSource(late)
    source.open()
    source.grab()  # the burst after opening is past
    asked = time.monotonic()
    assert device.exposed(source.grab().frame.pixels) >= asked + 0.2
    source.close()


def test_a_device_that_is_unplugged_is_noticed_without_a_trigger_and_opened_again(
    source: FreshSource, device: ToyDevice
) -> None:
    source.check()
    device.gone = True
    with pytest.raises(CameraError, match="toy: stopped giving frames: plug it in"):
        source.grab()
    with pytest.raises(CameraError, match="toy: stopped giving frames"):
        source.check()
    with pytest.raises(CameraError, match="cannot be opened"):
        source.open()
    assert device.released
    device.gone = False
    source.open()
    assert source.grab().label is None


def test_a_device_that_falls_silent_is_given_up_in_bounded_time(device: ToyDevice) -> None:
    toy = Device(name="toy", capture=lambda: device, advice="plug it in", delay_s=0.0)
    source = FreshSource(toy, timeout_s=0.7)
    source.open()
    device.stalled.set()
    with pytest.raises(CameraError, match=r"toy: gave no frame for 0\.7 s: plug it in"):
        source.grab()
    with pytest.raises(CameraError, match=r"gave no frame for 0\.7 s"):
        source.check()
    with pytest.raises(CameraError, match="toy: hangs in an earlier call"):
        source.open()
    assert not device.released  # only the thread that is in a call may let go of the device
    device.stalled.clear()


def test_a_source_that_is_not_open_gives_no_frame(device: ToyDevice) -> None:
    source = FreshSource(Device(name="toy", capture=lambda: device, advice="", delay_s=0.0))
    with pytest.raises(CameraError, match="toy: is not open"):
        source.grab()
