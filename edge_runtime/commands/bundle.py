"""Owns `takt bundle`: show what a bundle holds, verify it as the service would."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.store import MANIFEST, read_manifest
from edge_runtime.bundle.training import TrainingRecord, read_training
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, write_bytes
from edge_runtime.errors import ConfigError


def bundle(arguments: Sequence[str]) -> int:
    """Show or verify a bundle."""
    parser = Parser(prog="takt bundle", description="Look into a sealed bundle.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|verify", parser_class=Parser)
    shown = actions.add_parser("show", help="what the manifest says")
    shown.add_argument("bundle", type=Path)
    shown.add_argument("--json", action="store_true", help="the manifest itself on stdout")
    shown.add_argument("--report", type=Path, metavar="F", help="also write the bundle's report to a file")
    checked = actions.add_parser("verify", help="every step that the service takes before it trusts a bundle")
    checked.add_argument("bundle", type=Path)
    checked.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    return (
        _show(options.bundle, options.report, as_json=options.json)
        if options.action == "show"
        else _verify(options.bundle, as_json=options.json)
    )


def _show(path: Path, report: Path | None, *, as_json: bool) -> int:
    with Archive(path) as archive:
        manifest = read_manifest(archive)
        if report is not None:
            if manifest.report is None:
                message = f"--report: {path} holds no report: `takt evaluate --report DIR` makes one from a data set"
                raise ConfigError(message)
            write_bytes(report, archive.read(manifest.report))
        if as_json:
            sys.stdout.write(archive.read(MANIFEST).decode())
        else:
            sys.stdout.write("\n".join(_lines(manifest, read_training(archive))) + "\n")
    return 0


def _lines(manifest: Manifest, training: TrainingRecord | None) -> list[str]:
    geometry, tiling, origin = manifest.geometry, manifest.tiling, manifest.provenance
    splits = origin.splits
    validated = f"{len(splits.validation)} to validate, " if splits.validation else ""
    lines = [
        f"product      {manifest.product}",
        f"made         {manifest.created} by takt {manifest.takt_version}",
        f"method       {origin.method} on {origin.backbone}, seed {origin.seed}",
        f"data         {origin.dataset}: {len(splits.fit)} images to fit, {validated}{len(splits.calibration)} to calibrate",
        f"frames       {geometry.frame.size} {geometry.pixel_format}, {geometry.bit_depth} bits",
        f"tiling       core {tiling.core.size}, halo {tiling.halo}, stride {tiling.stride}",
    ]
    if training is not None:
        lines.insert(3, f"training     {training.in_words()}")
    background = manifest.map_policy.background
    if background is not None:
        lines.append(
            f"background   of {background.frames} good frames; without it a defect would need {background.gain:.2f} times as much"
        )
    lines += [
        f"region       {region.name}: {region.crop.size} scaled to {region.plane.size}" for region in geometry.regions
    ]
    for artefact in manifest.artefacts:
        parity = artefact.parity
        lines.append(
            f"artefact     {artefact.name}: {artefact.latency_ms:.1f} ms where sealed, map within "
            f"{parity.map_max_abs / parity.map_range:.1e} of torch's range on {parity.frames} frames, {parity.decision_flips} flips"
        )
        for name, found in artefact.thresholds.items():
            lines.append(f"  {name}: rejects from {found.reject:.6g} ({found.policy}); guarantee: {found.guarantee}")
    return lines


def _verify(path: Path, *, as_json: bool) -> int:
    passed: list[str] = []

    def on_step(step: str) -> None:
        passed.append(step)
        if not as_json:
            sys.stdout.write(f"ok  {step}\n")

    with Archive(path) as archive:
        names = [artefact.name for artefact in read_manifest(archive).artefacts]
    digest = ""
    for name in names:
        loaded = load(path, artefact=name, on_step=on_step if name == names[0] else _ignore)
        digest = loaded.digest
        if name != names[0] and not as_json:
            sys.stdout.write(f"ok  self-test of {name}\n")
    result: dict[str, Any] = {"bundle": digest, "path": str(path), "steps": passed, "artefacts": names}
    if as_json:
        write_json(result)
    else:
        sys.stdout.write(f"{path}: sealed, whole and as expected on this machine; digest {digest}\n")
    return 0


def _ignore(_: str) -> None:
    """Steps that every artefact shares are said once."""
