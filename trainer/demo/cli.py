"""Owns `takt demo`: generated parts -> bundle -> service -> every unseen part triggered -> verdicts against the truth."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.metrics import curve
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, folder
from edge_runtime.errors import ConfigError, TaktError
from trainer.demo.line import CAMERA, Served, run_line
from trainer.demo.product import Contrast, DefectKind, write_dataset

_METHOD = "padim"  # the part lies in a fixture: what is good differs from place to place
_UNSEEN_SEED = 90_000
_GOOD = "good"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inspected:
    """One unseen part: what it is, and what the service said."""

    name: str  # of its image, below `unseen/test`
    truth: str  # "good", or "<kind>_<contrast>"
    row: dict[str, Any]  # keys of `takt trigger --json`


def demo(arguments: Sequence[str]) -> int:
    """Show the whole way on a generated product."""
    parser = Parser(
        prog="takt demo",
        description="Generated parts, a bundle of them, a line that runs it, and verdicts on unseen parts.",
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=120, metavar="N", help="good parts to learn from")
    parser.add_argument(
        "--parts", type=int, default=40, metavar="N", help="unseen good parts; a third as many of each contrast"
    )
    parser.add_argument("--backbone", help="gabor, or a timm name; the default takes what can be had")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    out = _fresh(folder(options.out))
    _say("1. photographing generated parts: a turned flange, and the ways to spoil it")
    write_dataset(out / "flange", seed=options.seed, train=options.train)
    bundle = _build(out, options.backbone, options.seed)
    _say(f"3. photographing unseen parts, and pictures of them: takt run {bundle} {out / 'unseen'} --overlays")
    write_dataset(
        out / "unseen",
        seed=_UNSEEN_SEED + options.seed,
        train=0,
        test_good=options.parts,
        per_defect=max(1, options.parts // 12),
    )
    alone = _run(out, bundle)
    _say(f"4. the line: takt serve --config {out / 'line.toml'}, then a trigger for each unseen part")
    served = run_line(out, len(alone))
    inspected = _labelled(served.rows, alone)
    result = _result(inspected, out) | _service(served, inspected, alone)
    if options.json:
        write_json(result)
    else:
        _show(inspected, result, served, time.monotonic() - start)
    return 0


def _fresh(out: Path) -> Path:
    """Remove what an earlier demo left there, and nothing else."""
    for name in ("flange", "unseen", "overlays", "report"):
        shutil.rmtree(out / name, ignore_errors=True)
    return out


def _build(out: Path, backbone: str | None, seed: int) -> Path:
    bundle = out / "flange.takt"
    for candidate in (backbone,) if backbone else ("resnet18.tv_in1k", "gabor"):
        _say(f"2. learning what good looks like: takt build {out / 'flange'} --method {_METHOD} --backbone {candidate}")
        try:
            _takt_build(out, bundle, candidate, seed)
        except ConfigError as error:
            if backbone or "no weights" not in str(error):
                raise
            _say("   no weights can be had here; taking the built-in filter bank `gabor` instead")
        else:
            return bundle
    message = "no backbone could be had"
    raise TaktError(message)


def _takt_build(out: Path, bundle: Path, backbone: str, seed: int) -> None:
    from calibration.cli import write_report  # noqa: PLC0415 - engines and torch load only now
    from trainer.building import build  # noqa: PLC0415
    from trainer.config import make_config  # noqa: PLC0415

    flags = {"method": _METHOD, "backbone": backbone, "product": "flange", "seed": seed}
    sealed = build(make_config(flags, None), out / "flange", bundle)
    if sealed.evaluation is not None:
        write_report(sealed.evaluation, sealed.inspector, folder(str(out / "report")), bundle=bundle, only_wrong=False)


def _run(out: Path, bundle: Path) -> dict[str, str]:
    """Draw pictures through the command itself, in a process of its own; the verdict of each image."""
    command = [sys.executable, "-m", "edge_runtime.cli", "run", str(bundle), str(out / "unseen" / "test")]
    command += ["--overlays", str(out / "overlays"), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own command
    if done.returncode:
        message = f"takt run failed with exit code {done.returncode}: {done.stderr.strip()}"
        raise TaktError(message)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(row["path"]).relative_to(out / "unseen" / "test").as_posix(): row["verdict"] for row in rows}


def _labelled(rows: Sequence[dict[str, Any]], expected: Mapping[str, str]) -> list[_Inspected]:
    """Parts under the names that the camera gave them: each image was on the line once.

    Raises:
        TaktError: one was not, or twice.
    """
    found = [_Inspected(name=row["label"] or "", truth=(row["label"] or "").partition("/")[0], row=row) for row in rows]
    if sorted(part.name for part in found) != sorted(expected):
        faults = sorted({f"{row['reason']}: {row['detail']}" for row in rows if row["reason"]})
        message = (
            f"not every unseen part was answered once, see service.jsonl; the service said: {faults or 'no fault'}"
        )
        raise TaktError(message)
    return found


def _service(served: Served, inspected: Sequence[_Inspected], alone: Mapping[str, str]) -> dict[str, Any]:
    return {
        "latency_ms": served.latency_ms,
        "service": {
            "errors": served.errors,
            "unlike_run": sum(part.row["verdict"] != alone[part.name] for part in inspected),
            "ready_s": round(served.ready_s, 2),
            "exit_code": served.exit_code,
            "config": str(served.config),
            "endpoint": served.endpoint,
        },
    }


def _result(inspected: Sequence[_Inspected], out: Path) -> dict[str, Any]:
    good = [item for item in inspected if item.truth == _GOOD]
    by_contrast = {
        contrast.value: [item for item in inspected if item.truth.endswith(f"_{contrast}")] for contrast in Contrast
    }
    clear = by_contrast[Contrast.MIDDLE] + by_contrast[Contrast.HIGH]
    counted = curve(_scores(good), _scores(clear))
    return {
        "parts": len(inspected),
        "errors": sum(item.row["verdict"] == "ERROR" for item in inspected),
        "false_rejects": _rejected(good),
        "good": len(good),
        "found": {name: [_rejected(items), len(items)] for name, items in by_contrast.items()},
        "image_auroc_middle_high": None if counted is None else counted.auroc(),
        "bundle": str(out / "flange.takt"),
        "report": str(out / "report" / "index.html"),
        "overlays": str(out / "overlays"),
    }


def _show(inspected: Sequence[_Inspected], result: dict[str, Any], served: Served, seconds: float) -> None:
    lines = ["", f"{'part':<26}{'truth':<18}{'verdict':<9}{'score':>6}{'ms':>7}   (100 is the threshold)"]
    for truth in (_GOOD, *(f"{kind}_{contrast}" for kind in DefectKind for contrast in Contrast)):
        first = next(item for item in inspected if item.truth == truth)
        score, took = first.row["score_normalized"] or 0, first.row["latency_ms"]
        lines.append(f"{first.name:<26}{truth:<18}{first.row['verdict']:<9}{score:>6.0f}{took:>7.0f}")
    lines += ["", f"{result['false_rejects']} of {result['good']} good parts rejected"]
    lines += [
        f"{found} of {count} defects of {name} contrast found" for name, (found, count) in result["found"].items()
    ]
    lines.append("(low contrast lies at the noise of good parts: those are not meant to be found)")
    lines.append(
        f"image AUROC at middle and high contrast: {result['image_auroc_middle_high']:.3f}; errors: {result['errors']}"
    )
    lines += ["", *_latencies(served)]
    lines += ["", f"report    {result['report']}", f"overlays  {result['overlays']}", f"bundle    {result['bundle']}"]
    lines += ["", "The same line again, until Ctrl-C, and what to ask it from another terminal:"]
    lines += [
        f"  takt serve --config {served.config}",
        f"  takt trigger --endpoint {served.endpoint} --camera {CAMERA} --count 10",
        f"  takt status --endpoint {served.endpoint}",
        f"  takt watch --endpoint {served.endpoint}",
        f"done in {seconds:.0f} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _latencies(served: Served) -> list[str]:
    """A table: where each trigger's time went."""
    lines = [f"{len(served.rows)} triggers over the socket, Ready {served.ready_s:.1f} s after its start", ""]
    lines.append(f"{'ms':<14}{'p50':>8}{'p99':>8}")
    for stage, spread in served.latency_ms.items():
        figures = ("-" if spread[key] is None else f"{spread[key]:.1f}" for key in ("p50", "p99"))
        lines.append(f"{stage:<14}{''.join(f'{figure:>8}' for figure in figures)}")
    return lines


def _rejected(items: Sequence[_Inspected]) -> int:
    return sum(item.row["verdict"] in {"REJECT", "REVIEW", "ERROR"} for item in items)


def _scores(items: Sequence[_Inspected]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.inf if item.row["score"] is None else item.row["score"] for item in items], dtype=np.float64)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
