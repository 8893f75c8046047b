"""Owns one measured method: fit, seal and inspect in processes of their own, so that time and memory are theirs alone."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from calibration.layouts import open_dataset
from calibration.samples import Split
from edge_runtime.errors import TaktError

_RUN_IMAGES = 8  # inspected in the process whose memory is read
_TOLD_CHARS = 600  # of what a command said when it failed
_BETWEEN = """
import os, resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, end="")
sys.exit(code)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be measured."""

    dataset: Path
    method: str
    seed: int
    precisions: tuple[str, ...]
    flags: tuple[str, ...] = ()  # of `takt fit`

    @property
    def key(self) -> str:
        """Tells orders apart; results are kept under it."""
        said = [self.dataset.name, self.method, str(self.seed), "+".join(self.precisions), *self.flags]
        return " ".join(said)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a method reached on a set, and what it cost."""

    image_auroc: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    aupro: float | None
    fit_s: float
    fit_mb: float  # largest memory of the fit's process
    bundle_mb: float
    latency_ms: dict[str, float]  # of one whole inspection, by precision
    run_mb: float  # largest memory of a process that inspects


class Kept:
    """Results on disk, one line of JSON each: a table that was broken off is gone on with."""

    def __init__(self, path: Path | None) -> None:
        """Read what is there; nothing is kept where the path is None.

        Raises:
            TaktError: the file is something else.
        """
        self._path = path
        self._found: dict[str, Measured] = {}
        if path is not None and path.is_file():
            try:
                rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                self._found = {row["order"]: Measured(**row["measured"]) for row in rows}
            except (ValueError, TypeError, KeyError) as error:
                message = f"{path}: holds no results of this bench ({error}): name another file"
                raise TaktError(message) from error

    def __contains__(self, order: Order) -> bool:
        """Whether an order's result is there."""
        return order.key in self._found

    def measure(self, order: Order) -> Measured:
        """What is known of an order, else measured now.

        Raises:
            TaktError: a command failed.
        """
        if order.key not in self._found:
            self._found[order.key] = found = measure(order)
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"order": order.key, "measured": asdict(found)}) + "\n")
        return self._found[order.key]


def measure(order: Order) -> Measured:
    """Fit to all of `train/good`, seal, evaluate the default artefact on the test tree, and inspect a few images.

    Raises:
        TaktError: a command failed; the message is its own.
    """
    with tempfile.TemporaryDirectory(prefix="takt-bench-") as folder:
        draft, bundle = Path(folder) / "bench.draft", Path(folder) / "bench.takt"
        dataset = str(order.dataset)
        method = ["--method", order.method, "--seed", str(order.seed), "--holdout", "0"]
        takt("fit", dataset, "--out", str(draft), *method, *order.flags)
        sealing = ["--policy", "manual:0", "--precision", ",".join(order.precisions), "--json"]
        sealed = json.loads(takt("seal", str(draft), dataset, "--out", str(bundle), *sealing).out)
        images = [str(sample.path) for sample in open_dataset(order.dataset).select(split=Split.TEST)[:_RUN_IMAGES]]
        run_mb = takt("run", str(bundle), *images, "--json").peak_mb
        found = sealed["evaluation"] or {}
        latency: dict[str, float] = {}
        for artefact in sealed["artefacts"]:
            latency.setdefault(artefact["precision"], artefact["latency_ms"])  # the first is the default engine's
        return Measured(
            **{name: found.get(name) for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")},
            fit_s=sealed["fit_s"],
            fit_mb=sealed["peak_memory_mb"],
            bundle_mb=bundle.stat().st_size / 1e6,
            latency_ms=latency,
            run_mb=run_mb,
        )


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended well."""

    out: str
    peak_mb: float  # the most memory that it took


def takt(*arguments: str) -> Done:
    """Run a command.

    A small process stands between: the system counts what a process held before it became another program.

    Raises:
        TaktError: the command failed.
    """
    command = [sys.executable, "-m", "edge_runtime.cli", *arguments]
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-S", "-c", _BETWEEN, *command], capture_output=True, check=False, text=True
    )
    if done.returncode:
        told = done.stderr[-_TOLD_CHARS:].strip()
        message = f"takt {' '.join(arguments)} ended with {done.returncode}: {told}"
        raise TaktError(message)
    out, _, peak = done.stdout.rpartition("\n")
    return Done(out, float(peak))


def spread(values: Sequence[float | None]) -> str:
    """Mean, and the deviation over seeds where there are several; a dash where a figure cannot be had."""
    known = [value for value in values if value is not None]
    if len(known) != len(values) or not known:
        return "-"
    mean = f"{statistics.mean(known):.3f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.3f}"
