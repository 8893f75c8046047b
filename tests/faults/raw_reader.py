"""A consumer of the record stream without the library: its ledger is its store, and what it stored it acknowledges."""

import random
import time
import uuid
from typing import Any

from faults import codec
from faults.ledger import Ledger


class RawReader:
    """One life of a named consumer."""

    def __init__(self, address: str, name: str, ledger: Ledger) -> None:
        """Go on after the last record of the ledger."""
        self._dealer = codec.Dealer(address)
        self._name = name
        self._ledger = ledger
        self._instance = uuid.uuid4().hex
        self._draw = random.Random(name)
        self._stored = last_stored(ledger)
        self._welcomed = False
        self._epoch = 0
        self._next_speak = self._heard = 0.0

    def turn(self) -> None:
        """Listen for a moment, store what comes next in order, acknowledge it, give signs of life."""
        stored = self._stored
        for number, header in self._dealer.receive(0.05):
            self._heard = time.monotonic()
            self._take(number, header)
        if self._stored > stored and self._draw.random() < 0.7:  # else later: acknowledgements are cumulative
            self._dealer.send(codec.ACK, {"seq": self._stored})
        now = time.monotonic()
        if self._welcomed and now - self._heard > codec.LAPSE_S:
            self._welcomed = False
        if now >= self._next_speak:
            self._next_speak = now + (codec.HEARTBEAT_S if self._welcomed else codec.HELLO_S)
            self._speak()

    def _speak(self) -> None:
        if self._welcomed:
            self._dealer.send(codec.HEARTBEAT, {"epoch": self._epoch})
            self._dealer.send(codec.ACK, {"seq": self._stored})
        else:
            hello = {"name": self._name, "instance": self._instance, "last_acked": self._stored}
            self._dealer.send(codec.CONSUMER_HELLO, hello)

    def _take(self, number: int, header: dict[str, Any]) -> None:
        if number == codec.RECORD:
            if header["seq"] <= self._stored or not self._welcomed:
                return  # again after a reconnection
            if header["seq"] != self._stored + 1:  # a hole: what follows may not be stored, and is asked for again
                self._ledger.put("hole", after=self._stored, got=header["seq"])
                self._welcomed, self._next_speak = False, 0.0
                return
            self._ledger.put("record", record=header)
            self._stored = header["seq"]
        elif number == codec.CONSUMER_WELCOME:
            self._welcomed, self._epoch = True, header["epoch"]
            self._ledger.put("welcome", epoch=self._epoch, last_acked=header["last_acked"])
        elif number == codec.HEARTBEAT and header["epoch"] != self._epoch:
            self._welcomed = False
        elif number == codec.GAP:
            self._ledger.put("gap", first=header["first"], last=header["last"])
        elif number == codec.REFUSED:
            self._refused(header)

    def _refused(self, refused: dict[str, Any]) -> None:
        self._welcomed = False
        if refused["code"] == "HELLO_FIRST":
            self._next_speak = 0.0
        elif refused["code"] == "NAME_IN_USE":
            self._next_speak = time.monotonic() + codec.LAPSE_S
        else:
            self._ledger.put("refused", refused=refused)


def last_stored(ledger: Ledger) -> int:
    """Seq of the last record in a store; 0 where it is empty."""
    return max((line["record"]["seq"] for line in ledger.earlier if line["did"] == "record"), default=0)
