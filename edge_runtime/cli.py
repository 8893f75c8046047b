"""Owns the command `takt`: finds commands through entry points and imports only the one that is asked for."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edge_runtime.errors import ConfigError, TaktError

GROUP = "takt.commands"
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_OWN = {"edge_runtime", "calibration", "trainer"}
_EXTRAS = dict.fromkeys(("build", "fit", "teacher", "demo", "bench"), "trainer")
_SUMMARIES = {
    "build": "fit a model to images of good parts and seal it into a bundle",
    "fit": "the part of build that needs torch: images to draft",
    "teacher": "distil a backbone into a teacher for EfficientAD",
    "seal": "the rest of build: draft to bundle, without torch",
    "evaluate": "measure a bundle on labelled images",
    "calibrate": "set new thresholds from new images, in a new bundle",
    "run": "inspect image files",
    "bundle": "show or verify a bundle",
    "serve": "the service: one answer for every trigger",
    "camera": "a camera process, for `takt serve` on this host",
    "trigger": "trigger a running service and print its answers",
    "watch": "print answers as the service gives them",
    "status": "how a running service does",
    "control": "change bundles, halt and resume a running service",
    "qualify": "measure a bundle on this machine and say how to run it here",
    "demo": "generated parts, a bundle of them, and verdicts",
    "bench": "measure Takt, for the tables in docs",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 unexpected, 2 usage, 3 bundle, 4 calibration, 5 data or 130."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not argv or argv[0] in {"-h", "--help"}:
        sys.stdout.write(_help(sorted(commands, key=_order)))
        return 0 if argv else EXIT_USAGE
    if argv[0] == "--version":
        from importlib.metadata import version  # noqa: PLC0415

        sys.stdout.write(f"takt {version('takt-inspect')}\n")
        return 0
    _quieten()
    try:
        return _run(commands, argv[0], argv[1:])
    except TaktError as error:
        sys.stderr.write(f"takt {argv[0]}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"takt {argv[0]}: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away: `takt run ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED


def write_json(value: dict[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def _run(commands: dict[str, EntryPoint], name: str, arguments: list[str]) -> int:
    if name not in commands:
        message = f"no such command; there are {', '.join(sorted(commands, key=_order))}"
        raise ConfigError(message)
    try:
        command: Callable[[list[str]], int] = commands[name].load()
        return command(arguments)  # commands import what is slow only when they know that they need it
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN:
            raise  # a fault of ours, which no extra cures
        extra = _EXTRAS.get(name, "calibration")
        message = f"needs {error.name}, which is not installed: pip install 'takt-inspect[{extra}]'"
        raise ConfigError(message) from error


def _help(names: list[str]) -> str:
    width = max(map(len, names), default=0)
    lines = [f"  {name:<{width}}  {_SUMMARIES.get(name, '')}".rstrip() for name in names]
    head = "usage: takt COMMAND ...\n\nInline visual inspection: bundles from good parts, verdicts at the line.\n\ncommands:\n"
    return head + "\n".join(lines) + "\n\n`takt COMMAND --help` says more.\n"


def _order(name: str) -> tuple[int, str]:
    known = list(_SUMMARIES)
    return (known.index(name) if name in known else len(known), name)


def _quieten() -> None:
    """Notes go to stderr in our form; libraries that print on their own are told not to."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # decoding errors come as ours
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("takt: %(message)s"))
    log = logging.getLogger("takt")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
