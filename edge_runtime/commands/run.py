"""Owns `takt run`: inspect image files with a sealed bundle."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import array_bytes
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, folder, positive, write_bytes
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import DataError
from edge_runtime.imaging.files import images_in
from edge_runtime.imaging.frames import encode_png, read_image
from edge_runtime.inspector import Inspection, Inspector

_COLUMNS = ("path", "verdict", "reason", "score", "threshold", "score_normalized", "regions", "total_ms")


def run(arguments: Sequence[str]) -> int:
    """Inspect files and folders; exit code 5 where a file could not be inspected."""
    parser = Parser(prog="takt run", description="Inspect image files with a sealed bundle.")
    parser.add_argument("bundle", type=Path, help="a sealed bundle, *.takt")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them")
    parser.add_argument("--overlays", metavar="DIR", help="write the frame under its heatmap, PNG")
    parser.add_argument("--maps", metavar="DIR", help="write raw anomaly maps at the frame's size, float32 .npy")
    parser.add_argument("--masks", metavar="DIR", help="write the map cut at the pixel threshold, PNG")
    parser.add_argument("--only-wrong", action="store_true", help="print, write and list only what was not accepted")
    parser.add_argument("--csv", type=Path, metavar="F", help="write a table")
    parser.add_argument("--artefact", metavar="NAME", help="which artefact of the bundle to run")
    parser.add_argument(
        "--graph", choices=list(GraphRole), default=GraphRole.TILE, help="tiles (default), or the whole frame at once"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of one inspection")
    parser.add_argument(
        "--early-reject", action="store_true", help="stop at a frame's first tiles that make its REJECT certain"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    options = parser.parse_args(arguments)
    outputs = {name: folder(value) for name in ("overlays", "maps", "masks") if (value := getattr(options, name))}
    files = list(find_images(options.paths))
    inspector = Inspector.open(
        options.bundle,
        artefact=options.artefact,
        graph=options.graph,
        threads=options.threads,
        early_reject=options.early_reject,
    )
    rows: list[dict[str, Any]] = []
    counts: Counter[Verdict] = Counter()
    failed = 0
    for path, name in files:
        inspection = inspector.inspect_file(path)
        failed += inspection.reason is Reason.BAD_IMAGE
        counts[inspection.verdict] += 1
        if options.only_wrong and inspection.verdict is Verdict.ACCEPT:
            continue
        rows.append(as_json(path, inspection))
        _print(rows[-1], inspection, as_lines=options.json)
        _write_pictures(inspector, inspection, path, name, outputs)
    if options.csv:
        write_bytes(options.csv, _table(rows))
    if not options.json:
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
        sys.stderr.write(f"{counts.total()} image(s): {said}\n")
    return DataError.exit_code if failed else 0


def find_images(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Image files named or found in folders, each with the name that outputs get: unique, without suffix.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    taken: set[str] = set()
    for given in paths:
        if given.is_dir():
            found = images_in(given)
            if not found:
                message = f"{given}: holds no image"
                raise DataError(message)
        elif given.exists():
            found = [given]
        else:
            message = f"{given}: does not exist"
            raise DataError(message)
        for path in found:
            base = path.relative_to(given) if given.is_dir() else Path(path.name)
            stem = name = base.with_suffix("").as_posix().replace("/", "_")
            number = 1
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name)
            yield path, name


def as_json(path: Path, inspection: Inspection) -> dict[str, Any]:
    """The keys that scripts read."""
    times = inspection.timings_ms
    return {
        "path": str(path),
        "verdict": inspection.verdict.value,
        "reason": None if inspection.reason is None else inspection.reason.value,
        "detail": inspection.detail or None,
        "region": inspection.region,
        "score": inspection.score,
        "threshold": inspection.threshold,
        "score_normalized": inspection.score_normalized,
        "regions": [
            {
                "name": region.name,
                "x": region.x,
                "y": region.y,
                "width": region.width,
                "height": region.height,
                "area_px": region.area_px,
                "peak": region.peak,
            }
            for region in inspection.regions
        ],
        "complete": inspection.complete,
        "bundle": inspection.bundle,
        "artefact": inspection.artefact,
        "timings_ms": {
            "decode": times.decode,
            "preprocess": times.preprocess,
            "infer": times.infer,
            "postprocess": times.postprocess,
            "total": times.total,
        },
        "stages_ms": dict(times.stages.as_json()),
    }


def _print(row: dict[str, Any], inspection: Inspection, *, as_lines: bool) -> None:
    if as_lines:
        write_json(row)
        return
    if inspection.verdict is Verdict.ERROR:
        sys.stdout.write(f"{'ERROR':<7} {inspection.reason}  {row['path']}  {inspection.detail}\n")
        return
    score = f"{inspection.score_normalized:6.1f}"
    sys.stdout.write(f"{inspection.verdict:<7} {score}  {row['path']}  {len(inspection.regions)} region(s)\n")


def _write_pictures(
    inspector: Inspector, inspection: Inspection, path: Path, name: str, outputs: dict[str, Path]
) -> None:
    frame_map = inspector.frame_map(inspection)
    if frame_map is None or not outputs:
        return
    if "maps" in outputs:
        write_bytes(outputs["maps"] / f"{name}.npy", array_bytes(frame_map))
    mask = inspector.defect_mask(inspection) if "masks" in outputs else None
    if mask is not None:
        write_bytes(outputs["masks"] / f"{name}.png", encode_png(mask))
    if "overlays" in outputs:
        picture = inspector.overlay(read_image(path, inspector.file_format), inspection)
        if picture is not None:
            write_bytes(outputs["overlays"] / f"{name}.png", encode_png(np.ascontiguousarray(picture)))


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for row in rows:
        cells = {**row, "regions": len(row["regions"]), "total_ms": row["timings_ms"]["total"]}
        writer.writerow(["" if cells[column] is None else cells[column] for column in _COLUMNS])
    return buffer.getvalue().encode()
