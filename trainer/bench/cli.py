"""Owns `takt bench`: which measurements there are and how they are asked for."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_runtime.commands.arguments import Parser, positive
from edge_runtime.errors import ConfigError
from trainer.bench.peers import SETS

METHODS = ("padim", "patchcore")


def bench(arguments: Sequence[str]) -> int:
    """Run one measurement."""
    for line in _lines(_parser().parse_args(arguments)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _parser() -> Parser:
    parser = Parser(prog="takt bench", description="Measure Takt; prints Markdown tables.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="methods|rates|fit|service", parser_class=Parser)
    methods = kinds.add_parser("methods", help="accuracy of the shipped artefact against the peer's figures")
    rates = kinds.add_parser("rates", help="false rejects under conformal:0.1, and parity on held-out frames")
    fit = kinds.add_parser("fit", help="coreset selection against the plain loop")
    for part, seeds in ((methods, 3), (rates, 5)):
        part.add_argument("--sets", default=",".join(SETS), help="names of folders")
        part.add_argument("--seeds", type=int, default=seeds)
        part.add_argument("--methods", default=",".join(METHODS) if part is methods else "patchcore")
    fit.add_argument("--set", default="cubes", help="whose patches are selected from")
    fit.add_argument("--runs", type=int, default=2, help="runs of each, in turn")
    fit.add_argument("--seeds", type=int, default=5, help="for the covering radius")
    for part in (methods, rates, fit):
        part.add_argument("--data", type=Path, default=_data(), help="folder of data sets (default: TAKT_DATA)")
    service = kinds.add_parser("service", help="what a running service costs a trigger, bears, and how soon it is back")
    service.add_argument("--seconds", type=positive, default=60, metavar="N", help="of full load (default 60)")
    service.add_argument("--cameras", type=positive, default=4, metavar="N", help="at full load (default 4)")
    service.add_argument(
        "--bundle", type=Path, action="append", default=[], metavar="FILE", help="measured beside the stub; repeatable"
    )
    service.add_argument("--out", type=Path, metavar="DIR", help="where its files stay; else they are removed")
    return parser


def _lines(options: Namespace) -> Iterator[str]:
    if options.kind == "service":
        from trainer.bench.service import bench_service  # noqa: PLC0415 - torch loads only now

        return bench_service(
            options.out, seconds=options.seconds, cameras=options.cameras, bundles=tuple(options.bundle)
        )
    if options.data is None or not options.data.is_dir():
        message = "--data: give the folder of the data sets, or set TAKT_DATA"
        raise ConfigError(message)
    if options.kind == "fit":
        from trainer.bench.coreset import bench_coreset  # noqa: PLC0415

        return bench_coreset(options.data / options.set, runs=options.runs, seeds=options.seeds)
    if options.kind == "methods":
        from trainer.bench.accuracy import bench_accuracy  # noqa: PLC0415

        return bench_accuracy(options.data, options.sets.split(","), options.methods.split(","), options.seeds)
    from trainer.bench.rates import bench_rates  # noqa: PLC0415

    return bench_rates(options.data, options.sets.split(","), options.methods.split(","), options.seeds)


def _data() -> Path | None:
    folder = os.environ.get("TAKT_DATA")
    return Path(folder) if folder else None
