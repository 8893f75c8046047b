"""Owns `takt bench service`: what a running service costs a trigger, what it bears, and how soon it is there again."""

import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from edge_runtime.commands.arguments import folder
from trainer.bench.load import LIMIT_MS, RATE, load
from trainer.bench.overhead import overhead
from trainer.bench.recovery import recovery, recovery_header
from trainer.bench.subject import FRAME, Subject, bundle_subject, stub_subject


def bench_service(out: Path | None, *, seconds: float, cameras: int, bundles: Sequence[Path]) -> Iterator[str]:
    """Lines of Markdown: everything for the stub; the cost of a trigger, starts and recovery for each bundle.

    Args:
        out: where bundles, frames, run folders and logs go; a temporary folder where None.
        seconds: of the load; each other measurement takes half as long.
        cameras: of the load.
        bundles: sealed ones, measured on their own golden frames.

    Raises:
        TaktError: a service does not start, or does not answer.
    """
    with ExitStack() as opened:
        if out is None:
            out = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="takt-bench-")))
        work = folder(str(out))
        yield machine()
        stub = stub_subject(work, cameras)
        real = [bundle_subject(bundle, work) for bundle in bundles]
        for subject in (stub, *real):
            yield from _overheads(subject, work, seconds / 2)
        yield from ("", f"## {cameras} cameras, {RATE:g} frames a second each, {FRAME}, for {seconds:g} s", "")
        yield f"Limit: {LIMIT_MS:g} ms. Journal with fsync, {stub.workers} workers of one thread, one frame in ten defective."
        yield from load(stub, work / "load", seconds=seconds)
        yield from ("", "## Start and recovery", "")
        yield from recovery_header()
        for number, subject in enumerate((stub, *real)):
            yield from recovery(subject, work / f"recovery-{number}")


def machine() -> str:
    """Where this was measured, and what else it was doing."""
    busy = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} CPU cores, {platform.system()}, Python {platform.python_version()}{busy}."


def _overheads(subject: Subject, work: Path, seconds: float) -> Iterator[str]:
    for durable in (False, True):
        how = "with fsync, as in production" if durable else "without fsync (TAKT_BENCH_NO_FSYNC=1, for this only)"
        yield from ("", f"## {subject.name}: one camera, ten triggers a second, {how}", "")
        place = work / f"overhead-{subject.bundle.stem}-{'fsync' if durable else 'no-fsync'}"
        yield from overhead(subject, place, seconds=seconds, durable=durable)
