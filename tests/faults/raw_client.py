"""A client of the trigger socket without the library: every trigger is sent until it is answered, over any number of lives.

Its ledger is its memory: a new life goes on with the triggers that the last one left open, in their old epochs. Now and
then it sends an answered trigger once more, as a retry whose answer was lost would.
"""

import random
import time
import uuid
from typing import Any

from faults import codec, parts
from faults.ledger import Ledger

READY = frozenset({"Ready", "SingleExecution", "ContinuousExecution"})
_AGAIN_S = 1.0  # between two sendings of an open trigger
_ONCE_MORE = 0.04  # share of answered triggers that are sent again


class RawClient:
    """One life of a client."""

    def __init__(self, address: str, name: str, ledger: Ledger, load: "Load") -> None:
        """Take up what the ledger holds."""
        self._dealer = codec.Dealer(address)
        self._name = name
        self._ledger = ledger
        self._load = load
        self._instance = uuid.uuid4().hex
        self._epoch: int | None = None
        self._state = ""
        self._next_speak = self._heard = 0.0
        self._sent: dict[tuple[int, str], dict[str, Any]] = {}
        self._again: dict[tuple[int, str], float] = {}  # open triggers, and when to send them again
        for line in ledger.earlier:
            if line["did"] == "sent":
                self._sent[_key(line["trigger"])] = line
                self._again[_key(line["trigger"])] = 0.0
            elif line["did"] == "answer":
                self._again.pop(_key(line["answer"]), None)

    @property
    def open(self) -> int:
        """How many triggers wait for an answer."""
        return len(self._again)

    def turn(self, *, more: bool) -> None:
        """Listen for a moment, give signs of life, send what is due; with `more`, new triggers too."""
        for number, header in self._dealer.receive(0.01):
            self._heard = time.monotonic()
            self._take(number, header)
        now = time.monotonic()
        if self._epoch is not None and now - self._heard > codec.LAPSE_S:
            self._epoch = None
        if now >= self._next_speak:
            self._next_speak = now + (codec.HELLO_S if self._epoch is None else codec.HEARTBEAT_S)
            self._speak()
        if self._epoch is None:
            return
        for key in [key for key, due in self._again.items() if now >= due]:
            self._send(key)
        if more and self._load.due(now):
            self._trigger()

    def _speak(self) -> None:
        if self._epoch is None:
            self._dealer.send(codec.CLIENT_HELLO, {"name": self._name, "instance": self._instance})
        else:
            self._dealer.send(codec.HEARTBEAT, {"epoch": self._epoch})

    def _trigger(self) -> None:
        order = self._load.draw(self._name)
        trigger = {"epoch": self._epoch, **order["trigger"]}
        line = {**order, "trigger": trigger, "ready": self._state in READY}
        self._ledger.put("sent", **line)  # before it is: a kill in between must not lose it
        self._sent[_key(trigger)] = line
        self._again[_key(trigger)] = 0.0
        self._send(_key(trigger))

    def _send(self, key: tuple[int, str]) -> None:
        line = self._sent[key]
        frame = None
        if line["spot"] is not None:
            frame = parts.paint(line["value"], random.Random(line["spot"])).tobytes()
        if key in self._again:
            self._again[key] = time.monotonic() + _AGAIN_S
        self._dealer.send(codec.TRIGGER, line["trigger"], frame)

    def _take(self, number: int, header: dict[str, Any]) -> None:
        if number == codec.ANSWER:
            self._answered(header)
        elif number == codec.QUEUED:
            self._ledger.put("queued", epoch=header["epoch"], trigger_id=header["trigger_id"])
        elif number == codec.CLIENT_WELCOME:
            self._epoch, self._state = header["epoch"], header["state"]
            self._ledger.put("welcome", epoch=self._epoch)
            self._again = dict.fromkeys(self._again, 0.0)
        elif number == codec.HEARTBEAT:
            self._state = header.get("state") or ""
            if header["epoch"] != self._epoch:
                self._epoch = None
        elif number == codec.REFUSED:
            self._refused(header)

    def _answered(self, answer: dict[str, Any]) -> None:
        self._ledger.put("answer", silent=False, accepted=None, answer=answer)
        key = _key(answer)
        first = self._again.pop(key, None) is not None
        if first and self._load.chance(_ONCE_MORE) and key in self._sent:
            self._send(key)

    def _refused(self, refused: dict[str, Any]) -> None:
        if refused["code"] == "HELLO_FIRST":
            self._epoch, self._next_speak = None, 0.0
        elif refused["code"] == "NAME_IN_USE":
            self._epoch, self._next_speak = None, time.monotonic() + codec.LAPSE_S
        else:
            self._ledger.put("refused", refused=refused)


class Load:
    """What a client asks for: parts of random truth on all cameras in turn, at a steady rate."""

    def __init__(self, seed: int, rate: float, cameras: list[str], folder_camera: str, client_camera: str) -> None:
        """Start now.

        Args:
            seed: of everything random here.
            rate: triggers a second.
            cameras: names.
            folder_camera: the one whose files bring their own truth.
            client_camera: the one that takes the client's frame.
        """
        self._draw = random.Random(seed)
        self._rate = rate
        self._cameras = cameras
        self._folder_camera = folder_camera
        self._client_camera = client_camera
        self._life = uuid.uuid4().hex[:6]
        self._count = 0
        self._next = time.monotonic()

    def due(self, now: float) -> bool:
        """Whether it is time for the next part; a process that was held up does not catch up."""
        if now < self._next:
            return False
        self._next = now + self._draw.uniform(0.5, 1.5) / self._rate
        return True

    def chance(self, share: float) -> bool:
        """True in so many cases."""
        return self._draw.random() < share

    def draw(self, client: str) -> dict[str, Any]:
        """A part: its trigger without epoch, its truth (None where only the frame's label tells), and how to paint it."""
        self._count += 1
        camera = self._cameras[self._count % len(self._cameras)]
        value = parts.draw_value(self._draw)
        serial = f"{client}-{self._life}-{self._count}"
        trigger: dict[str, Any] = {
            "trigger_id": serial,
            "camera": camera,
            "part_id": parts.name_part(value, serial),
            "deadline_ms": self._draw.randrange(1500, 3001),
        }
        given = camera == self._client_camera
        if given:
            trigger["frame"] = {"width": parts.WIDTH, "height": parts.HEIGHT, "pixel_format": "mono8"}
        from_folder = camera == self._folder_camera
        return {
            "trigger": trigger,
            "value": None if from_folder else value,
            "spot": self._draw.randrange(2**31) if given else None,
        }


def _key(said: dict[str, Any]) -> tuple[int, str]:
    return said["epoch"], said["trigger_id"]
