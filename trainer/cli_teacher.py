"""Owns the command `takt teacher`."""

import math
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, positive


def teacher(arguments: Sequence[str]) -> int:
    """Distil a backbone into EfficientAD's teacher."""
    parser = Parser(prog="takt teacher", description="Distil a backbone into a small network for --teacher.")
    parser.add_argument("--backbone", required=True, help="a timm name, or gabor; the paper takes wide_resnet101_2")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs of anything, many")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--size", choices=["small", "medium"], default="small", help="for efficientad_s or _m")
    parser.add_argument("--layers", help="backbone layers, shallow first (default layer2,layer3)")
    parser.add_argument("--weights", metavar="FILE", help="weights file of the backbone")
    parser.add_argument("--steps", type=positive, metavar="N", help="batches to learn from (default 60000)")
    parser.add_argument("--learning-rate", type=_rate, metavar="R", help="of the optimiser (default 1e-4)")
    parser.add_argument("--batch", type=positive, metavar="N", help="pictures in a batch (default 16)")
    parser.add_argument("--workers", type=positive, metavar="N", help="threads that read pictures ahead (default 2)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--resume", action="store_true", help="go on where the last run was broken off")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    from trainer.devices import choose_device  # noqa: PLC0415 - torch takes seconds; faults of usage do not wait
    from trainer.processes import joined  # noqa: PLC0415
    from trainer.teacher import TeacherSettings, distil  # noqa: PLC0415

    given = {name: getattr(options, name) for name in ("weights", "steps", "learning_rate", "batch", "workers", "seed")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.layers is not None:
        given["layers"] = tuple(name.strip() for name in options.layers.split(","))
    with joined() as processes:
        device = str(choose_device(options.device, processes))
        settings = TeacherSettings(backbone=options.backbone, size=options.size, device=device, **given)
        losses = distil(settings, options.images, options.out, resume=options.resume, processes=processes)
        if not processes.leads:
            return 0
    last = losses[-1] if losses else None
    if options.json:
        write_json({"teacher": str(options.out), "size": settings.size, "steps": settings.steps, "loss": last})
    else:
        sys.stdout.write(
            f"distilled {options.out}; next: takt build DATASET --method efficientad_{settings.size[0]} "
            f"--teacher {options.out} --textures {options.images} --out NAME.takt\n"
        )
    return 0


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < math.inf:
        message = f"{text!r} is no learning rate: a number above 0"
        raise ArgumentTypeError(message)
    return rate
