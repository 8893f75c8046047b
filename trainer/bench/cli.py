"""Owns `takt bench`: which measurements there are and how they are asked for."""

import os
import shlex
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.cli import parse_precisions
from edge_runtime.commands.arguments import Parser, folder, frame_size, positive
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size
from trainer.bench.peers import SETS

_FRAMES_TILE = 512  # largest core of what `frames` builds
PEER_METHODS = ("padim", "patchcore")


def bench(arguments: Sequence[str]) -> int:
    """Run one measurement."""
    options = _parser().parse_args(arguments)
    for line in options.measure(options):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _parser() -> Parser:
    parser = Parser(prog="takt bench", description="Measure Takt; prints Markdown tables.")
    kinds = parser.add_subparsers(
        required=True,
        metavar="methods|scales|defects|frames|preflight|peers|rates|fit|service",
        parser_class=Parser,
    )
    _add_methods(kinds.add_parser("methods", help="accuracy and cost of every method"))
    _add_scales(kinds.add_parser("scales", help="what tiles of sensor pixels find that a squashed frame does not"))
    _add_defects(kinds.add_parser("defects", help="small defects in large frames, squashed and in tiles"))
    _add_frames(kinds.add_parser("frames", help="time and memory as the frame grows"))
    _add_preflight(kinds.add_parser("preflight", help="time and memory of inspections, predicted and measured"))
    peers = kinds.add_parser("peers", help="accuracy of the shipped artefact against a peer's figures")
    peers.set_defaults(measure=_peers)
    _add_sets(peers, seeds=3, methods=PEER_METHODS)
    rates = kinds.add_parser("rates", help="false rejects under conformal:0.1, and parity on held-out frames")
    rates.set_defaults(measure=_rates)
    _add_sets(rates, seeds=5, methods=("patchcore",))
    _add_fit(kinds.add_parser("fit", help="coreset selection against the plain loop"))
    _add_service(
        kinds.add_parser("service", help="what a running service costs a trigger, bears, and how soon it is back")
    )
    return parser


def _add_sets(parser: Parser, *, seeds: int, methods: tuple[str, ...] | None) -> None:
    parser.add_argument("--sets", type=_names, default=SETS, metavar="A,B", help="names of folders")
    parser.add_argument("--seeds", type=positive, default=seeds, metavar="N")
    parser.add_argument("--methods", type=_names, default=methods, metavar="A,B")
    _add_data(parser)


def _add_data(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, default=_data(), help="folder of data sets (default: TAKT_DATA)")


def _add_methods(methods: Parser) -> None:
    methods.set_defaults(measure=_methods)
    _add_sets(methods, seeds=1, methods=None)
    methods.add_argument("--schedule", choices=["full", "reduced"], help="full where there is a GPU, else reduced")
    methods.add_argument("--steps", type=_steps, default={}, metavar="A=N,B=N", help="steps of single methods")
    methods.add_argument("--precision", default="f32,bf16", help="whose latencies are measured")
    methods.add_argument("--teacher", type=Path, metavar="FILE", help="EfficientAD's, from `takt teacher`")
    methods.add_argument("--textures", type=Path, metavar="DIR", help="pictures for DRAEM and EfficientAD")
    _add_keep(methods)


def _add_fit(fit: Parser) -> None:
    fit.set_defaults(measure=_fit)
    fit.add_argument("--set", default="cubes", help="whose patches are selected from")
    fit.add_argument("--runs", type=int, default=2, help="runs of each, in turn")
    fit.add_argument("--seeds", type=int, default=5, help="for the covering radius")
    _add_data(fit)


def _add_service(service: Parser) -> None:
    service.set_defaults(measure=_service)
    service.add_argument("--seconds", type=positive, default=60, metavar="N", help="of full load (default 60)")
    service.add_argument("--cameras", type=positive, default=4, metavar="N", help="at full load (default 4)")
    service.add_argument(
        "--bundle", type=Path, action="append", default=[], metavar="FILE", help="measured beside the stub; repeatable"
    )
    service.add_argument("--out", type=Path, metavar="DIR", help="where its files stay; else they are removed")


def _add_scales(scales: Parser) -> None:
    scales.set_defaults(measure=_scaled)
    scales.add_argument("dataset", type=Path, help="a data set with a test tree")
    scales.add_argument("--methods", type=_names, default=("patchcore", "padim", "fastflow"), metavar="A,B")
    scales.add_argument("--scales", type=_scales, default=(1.0, 0.5, 0.25), metavar="S,S", help="of the frame, tiled")
    scales.add_argument("--tile", type=positive, default=256, metavar="N", help="core of a tile (default 256)")
    scales.add_argument("--seeds", type=positive, default=1, metavar="N")
    scales.add_argument("--with", dest="flags", default="", metavar="FLAGS", help="more flags of `takt fit`, for all")
    _add_keep(scales)


def _add_defects(defects: Parser) -> None:
    defects.set_defaults(measure=_defects)
    defects.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="frames, bundles, picture; frames are kept"
    )
    defects.add_argument("--frame", type=frame_size, default=Size(4096, 3000), metavar="WxH")
    defects.add_argument(
        "--diameters", type=_counts, default=(6, 9, 12, 18, 24, 48), metavar="PX,PX", help="of the pits"
    )
    defects.add_argument("--each", type=positive, default=4, metavar="N", help="frames of each diameter")
    defects.add_argument("--train", type=positive, default=10, metavar="N", help="good frames to build from")
    defects.add_argument("--good", type=positive, default=6, metavar="N", help="good frames to test on")
    defects.add_argument("--tile", type=positive, default=512, metavar="N", help="core of a tile (default 512)")
    defects.add_argument(
        "--with", dest="flags", default="", metavar="FLAGS", help="more flags of `takt build`, for both"
    )


def _add_frames(frames: Parser) -> None:
    frames.set_defaults(measure=_frames)
    frames.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        help="built with --tile; its model is laid on every frame (default: PatchCore is built for each, in tiles that divide it)",
    )
    frames.add_argument("--out", type=Path, required=True, metavar="DIR", help="frames and bundles")
    frames.add_argument("--megapixels", type=_megapixels, default=(1, 2, 4, 8, 12, 24), metavar="N,N")
    frames.add_argument("--runs", type=positive, default=3, metavar="N", help="inspections of each size (default 3)")
    frames.add_argument(
        "--tile", type=positive, metavar="N", help=f"largest core of what is built (default {_FRAMES_TILE})"
    )
    frames.add_argument("--with", dest="flags", metavar="FLAGS", help="more flags of `takt fit`, for what is built")


def _add_preflight(preflight: Parser) -> None:
    preflight.set_defaults(measure=_predicted)
    preflight.add_argument("--methods", type=_names, default=("patchcore", "fastflow", "padim"), metavar="A,B")
    preflight.add_argument(
        "--tiles", type=_counts, default=(256, 512), metavar="N,N", help="cores, or inputs of one tile"
    )
    preflight.add_argument(
        "--frames", type=_frame_sizes, default=(Size(1280, 960), Size(2560, 1920)), metavar="WxH,WxH"
    )
    preflight.add_argument("--runs", type=positive, default=3, metavar="N", help="predictions and measurements in turn")
    preflight.add_argument(
        "--with", dest="flags", default="", metavar="FLAGS", help="more flags of `takt build`, for all"
    )


def _add_keep(parser: Parser) -> None:
    parser.add_argument("--keep", type=Path, metavar="FILE", help="results so far; what is there is not measured again")
    parser.add_argument("--only-kept", action="store_true", help="show what --keep has and measure nothing")


def _service(options: Namespace) -> Iterator[str]:
    from trainer.bench.service import bench_service  # noqa: PLC0415 - torch loads only now

    return bench_service(options.out, seconds=options.seconds, cameras=options.cameras, bundles=tuple(options.bundle))


def _fit(options: Namespace) -> Iterator[str]:
    from trainer.bench.coreset import bench_coreset  # noqa: PLC0415

    return bench_coreset(_sets(options) / options.set, runs=options.runs, seeds=options.seeds)


def _peers(options: Namespace) -> Iterator[str]:
    from trainer.bench.comparison import bench_peers  # noqa: PLC0415

    return bench_peers(_sets(options), options.sets, options.methods, options.seeds)


def _rates(options: Namespace) -> Iterator[str]:
    from trainer.bench.rates import bench_rates  # noqa: PLC0415

    return bench_rates(_sets(options), options.sets, options.methods, options.seeds)


def _sets(options: Namespace) -> Path:
    """The folder of data sets.

    Raises:
        ConfigError: there is none.
    """
    if options.data is None or not options.data.is_dir():
        message = "--data: give the folder of the data sets, or set TAKT_DATA"
        raise ConfigError(message)
    return Path(options.data)


def _methods(options: Namespace) -> Iterator[str]:
    from trainer.bench.methods import Plan, bench_methods, default_full  # noqa: PLC0415
    from trainer.models.registry import METHODS, find_method  # noqa: PLC0415

    chosen = tuple(METHODS) if options.methods is None else options.methods
    for method in (*chosen, *options.steps):
        find_method(method)
    plan = Plan(
        data=_sets(options),
        sets=options.sets,
        methods=chosen,
        seeds=options.seeds,
        precisions=tuple(precision.value for precision in parse_precisions(options.precision)),
        steps=options.steps,
        full=default_full() if options.schedule is None else options.schedule == "full",
        teacher=options.teacher,
        textures=options.textures,
        keep=options.keep,
        only_kept=options.only_kept,
    )
    return bench_methods(plan)


def _scaled(options: Namespace) -> Iterator[str]:
    from trainer.bench.scales import Study, bench_scales  # noqa: PLC0415
    from trainer.config import DEFAULT_SIZE  # noqa: PLC0415
    from trainer.models.registry import find_method  # noqa: PLC0415

    for method in options.methods:
        find_method(method)
    study = Study(
        dataset=options.dataset,
        methods=options.methods,
        scales=options.scales,
        tile=options.tile,
        squashed=DEFAULT_SIZE,
        seeds=options.seeds,
        flags=tuple(shlex.split(options.flags)),
        keep=options.keep,
        only_kept=options.only_kept,
    )
    return bench_scales(study)


def _defects(options: Namespace) -> Iterator[str]:
    from trainer.bench.defects import Study, bench_defects  # noqa: PLC0415

    study = Study(
        folder=folder(str(options.out)),
        frame=options.frame,
        diameters_px=options.diameters,
        each=options.each,
        train=options.train,
        good=options.good,
        tile=options.tile,
        flags=tuple(shlex.split(options.flags)),
    )
    return bench_defects(study)


def _frames(options: Namespace) -> Iterator[str]:
    from trainer.bench.frames import Study, bench_frames  # noqa: PLC0415

    if options.bundle is not None and (options.tile is not None or options.flags is not None):
        message = f"takt bench frames: --tile and --with are of what is built, and {options.bundle} is: leave them out"
        raise ConfigError(message)
    study = Study(
        bundle=options.bundle,
        folder=folder(str(options.out)),
        megapixels=options.megapixels,
        runs=options.runs,
        tile=options.tile or _FRAMES_TILE,
        flags=tuple(shlex.split(options.flags or "")),
    )
    return bench_frames(study)


def _predicted(options: Namespace) -> Iterator[str]:
    from trainer.bench.preflight import Comparison, bench_preflight  # noqa: PLC0415
    from trainer.models.registry import find_method  # noqa: PLC0415

    for method in options.methods:
        find_method(method)
    return bench_preflight(
        Comparison(
            methods=options.methods,
            tiles=options.tiles,
            frames=options.frames,
            runs=options.runs,
            flags=tuple(shlex.split(options.flags)),
        )
    )


def _frame_sizes(text: str) -> tuple[Size, ...]:
    return tuple(frame_size(part.strip()) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def _megapixels(text: str) -> tuple[float, ...]:
    found = _numbers(text)
    if not found or not all(0 < size <= 1000 for size in found):  # noqa: PLR2004 - 36515x27386 pixels are enough
        message = f"{text!r} is no list of megapixels, such as 1,4,12"
        raise ArgumentTypeError(message)
    return found


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas; none where one is no number."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()


def _scales(text: str) -> tuple[float, ...]:
    found = _numbers(text)
    if not found or not all(0 < scale <= 4 for scale in found):  # noqa: PLR2004 - as --scale has it
        message = f"{text!r} is no list of scales above 0, 4 at most, such as 1,0.5,0.25"
        raise ArgumentTypeError(message)
    return found


def _steps(text: str) -> dict[str, int]:
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals and number.isdecimal() and int(number) for _, equals, number in parts):
        message = f"{text!r} is not of the form METHOD=N,METHOD=N"
        raise ArgumentTypeError(message)
    return {name.strip(): int(number) for name, _, number in parts}


def _data() -> Path | None:
    folder = os.environ.get("TAKT_DATA")
    return Path(folder) if folder else None
