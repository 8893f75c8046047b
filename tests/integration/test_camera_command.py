"""`takt camera` as a process of its own: how it starts and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.broker_side import BrokerSide
from support.cameras import write_images

from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import Frame, FrameSpec

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from edge_runtime.commands.camera import camera; sys.exit(camera(sys.argv[1:]))",
]
SPEC = FrameSpec(width=8, height=6, pixel_format=PixelFormat.MONO8)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerSide]:
    with BrokerSide(tmp_path, SPEC) as broker:
        yield broker


@contextmanager
def started(folder: Path, broker: BrokerSide, source: str) -> Iterator["subprocess.Popen[str]"]:
    file = folder / "camera.toml"
    file.write_text(f'endpoint = "{broker.endpoint}"\nname = "top"\nsource = "{source}"\n')
    process = subprocess.Popen(
        [*COMMAND, "--config", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_camera_serves_frames_until_a_signal_and_leaves_with_0(
    broker: BrokerSide, tmp_path: Path, number: signal.Signals
) -> None:
    write_images(tmp_path / "images", a=7)
    with started(tmp_path, broker, "folder:images") as process:
        assert broker.greet().pid == process.pid
        broker.state(lambda state: state.ok)
        broker.grab("t1")
        assert broker.wait(Frame).label == "a.png"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    events = [json.loads(line) for line in err.splitlines()]
    assert {"camera_starts", "camera_welcome", "camera_stops"} <= {event["event"] for event in events}
    assert {event["process"] for event in events} == {"camera:top"}


def test_a_camera_leaves_with_0_in_the_middle_of_a_source_that_hangs(broker: BrokerSide, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        started(tmp_path, broker, f"rtsp:rtsp://127.0.0.1:{server.getsockname()[1]}/s") as process,
    ):
        broker.greet()
        connection, _ = server.accept()
        process.terminate()
        process.communicate(timeout=20)
        connection.close()
    assert process.returncode == 0


def test_a_configuration_that_cannot_be_used_is_told_at_once(broker: BrokerSide, tmp_path: Path) -> None:
    with started(tmp_path, broker, "client") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "a camera process takes folder:DIR" in err
