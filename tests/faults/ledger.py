"""What an independent process saw, a line at a time, in a file that survives its being killed at any instant."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of JSON lines; each is with the operating system before `put` returns."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; half a line that a kill left behind is cut off."""
        self.earlier = read_ledger(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        content = path.read_bytes()
        os.truncate(self._descriptor, content.rfind(b"\n") + 1)

    def put(self, did: str, **fields: Any) -> None:  # noqa: ANN401 - whatever JSON takes
        """Append a line, with the time on the clock that all processes of a machine share."""
        line = json.dumps({"did": did, "at": time.monotonic_ns(), **fields}) + "\n"
        os.write(self._descriptor, line.encode())


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none where there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def stop_with_stdin() -> threading.Event:
    """An event that is set when stdin ends: whoever started this process wants it to stop, or is gone."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    return stop
