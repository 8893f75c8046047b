"""Owns the line at full load: several cameras at once for a while, every verdict checked, memory watched."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from edge_runtime.clients import Gateway
from edge_runtime.clients.results import Inspected
from trainer.bench.overhead import connect, header, row
from trainer.bench.subject import FRAMES, Subject, right
from trainer.serving import Service

RATE = 10.0  # triggers a second and camera
LIMIT_MS = 200.0
_SAMPLE_S = 1.0
_MEBIBYTE = 1 << 20


def load(subject: Subject, folder: Path, *, seconds: float) -> Iterator[str]:
    """Lines of text and tables, of all cameras at ten triggers a second each, evenly spread over time."""
    with subject.serving(folder) as service, Gateway(service.endpoint, name="bench") as gateway:
        connect(gateway)
        for camera in subject.cameras:
            for _ in range(2 * FRAMES):  # frames are decoded once
                gateway.inspect(camera=camera)
        with _Memory(service) as memory:
            results = _drive(gateway, subject, seconds)
    missed = [result for result in results if not right(result) or result.latency_ms > LIMIT_MS]
    yield f"{len(results) - len(missed)} of {len(results)} triggers got their true verdict within {LIMIT_MS:g} ms."
    kinds = Counter(_fault(result) for result in missed)
    if kinds:
        yield "Missed: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()) + "."
    yield ""
    yield from header("ms, from call to result in the client")
    for verdict in ("ACCEPT", "REJECT"):
        yield row(verdict, [result.latency_ms for result in results if result.verdict == verdict])
    yield ""
    yield from memory.lines()


def _drive(gateway: Gateway, subject: Subject, seconds: float) -> list[Inspected]:
    """Trigger all cameras on schedule, whatever the answers take."""
    cameras = subject.cameras
    step_s = 1 / (RATE * len(cameras))
    start, pending = time.monotonic(), []
    for index in range(round(seconds / step_s)):
        time.sleep(max(0.0, start + index * step_s - time.monotonic()))
        pending.append(gateway.trigger(camera=cameras[index % len(cameras)]))
    return [one.wait() for one in pending]


def _fault(result: Inspected) -> str:
    if result.reason is not None:
        return f"ERROR/{result.reason}"
    return f"{result.verdict} after more than {LIMIT_MS:g} ms" if right(result) else f"wrong {result.verdict}"


class _Memory:
    """Samples what all processes of a service take together, shared pages counted once (PSS)."""

    def __init__(self, service: Service) -> None:
        """Sampling begins with the `with` block."""
        self._processes = service.processes()
        self._roles = [_role(process) for process in self._processes]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._samples: list[tuple[float, list[float]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def lines(self) -> Iterator[str]:
        """Of the sum and of each kind of process: the course of its memory."""
        kinds = Counter(self._roles)
        names = ["all processes", *(f"{kind} ({count})" for kind, count in kinds.items())]
        times = np.array([at for at, _ in self._samples])
        taken = np.array([[sum(each), *(self._of(kind, each) for kind in kinds)] for _, each in self._samples])
        third = max(1, len(times) // 3)
        yield "| memory, MiB (PSS) | at the start | first third, median | last third, median | largest | slope per minute |"
        yield "|---|---|---|---|---|---|"
        for name, column in zip(names, taken.T, strict=True):
            slope = np.polyfit(times, column, 1)[0] * 60 if len(column) > 1 else 0.0
            early, late = np.median(column[:third]), np.median(column[-third:])
            yield f"| {name} | {column[0]:.1f} | {early:.1f} | {late:.1f} | {column.max():.1f} | {slope:+.2f} |"

    def _of(self, role: str, each: list[float]) -> float:
        return sum(taken for kind, taken in zip(self._roles, each, strict=True) if kind == role)

    def _sample(self) -> None:
        start = time.monotonic()
        while True:  # ends with `__exit__`
            self._samples.append((time.monotonic() - start, [_pss(process) for process in self._processes]))
            if self._ended.wait(_SAMPLE_S):
                return


def _pss(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        found = process.memory_full_info()
        return float(getattr(found, "pss", found.rss)) / _MEBIBYTE
    return 0.0


def _role(process: psutil.Process) -> str:
    """What a process is in the service: the last word of a child's command line."""
    words = process.cmdline()
    return words[-1] if "edge_runtime.service.child" in words else "supervisor"
