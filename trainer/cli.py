"""Owns the commands `takt build` and `takt fit`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibration.cli import add_sealing, parse_precisions, report_sealed
from calibration.policies import parse_policy
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, add_budget, folder
from trainer.config import BuildConfig, make_config

_FIT_ONLY = {"dataset", "out", "config", "json", "report", "resume"}


def build(arguments: Sequence[str]) -> int:
    """Fit a model and seal it."""
    parser = _parser("takt build", "From images of good parts to a sealed bundle.")
    add_sealing(parser)
    options = parser.parse_args(arguments)
    config = _config(options)
    from trainer.building import build as build_bundle  # noqa: PLC0415 - torch takes seconds; faults of usage do not wait
    from trainer.fitting import fit as fit_draft  # noqa: PLC0415
    from trainer.processes import joined  # noqa: PLC0415

    resume = getattr(options, "resume", False)
    with joined() as processes:
        if not processes.leads:  # the first one seals
            fit_draft(config, options.dataset, options.out, resume=resume, processes=processes)
            return 0
        if options.report is not None:
            folder(options.report)  # before the fit, not after it
        sealed = build_bundle(config, options.dataset, options.out, resume=resume, processes=processes)
        report_sealed(sealed, options.report, as_json=options.json)
    return 0


def fit(arguments: Sequence[str]) -> int:
    """Fit a model; sealing comes later, perhaps elsewhere."""
    parser = _parser("takt fit", "The part of build that needs torch and no inference engine.")
    parser.add_argument("--json", action="store_true", default=False, help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    config = _config(options)
    from trainer.fitting import fit as fit_draft  # noqa: PLC0415
    from trainer.processes import joined  # noqa: PLC0415

    resume = getattr(options, "resume", False)
    with joined() as processes:
        fit_draft(config, options.dataset, options.out, resume=resume, processes=processes)
        if not processes.leads:
            return 0
    if options.json:
        write_json({"draft": str(options.out), "method": config.method, "seed": config.seed})
    else:
        sys.stdout.write(f"fitted {options.out}; next: takt seal {options.out} {options.dataset} --out NAME.takt\n")
    return 0


def config_of(*arguments: str) -> BuildConfig:
    """The settings that arguments of `takt fit` give.

    Raises:
        ConfigError: they contradict, or there is no such flag.
    """
    return _config(_parser("takt fit", "").parse_args(arguments))


def _parser(prog: str, description: str) -> Parser:
    parser = Parser(prog=prog, description=description, argument_default=argparse.SUPPRESS)
    parser.add_argument("dataset", type=Path, help="MVTec tree, folder of good images, VisA folder, .toml or .csv")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--config", type=Path, default=None, help="build.toml: the same settings, and [[region]]s")
    _add_model(parser)
    _add_pixels(parser)
    _add_training_tiles(parser)
    _add_data(parser)
    add_budget(
        parser.add_argument_group("budget", "what an inspection may take; refused before the fit where it takes more")
    )
    _add_machine(parser)
    return parser


def _add_model(parser: Parser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument("--product", help="the product's name; the data set's when left out")
    model.add_argument("--method", help="patchcore (default), padim, or another of docs/methods.md")
    model.add_argument("--backbone", help="a timm name (default resnet18.tv_in1k), or gabor, which needs no weights")
    model.add_argument(
        "--weights", metavar="FILE|random", help="weights file; random is for tests and cannot be sealed"
    )
    model.add_argument("--layers", type=_names, help="backbone layers, shallow first, such as layer2,layer3")
    model.add_argument(
        "--coreset", type=_coreset, metavar="SHARE|N", help="memory bank: share of the patches, or a number"
    )
    model.add_argument(
        "--fit-memory", dest="fit_memory_mb", type=int, metavar="MB", help="patches held while selecting"
    )
    model.add_argument("--steps", type=int, metavar="N", help="steps of optimisation, instead of the method's schedule")
    model.add_argument("--learning-rate", type=float, metavar="R", help="instead of the method's own")
    model.add_argument("--width", type=float, metavar="SHARE", help="DRAEM: share of the paper's channels (default 1)")
    model.add_argument("--teacher", metavar="FILE", help="EfficientAD: weights that `takt teacher` made")
    model.add_argument(
        "--textures", metavar="DIR", help="DRAEM, EfficientAD: pictures of other things, instead of drawn ones"
    )


def _add_pixels(parser: Parser) -> None:
    pixels = parser.add_argument_group("pixels")
    pixels.add_argument("--size", type=_size, metavar="WxH", help="scale each region to one input (default 256x256)")
    pixels.add_argument(
        "--tile", type=_tile, metavar="N|WxH", help="cut each region into tiles of so many sensor pixels instead"
    )
    pixels.add_argument(
        "--halo", type=int, metavar="N", help="pixels seen around each tile (default: the fewest that leave no seam)"
    )
    pixels.add_argument(
        "--frame-graph", action="store_true", help="with --tile: also a graph of the whole frame at once"
    )
    pixels.add_argument("--scale", type=float, metavar="S", help="scale the region before it is cut into tiles")
    pixels.add_argument("--crop", type=_box, metavar="X1,Y1,X2,Y2", help="inspect this box only")
    pixels.add_argument("--valid-area", metavar="MASK.png", help="inspect where this mask is above 0")
    pixels.add_argument(
        "--smallest-region", type=int, metavar="PX", help="do not list smaller defects (never decides); for each region"
    )
    pixels.add_argument(
        "--pixel-format", metavar="NAME", help="what image files hold that cannot tell: BayerRG8, BayerGB12, Mono12 ..."
    )


def _add_training_tiles(parser: Parser) -> None:
    tiles = parser.add_argument_group("training on tiles (inspection always covers every pixel)")
    tiles.add_argument(
        "--foreground",
        metavar="none|otsu|MASK.png",
        help="train on tiles that show the part: found by brightness in each image, or drawn on the frame (default none: all)",
    )
    tiles.add_argument(
        "--foreground-share", type=float, metavar="F", help="share of a tile's core that must show it (default 0.1)"
    )
    tiles.add_argument(
        "--incomplete-tiles",
        choices=["in", "out"],
        help="train on tiles whose core reaches beyond the plane (default in)",
    )
    tiles.add_argument(
        "--tile-cache", metavar="DIR", help="keep decoded and scaled images here, for later epochs and later builds"
    )
    tiles.add_argument(
        "--augment",
        type=_names,
        metavar="KIND[,KIND...]",
        help="see every tile once more per kind: flip_x, flip_y, turn, light (default none)",
    )


def _add_data(parser: Parser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--holdout", type=float, help="share of the good images for thresholds (default 0.2)")
    data.add_argument(
        "--validation", type=float, help="share for constants inside the graph, the early stop and the background"
    )
    data.add_argument(
        "--background",
        choices=["auto", "on", "off"],
        help="judge each place by what is usual there (default auto: where validation images say that it helps)",
    )
    data.add_argument("--calibration-split", type=float, help="share of the test tree that sets thresholds too")
    data.add_argument("--limit", type=int, metavar="N", help="a seeded sample of so many images of each split")


def _add_machine(parser: Parser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", choices=["auto", "cpu", "cuda"])
    machine.add_argument("--seed", type=int)
    machine.add_argument(
        "--batch",
        type=_batch,
        metavar="N|auto",
        help="tiles in a batch while fitting (default 8); auto: what memory allows",
    )
    machine.add_argument("--workers", type=int, help="threads that read images ahead")
    machine.add_argument("--resume", action="store_true", help="go on where a fit was broken off, where a method can")


def _config(options: argparse.Namespace) -> BuildConfig:
    given: dict[str, Any] = {key: value for key, value in vars(options).items() if key not in _FIT_ONLY}
    if "precision" in given:
        given["precision"] = [precision.value for precision in parse_precisions(given["precision"])]
    config = make_config(given, options.config)
    if config.policy is not None:
        parse_policy(config.policy)
    return config


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _size(text: str) -> list[int]:
    return _integers(text.lower().replace("x", ","), 2, "WxH")


def _tile(text: str) -> int | list[int]:
    return int(text) if text.isdecimal() else _integers(text.lower().replace("x", ","), 2, "N or WxH")


def _box(text: str) -> list[int]:
    return _integers(text, 4, "X1,Y1,X2,Y2")


def _integers(text: str, count: int, form: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        message = f"{text!r} is not of the form {form}"
        raise argparse.ArgumentTypeError(message)
    return numbers


def _batch(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError as error:
        message = f"{text!r} is neither a number of tiles nor auto"
        raise argparse.ArgumentTypeError(message) from error


def _coreset(text: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError as error:
        message = f"{text!r} is neither a share such as 0.01 nor a number of patches"
        raise argparse.ArgumentTypeError(message) from error
