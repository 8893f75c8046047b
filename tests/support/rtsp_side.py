"""A network camera, as simple as can be: real RTSP over TCP, real JPEG pictures (RFC 2435), one exposure a period.

The picture's brightness goes up by one step with each exposure, so that a frame tells when it was taken.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
STEPS = 60  # brightness repeats after so many exposures
_STEP = 4
_PERIOD_S = 0.04
_QUALITY = 90
_CLOCK_HZ = 90_000


def exposure_of(brightness: float) -> int:
    """Number of the exposure, modulo `STEPS`, that a frame of this brightness shows."""
    return round(brightness / _STEP) % STEPS


class NetworkCamera:
    """Serves one client at a time; `exposed` holds when each exposure was taken."""

    def __init__(self) -> None:
        """Listen on a free port of loopback."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self.exposed: list[float] = []
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/stream"

    def serve(self) -> None:
        """Answer clients until `stop`."""
        self._server.settimeout(0.05)
        while not self._stopping.is_set():
            with suppress(OSError), self._server.accept()[0] as client:
                client.settimeout(5)
                self._greet(client)
                self._play(client)
        self._server.close()

    def stop(self) -> None:
        """Serve no more, at once: as if unplugged."""
        self._stopping.set()

    def _greet(self, client: socket.socket) -> None:
        data = b""
        while not self._stopping.is_set():
            while b"\r\n\r\n" not in data:
                more = client.recv(4096)
                if not more:
                    raise ConnectionResetError
                data += more
            request, _, data = data.partition(b"\r\n\r\n")
            client.sendall(self._answer(request.decode()))
            if request.startswith(b"PLAY"):
                return

    def _answer(self, request: str) -> bytes:
        method, *_ = request.split()
        number = next(line.split(":")[1].strip() for line in request.splitlines() if line.lower().startswith("cseq"))
        extra, body = "", ""
        if method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=t\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track0\r\n"
            extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n{extra}\r\n{body}".encode()

    def _play(self, client: socket.socket) -> None:
        begin, first = time.monotonic(), len(self.exposed)
        while not self._stopping.is_set():
            number = len(self.exposed)
            due = begin + (number - first) * _PERIOD_S
            time.sleep(max(0.0, due - time.monotonic()))
            self.exposed.append(time.monotonic())
            stamp = int((number - first) * _PERIOD_S * _CLOCK_HZ) & 0xFFFFFFFF
            packet = struct.pack(">BBHII", 0x80, 0x80 | 26, number & 0xFFFF, stamp, 1) + _picture(number)
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


def _picture(number: int) -> bytes:
    """One exposure as RTP payload: the header of RFC 2435 (4:2:0, default tables) and the JPEG's scan."""
    pixels = np.full((HEIGHT, WIDTH, 3), number % STEPS * _STEP, dtype=np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    jpeg = data.tobytes()
    scan = jpeg.index(b"\xff\xda")
    scan += 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    return struct.pack(">IBBBB", 0, 1, _QUALITY, WIDTH // 8, HEIGHT // 8) + jpeg[scan:-2]


@contextmanager
def network_camera() -> Iterator[NetworkCamera]:
    """A network camera that is on."""
    camera = NetworkCamera()
    thread = threading.Thread(target=camera.serve)
    thread.start()
    try:
        yield camera
    finally:
        camera.stop()
        thread.join()
