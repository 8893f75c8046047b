"""Owns `takt qualify`: whether this machine is fast enough for a bundle, and how it is best run here."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, add_budget, positive
from edge_runtime.errors import ConfigError

_COUNT = 20  # inspections of each golden frame
_LOG = logging.getLogger("takt")


def qualify(arguments: Sequence[str]) -> int:
    """Predict, measure, choose; exit code 2 where nothing fits."""
    parser = Parser(prog="takt qualify", description="Measure a bundle on this machine and say how to run it here.")
    parser.add_argument("bundle", type=Path, help="a sealed bundle, *.takt")
    add_budget(parser)
    parser.add_argument(
        "--threads", type=_threads, metavar="N,N", help="numbers to try (default: one, half, all cores)"
    )
    parser.add_argument("--period-ms", type=positive, metavar="N", help="from one part to the next on your line")
    parser.add_argument("--count", type=positive, default=_COUNT, metavar="N", help="inspections of each golden frame")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    from edge_runtime import qualify as qualifying  # noqa: PLC0415 - the manifest's schema takes time, faults of usage do not
    from edge_runtime.preflight.budget import Budget  # noqa: PLC0415

    budget = Budget(deadline_ms=options.deadline_ms, memory_mb=options.memory_mb)
    done = qualifying.qualify(
        options.bundle,
        budget,
        threads=options.threads or qualifying.thread_counts(),
        count=options.count,
        period_ms=options.period_ms,
        tell=_LOG.info,
    )
    if options.json:
        chosen = None if done.chosen is None else done.chosen.as_json()
        rows = [one.as_json() for one in done.found]
        write_json({"bundle": done.digest, "fits": chosen is not None, "chosen": chosen, "measured": rows})
    else:
        sys.stdout.write("\n".join(qualifying.table(done.found)) + "\n")
    if done.chosen is None:
        said = "; ".join(f"{one.artefact.name} with {one.threads} {' and '.join(one.excesses)}" for one in done.found)
        message = f"{options.bundle}: nothing fits as measured: {said or 'memory does not suffice'}: raise the budget, or rebuild with it"
        raise ConfigError(message)
    if not options.json:
        sys.stdout.write(
            f'\nline.toml, above the first [[camera]]:\n\nthreads = {done.chosen.threads}\nartefact = "{done.chosen.artefact.name}"\n'
        )
    return 0


def _threads(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({positive(part.strip()) for part in text.split(",")}))
    except argparse.ArgumentTypeError as error:
        message = f"{text!r} is no list of whole numbers of 1 or more, such as 1,2,4"
        raise argparse.ArgumentTypeError(message) from error
    return found
