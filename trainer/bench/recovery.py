"""Owns how long a service takes to be Ready, and to be of use again after SIGKILL."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from edge_runtime.clients import Gateway
from edge_runtime.decision import Verdict
from edge_runtime.errors import TaktError
from trainer.bench.overhead import connect
from trainer.bench.subject import READY_S, Subject
from trainer.serving import Service

_RUNS = 3
_PAUSE_S = 0.01
_BEFORE = 20  # triggers that are answered before a worker is killed
_GIVE_UP_S = 60.0


def recovery(subject: Subject, folder: Path) -> Iterator[str]:
    """Lines of a Markdown table's rows, in seconds: median and largest of some runs."""
    one = subject.first()
    with one.start(folder) as service:
        cold = service.wait_ready(READY_S)
    warm, again, everything = [], [], []
    for _ in range(_RUNS):
        with one.start(folder) as service:
            warm.append(service.wait_ready(READY_S))
            again.append(_after_worker(service, one))
            killed = time.monotonic()
            service.kill()
        with one.start(folder) as service:
            service.wait_ready(READY_S)
            everything.append(time.monotonic() - killed)
    yield f"| {subject.name} | first start, no cache | {cold:.2f} | {cold:.2f} |"
    for name, values in (
        ("start to Ready", warm),
        ("SIGKILL of the worker to the next good verdict", again),
        ("SIGKILL of every process to Ready, started again at once", everything),
    ):
        yield f"| {subject.name} | {name} | {median(values):.2f} | {max(values):.2f} |"


def recovery_header() -> Iterator[str]:
    """Head of the table."""
    yield f"| bundle | s, {_RUNS} runs | median | largest |"
    yield "|---|---|---|---|"


def _after_worker(service: Service, subject: Subject) -> float:
    """Seconds from the end of the worker to an answer that is none of ERROR, parts coming all the while."""
    camera = subject.cameras[0]
    with Gateway(service.endpoint, name="bench") as gateway:
        connect(gateway)
        for _ in range(_BEFORE):
            gateway.inspect(camera=camera)
        worker = service.status().workers[0].pid
        if worker is None:
            message = "status names no worker"
            raise TaktError(message)
        killed = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        while time.monotonic() < killed + _GIVE_UP_S:
            if gateway.inspect(camera=camera).verdict is not Verdict.ERROR:
                return time.monotonic() - killed
            time.sleep(_PAUSE_S)
    message = f"no good verdict within {_GIVE_UP_S:g} s of the worker's end"
    raise TaktError(message)
