"""Owns how long Takt keeps a trigger beside the inspection itself, and where that time goes."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_runtime.clients import Gateway
from edge_runtime.clients.results import Inspected
from edge_runtime.errors import TaktError
from edge_runtime.service.monitor import percentiles
from trainer.bench.subject import FRAMES, Subject, right

PERIOD_S = 0.1
_CONNECT_S = 10.0
_COMMIT_BYTES = 16_384  # about what one verdict adds to the log

_T = TypeVar("_T")


def overhead(subject: Subject, folder: Path, *, seconds: float, durable: bool) -> Iterator[str]:
    """Lines of a Markdown table, of one camera at ten triggers a second, each inspected before the next comes."""
    with (
        subject.first().serving(folder, durable=durable) as service,
        Gateway(service.endpoint, name="bench") as gateway,
    ):
        connect(gateway)
        for _ in range(2 * FRAMES):  # frames are decoded once, caches filled
            gateway.inspect(camera=subject.cameras[0])
        results = list(_paced(lambda: gateway.inspect(camera=subject.cameras[0]), seconds))
    good = [result for result in results if right(result)]
    yield f"{len(good)} of {len(results)} triggers got their true verdict."
    yield ""
    yield from header("ms")
    for name, values in _rows(good).items():
        yield row(name, values)
    if durable:
        yield row("for comparison: 16 KiB written and fsynced, same disk", list(bare_fsyncs(folder, seconds / 3)))


def connect(gateway: Gateway) -> None:
    """Wait until the service knows the client.

    Raises:
        TaktError: it does not answer.
    """
    if not gateway.wait_connected(_CONNECT_S):
        message = f"the service does not take the client: {gateway.refusal or 'no answer'}"
        raise TaktError(message)


def bare_fsyncs(folder: Path, seconds: float) -> Iterator[float]:
    """Milliseconds of one write and fsync each, at the pace of the triggers."""
    path = folder / "fsync.probe"
    block = os.urandom(_COMMIT_BYTES)
    with path.open("wb", buffering=0) as file:

        def once() -> float:
            start = time.perf_counter()
            file.write(block)
            os.fsync(file.fileno())
            return (time.perf_counter() - start) * 1000

        yield from _paced(once, seconds)
    path.unlink()


def header(first: str) -> Iterator[str]:
    """Head of a table of durations."""
    yield f"| {first} | p50 | p90 | p99 | max | n |"
    yield "|---|---|---|---|---|---|"


def row(name: str, values: Iterable[float]) -> str:
    """Its row for one kind of duration."""
    found = percentiles(values)
    cells = ["-" if found[key] is None else f"{found[key]:.2f}" for key in ("p50", "p90", "p99", "max")]
    return f"| {name} | {' | '.join(cells)} | {found['n']} |"


def _paced(once: Callable[[], _T], seconds: float) -> Iterator[_T]:
    start = time.monotonic()
    for index in range(max(1, round(seconds / PERIOD_S))):
        time.sleep(max(0.0, start + index * PERIOD_S - time.monotonic()))
        yield once()


def _rows(results: list[Inspected]) -> dict[str, list[float]]:
    parts = [_Parts.of(result) for result in results]
    return {
        "frame: trigger received to frame there": [part.frame for part in parts],
        "queue: frame there to handed to a worker": [part.queue for part in parts],
        "way to the worker and back": [part.way for part in parts],
        "journal: decided to on disk": [part.journal for part in parts],
        "**Takt's share: trigger received to verdict sent, less inspection**": [part.share for part in parts],
        "the same from call to result in the client": [part.client - part.inspection for part in parts],
        "inspection: preprocess, infer, postprocess": [part.inspection for part in parts],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """Milliseconds of one trigger."""

    frame: float
    queue: float
    inspection: float
    journal: float
    total: float
    client: float

    @classmethod
    def of(cls, result: Inspected) -> "_Parts":
        times = result.answer.timings_ms
        return cls(
            frame=times.frame or 0.0,
            queue=times.queue or 0.0,
            inspection=(times.preprocess or 0.0) + (times.infer or 0.0) + (times.postprocess or 0.0),
            journal=times.journal or 0.0,
            total=times.total or 0.0,
            client=result.latency_ms,
        )

    @property
    def share(self) -> float:
        return self.total - self.inspection

    @property
    def way(self) -> float:
        return self.share - self.frame - self.queue - self.journal
