"""Owns the pipe between the supervisor and its children: one JSON line each way, and the end of it as a death notice.

A child's stdin brings its order as the first line, commands after that; when it ends, the supervisor is gone, however it
went. A child's stdout carries events back. No lock is shared, so a SIGKILL on either side leaves nothing behind.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from edge_runtime.errors import ProtocolError

_SAY = threading.Lock()


def take_order() -> dict[str, Any]:
    """The first line of stdin: what this child is to do.

    Signals of the terminal and of a service manager reach the whole group: only the supervisor acts on them, so they are
    ignored from here on.

    Raises:
        ProtocolError: there is none; children are started by the supervisor, not by hand.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        message = "no order on stdin: this process is started by `takt serve`"
        raise ProtocolError(message)
    order: dict[str, Any] = json.loads(line)
    return order


def say(event: str, **fields: object) -> None:
    """Tell the supervisor something; if it is gone, the end of stdin says so to whom it concerns."""
    try:
        with _SAY:
            sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
            sys.stdout.flush()
    except OSError:
        return


class Lifeline(threading.Thread):
    """Reads the supervisor's commands; `gone` is set when it has died or let go."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        """Read stdin from the second line on.

        Args:
            on_news: called from the thread after a command was queued or `gone` was set; must not block.
        """
        super().__init__(name="lifeline", daemon=True)
        self.gone = threading.Event()
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._on_news = on_news

    def run(self) -> None:
        """Until the end of stdin."""
        read_lines(sys.stdin, self._take)
        self.gone.set()
        self._on_news()

    def commands(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        found = []
        while not self._commands.empty():
            found.append(self._commands.get())
        return found

    def _take(self, command: dict[str, Any]) -> None:
        self._commands.put(command)
        self._on_news()


def die_with_supervisor() -> None:
    """Leave at once when the supervisor is gone, even in the middle of an inference."""
    lifeline = Lifeline(lambda: None)

    def watch() -> None:
        lifeline.gone.wait()
        os._exit(0)

    lifeline.start()
    threading.Thread(target=watch, name="watch", daemon=True).start()


def read_lines(stream: IO[str], take: Callable[[dict[str, Any]], None]) -> None:
    """Hand on each JSON line of a stream until it ends; a line that is none is dropped, as it cannot be answered."""
    try:
        for line in stream:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                take(value)
    except (OSError, ValueError):  # closed under the reader
        return
