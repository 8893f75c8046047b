"""Owns one child process as the supervisor sees it: started, told things, listened to, ended."""

import json
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.service.lifeline import read_lines


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a child said, or that became of it."""

    name: str
    child: str
    fields: dict[str, Any]
    source: "Child | None" = field(default=None, repr=False)


class Child:
    """A running child. Its stdin is the lifeline: when it closes, the child leaves."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", events: "queue.SimpleQueue[Event]") -> None:
        """Listen to a process; its events, the last of which is `gone`, go into the queue."""
        self.name = name
        self.pid = process.pid
        self._process = process
        self._events = events
        self._telling = threading.Lock()
        threading.Thread(target=self._listen, name=f"listen-{name}", daemon=True).start()

    @classmethod
    def start(cls, kind: str, name: str, order: dict[str, Any], events: "queue.SimpleQueue[Event]") -> "Child":
        """Start a child of a kind and give it its order."""
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "edge_runtime.service.child", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        child = cls(name, process, events)
        child._write(order)
        return child

    def tell(self, event: str, **fields: object) -> None:
        """Send a command; a child that is gone does not mind."""
        self._write({"event": event, **fields})

    def let_go(self) -> None:
        """Close the lifeline: the child leaves by itself."""
        with self._telling, suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self, within_s: float) -> None:
        """Wait for it to leave; end it when it does not."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self, value: dict[str, Any]) -> None:
        with self._telling, suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(value) + "\n")
                self._process.stdin.flush()

    def _listen(self) -> None:
        if self._process.stdout is not None:
            read_lines(
                self._process.stdout,
                lambda said: self._events.put(Event(str(said.pop("event", "")), self.name, said, self)),
            )
        exit_code = self._process.wait()
        self._events.put(Event("gone", self.name, {"exit_code": exit_code}, self))
