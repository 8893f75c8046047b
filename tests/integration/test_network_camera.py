"""Frames of a network camera through OpenCV and FFmpeg as installed, over real RTSP."""

import time

import pytest
from support.rtsp_side import STEPS, NetworkCamera, exposure_of, network_camera

from edge_runtime.camera.fresh import FreshSource
from edge_runtime.camera.video import LiveSource, rtsp
from edge_runtime.errors import CameraError
from edge_runtime.imaging.frames import Frame


def exposed(camera: NetworkCamera, frame: Frame) -> float:
    """When a frame was exposed."""
    number = exposure_of(float(frame.pixels.mean()))
    return max(when for index, when in enumerate(camera.exposed) if index % STEPS == number)


def test_a_frame_was_exposed_after_it_was_asked_for() -> None:
    with network_camera() as camera:
        source = FreshSource(rtsp(camera.url))
        source.open()
        for pause in (0.0, 0.3, 0.01):
            time.sleep(pause)
            source.check()
            asked = time.monotonic()
            assert exposed(camera, source.grab().frame) > asked
        source.close()


def test_a_camera_that_is_switched_off_is_noticed() -> None:
    with network_camera() as camera:
        source = FreshSource(rtsp(camera.url))
        source.open()
        camera.stop()
        with pytest.raises(CameraError, match="see that the camera is on"):
            source.grab()
        with pytest.raises(CameraError, match="see that the camera is on"):
            source.check()
        source.close()


def test_every_frame_of_a_stream_is_given_in_order() -> None:
    with network_camera() as camera:
        source = LiveSource(rtsp(camera.url))
        source.open()
        numbers = [exposure_of(float(source.grab().frame.pixels.mean())) for _ in range(10)]
        source.close()
    assert numbers == [(numbers[0] + step) % STEPS for step in range(10)]
