"""Owns the process that trials and measurements run in: its entry, and how it is started and listened to.

A graph that needs more memory than there is must not take the machine down with it: the process may hold what is free
and no more, and where it ends for want of memory, that is an answer.
"""

import contextlib
import json
import subprocess
import sys
from typing import TypeVar

from edge_runtime import errors
from edge_runtime.bundle.recipe import Strict
from edge_runtime.errors import EngineError, TaktError
from edge_runtime.preflight.budget import MEGABYTE, free_mb
from edge_runtime.preflight.measure import Measured, MeasureOrder, run_measure
from edge_runtime.preflight.trial import Trial, TrialOrder, run_trial

_TOLD_CHARS = 600  # of what a process said when it ended
_EXHAUSTED: dict[str, object] = {"exhausted": True}

_WANT_OF_MEMORY = (  # as Python, C++, OpenVINO, ONNX Runtime and OpenCV say it
    "memoryerror",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "cannot allocate",
    "out of memory",
    "insufficient memory",
)

_Answer = TypeVar("_Answer", Trial, Measured)


def trial(order: TrialOrder) -> Trial | None:
    """Predict one inspection in a process of its own; None where the memory that is free does not suffice.

    Raises:
        BundleError: the archive cannot be used.
        EngineError: the graph cannot be loaded, breaks the contract, or the engine broke down.
    """
    return _in_child("trial", order, Trial)


def measure(order: MeasureOrder) -> Measured | None:
    """Measure whole inspections in a process of its own; None where the memory that is free does not suffice.

    Raises:
        BundleError: the bundle cannot be trusted, or computes something else on this machine.
        EngineError: an inspection failed, or the engine broke down.
    """
    return _in_child("measure", order, Measured)


def _in_child(kind: str, order: Strict, answer: type[_Answer]) -> _Answer | None:
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "edge_runtime.preflight.child", kind],
        input=order.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout) if done.returncode == 0 else _said_by_its_end(done)
    if said == _EXHAUSTED:
        return None
    if "failed" in said:
        raise getattr(errors, str(said["failed"]))(said["message"])
    return answer.model_validate_json(json.dumps(said))


def _said_by_its_end(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    if done.returncode == -9:  # noqa: PLR2004 - SIGKILL: what the system does to whom it has no memory for
        return _EXHAUSTED
    told = done.stderr[-_TOLD_CHARS:].strip()
    return _EXHAUSTED if _of_memory(told) else {"failed": EngineError.__name__, "message": _ended(done, told)}


def _ended(done: subprocess.CompletedProcess[str], told: str) -> str:
    return f"the process that tries the graph ended with {done.returncode}: {told or 'it said nothing'}"


def _of_memory(told: str) -> bool:
    return any(word in told.lower() for word in _WANT_OF_MEMORY)


def main() -> int:
    """Take an order from stdin, do it, answer on stdout."""
    kind, order = sys.argv[1], sys.stdin.read()
    _limit_memory()
    try:
        if kind == "trial":
            answer: Strict = run_trial(TrialOrder.model_validate_json(order))
        else:
            answer = run_measure(MeasureOrder.model_validate_json(order))
    except MemoryError:
        said = json.dumps(_EXHAUSTED)
    except TaktError as error:
        told = {"failed": type(error).__name__, "message": str(error)}
        said = json.dumps(_EXHAUSTED if isinstance(error, EngineError) and _of_memory(str(error)) else told)
    else:
        said = answer.model_dump_json()
    sys.stdout.write(said)
    return 0


def _limit_memory() -> None:
    free = free_mb()
    with contextlib.suppress(ModuleNotFoundError, ValueError, OSError):  # not on Windows, or a lower limit holds
        import resource  # noqa: PLC0415

        if free is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (int(free * MEGABYTE), hard))


if __name__ == "__main__":
    sys.exit(main())
