"""A camera of source `process` that paints what the part's name says: `python part_camera.py ADDRESS NAME TRANSPORT SEED`.

It answers the GRABs that wait in any order, so an answer that went to the wrong part has the wrong score. Of the
product it uses the slots in shared memory alone; the messages are its own.
"""

import os
import random
import sys
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import codec, parts
from faults.ledger import stop_with_stdin

from edge_runtime.errors import CameraError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import FrameSpec, SlotGrant
from edge_runtime.protocol.ring import Ring

_LONGEST_MS = 25  # an exposure


class PartCamera:
    """One camera process."""

    def __init__(self, address: str, name: str, transport: str, seed: int) -> None:
        """Nothing is known of the service yet."""
        self._dealer = codec.Dealer(address)
        self._name = name
        self._transport = transport
        self._draw = random.Random(seed)
        self._instance = uuid.uuid4().hex
        self._epoch: int | None = None
        self._ring: Ring | None = None
        self._grants: deque[SlotGrant] = deque()
        self._credits = 0
        self._exposures = 0
        self._spoke = 0.0
        self._heard = 0.0
        self._waiting: list[dict[str, Any]] = []

    def turn(self) -> None:
        """Listen, expose one of the frames that were asked for, give signs of life."""
        now = time.monotonic()
        if now - self._heard > codec.LAPSE_S:
            self._epoch = None
        if now - self._spoke > (codec.HELLO_S if self._epoch is None else codec.HEARTBEAT_S):
            self._spoke = now
            self._speak()
        for number, header in self._dealer.receive(0.0 if self._waiting else 0.05):
            self._heard = time.monotonic()
            self._take(number, header)
        if self._waiting:
            time.sleep(self._draw.randrange(_LONGEST_MS) / 1000)
            self._expose(self._waiting.pop(self._draw.randrange(len(self._waiting))))

    def _speak(self) -> None:
        if self._epoch is None:
            hello = {"name": self._name, "instance": self._instance, "trigger": "software"}
            self._dealer.send(codec.CAMERA_HELLO, {**hello, "transport": self._transport, "pid": os.getpid()})
        else:
            self._dealer.send(codec.HEARTBEAT, {"epoch": self._epoch})
            self._tell()

    def _tell(self) -> None:
        self._dealer.send(codec.CAMERA_STATE, {"ok": True, "exposures": self._exposures})

    def _take(self, number: int, header: dict[str, Any]) -> None:
        if number == codec.CAMERA_WELCOME:
            self._welcome(header)
        elif number == codec.CREDIT:
            self._grants.extend(SlotGrant(**grant) for grant in header.get("grants", ()))
            self._credits += header.get("messages", 0)
        elif number == codec.GRAB and header["epoch"] == self._epoch:
            self._waiting.append(header)
        elif number == codec.REFUSED or (number == codec.HEARTBEAT and header["epoch"] != self._epoch):
            self._epoch = None

    def _welcome(self, header: dict[str, Any]) -> None:
        self._grants.clear()
        self._waiting.clear()
        self._credits = 0
        ring = header["ring"]
        try:
            if ring is not None:
                self._ring = Ring(Path(ring["path"]), slots=ring["slots"], size=ring["slot_bytes"])
        except CameraError:  # the broker that made it is gone again
            self._epoch = None
            return
        self._epoch = header["epoch"]
        self._tell()

    def _expose(self, grab: dict[str, Any]) -> None:
        self._exposures += 1
        said = {"epoch": self._epoch, "trigger_id": grab["trigger_id"], "counter": self._exposures, "frame": None}
        frame = parts.paint(parts.value_of(grab["part_id"] or ""), self._draw)
        layout = {"width": parts.WIDTH, "height": parts.HEIGHT, "pixel_format": "mono8"}
        if self._transport == "message" and self._credits > 0:
            self._credits -= 1
            self._dealer.send(codec.FRAME, {**said, "frame": layout}, frame.tobytes())
        elif self._ring is not None and self._grants:
            grant = self._grants.popleft()
            spec = FrameSpec(width=parts.WIDTH, height=parts.HEIGHT, pixel_format=PixelFormat.MONO8)
            self._ring.write(grant, spec, frame)
            self._dealer.send(codec.FRAME, {**said, "frame": layout, **grant.model_dump()})
        else:
            self._dealer.send(codec.FRAME, {**said, "fault": "OVERLOAD", "detail": "no credit"})


def main() -> None:
    """Until stdin ends."""
    address, name, transport, seed = sys.argv[1:]
    stop = stop_with_stdin()
    camera = PartCamera(address, name, transport, int(seed))
    while not stop.is_set():
        camera.turn()


if __name__ == "__main__":
    main()
