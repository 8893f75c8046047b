import socket
from pathlib import Path

import pytest
from support.cameras import ToyDevice, write_video

from edge_runtime.camera import video
from edge_runtime.camera.folder import FolderSource
from edge_runtime.camera.fresh import FreshSource
from edge_runtime.camera.source import Source, make_source
from edge_runtime.camera.video import Device, LiveSource, VideoFileSource
from edge_runtime.errors import CameraError, ConfigError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import TriggerMode
from edge_runtime.service.config import parse_source


def toy(device: ToyDevice) -> Device:
    return Device(name="toy", capture=lambda: device, advice="plug it in", delay_s=0.0)


def opened(source: Source) -> Source:
    source.open()
    return source


def test_a_video_file_gives_its_frames_in_order_and_begins_again_at_its_end(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", [10, 60, 110])
    source = opened(VideoFileSource(tmp_path / "clip.avi", period_s=1.0))
    captured = [source.grab() for _ in range(7)]
    assert [round(float(c.frame.pixels.mean()), -1) for c in captured] == [10, 60, 110, 10, 60, 110, 10]
    assert [c.label for c in captured][2:4] == ["clip.avi#3", "clip.avi#1"]
    assert captured[0].frame.format is PixelFormat.RGB8
    source.close()


def test_a_video_file_has_its_own_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", [0], rate=20.0)
    source = VideoFileSource(tmp_path / "clip.avi", period_s=7.0)
    assert source.period_s == 7.0
    source.open()
    assert source.period_s == pytest.approx(0.05)
    source.close()


def test_a_video_file_that_is_gone_or_none_says_so_and_can_be_opened_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    source = VideoFileSource(path, period_s=1.0)
    with pytest.raises(CameraError, match=r"clip\.avi: the video file is not there"):
        source.open()
    path.write_bytes(b"no video" * 100)
    with pytest.raises(CameraError, match="is no video that can be read"):
        source.open()
    write_video(path, [50])
    source.open()
    source.check()
    path.unlink()
    with pytest.raises(CameraError, match="not there"):
        source.check()
    source.close()


def test_every_frame_of_a_live_device_is_given_until_it_is_unplugged() -> None:
    device = ToyDevice(period_s=0.001)
    source = opened(LiveSource(toy(device)))
    begins = [device.exposed(source.grab().frame.pixels) for _ in range(20)]
    assert begins == pytest.approx([device.begin + number * 0.001 for number in range(20)])
    device.gone = True
    with pytest.raises(CameraError, match="toy: stopped giving frames: plug it in"):
        source.grab()
    with pytest.raises(CameraError, match="toy: cannot be opened: plug it in"):
        source.open()
    source.close()
    assert device.released


def test_a_network_camera_that_nobody_answers_for_cannot_be_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    source = FreshSource(video.rtsp(f"rtsp://user:secret@127.0.0.1:{port}/stream"))
    with pytest.raises(CameraError, match=f"rtsp:rtsp://127.0.0.1:{port}/stream: cannot be opened") as caught:
        source.open()
    assert "secret" not in str(caught.value)


@pytest.mark.timeout(
    60
)  # without limits of its own, OpenCV waits half a minute for the opening alone, and more to read
def test_a_network_camera_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "TIMEOUT_MS", 300)
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = LiveSource(video.rtsp(f"rtsp://127.0.0.1:{server.getsockname()[1]}/stream"))
        with pytest.raises(CameraError, match="cannot be opened: see that the camera is on"):
            source.open()


def test_a_usb_camera_that_is_not_plugged_in_cannot_be_opened() -> None:
    with pytest.raises(CameraError, match="usb:63: cannot be opened: plug it in"):
        FreshSource(video.usb(63)).open()


@pytest.mark.parametrize(
    ("text", "trigger", "expected"),
    [
        ("folder:images", TriggerMode.SOFTWARE, FolderSource),
        ("video:clip.avi", TriggerMode.STREAM, VideoFileSource),
        ("usb:0", TriggerMode.SOFTWARE, FreshSource),
        ("usb:0", TriggerMode.HARDWARE, LiveSource),
        ("rtsp:rtsp://camera/stream", TriggerMode.SOFTWARE, FreshSource),
        ("rtsp:rtsp://camera/stream", TriggerMode.STREAM, LiveSource),
    ],
)
def test_a_live_device_gives_fresh_frames_to_triggers_and_every_frame_otherwise(
    text: str, trigger: TriggerMode, expected: type
) -> None:
    assert type(make_source(parse_source(text), trigger=trigger, period_ms=100)) is expected


def test_a_client_is_no_source_of_a_camera_process() -> None:
    with pytest.raises(ConfigError, match="takes folder:DIR"):
        make_source(parse_source("client"), trigger=TriggerMode.SOFTWARE, period_ms=100)
