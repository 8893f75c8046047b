"""Owns `takt bundle`: show what a bundle holds, verify it as the service would."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.manifest import ArtefactSpec, Manifest
from edge_runtime.bundle.recipe import GraphRole, GraphSpec, RegionSpec
from edge_runtime.bundle.store import MANIFEST, read_manifest
from edge_runtime.bundle.training import TrainingRecord, read_training
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, write_bytes
from edge_runtime.errors import ConfigError
from edge_runtime.layout import tile_plan


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
        f"frames       {geometry.frame.size} {geometry.pixel_format}, {geometry.bit_depth} bits"
        + ("" if geometry.file_format is None else f", from files of {geometry.file_format}"),
        f"tiling       core {tiling.core.size}, halo {tiling.halo}, stride {tiling.stride}{_seam(manifest)}",
    ]
    if training is not None:
        lines.insert(3, f"training     {training.in_words()}")
    background = manifest.map_policy.background
    if background is not None:
        lines.append(
            f"background   of {background.frames} good frames; without it a defect would need {background.gain:.2f} times as much"
        )
    lines += [f"region       {region.name}: {_region_words(region)}" for region in geometry.regions]
    for artefact in manifest.artefacts:
        parity = artefact.parity
        lines.append(
            f"artefact     {artefact.name}: {artefact.latency_ms:.1f} ms where sealed, map within "
            f"{parity.map_max_abs / parity.map_range:.1e} of torch's range on {parity.frames} frames, {parity.decision_flips} flips"
        )
        lines += [f"  {_graph(graph, artefact)}" for graph in artefact.graphs]
        for name, found in artefact.thresholds.items():
            lines.append(f"  {name}: rejects from {found.reject:.6g} ({found.policy}); guarantee: {found.guarantee}")
    return lines


def _region_words(region: RegionSpec) -> str:
    words = f"{region.crop.size} at {region.crop.x1},{region.crop.y1} scaled to {region.plane.size}"
    if region.polygon is not None:
        words += f", polygon of {len(region.polygon)} corners"
    if region.valid_area is not None:
        words += ", masked"
    return words + (f", lists from {region.smallest_region_px} px" if region.smallest_region_px else "")


def _seam(manifest: Manifest) -> str:
    """How far tiles and the whole plane agree; nothing where no tile meets another."""
    tiling = manifest.tiling
    plans = [tile_plan(manifest, region).count for region in manifest.geometry.regions]
    return f"; {tiling.halo_kind}, seam error {tiling.seam_error:.1g} of the map's range" if max(plans) > 1 else ""


def _graph(graph: GraphSpec, artefact: ArtefactSpec) -> str:
    line = f"{graph.role} graph: {graph.batch} x {graph.width}x{graph.height}"
    if graph.role is GraphRole.TILE or artefact.frame is None:
        return line
    parity = artefact.frame.parity
    return (
        f"{line}, {artefact.frame.latency_ms:.1f} ms where sealed, map within {parity.map_max_abs / parity.map_range:.1e} "
        f"of torch's range on tiles, {parity.decision_flips} flips"
    )


def _verify(path: Path, *, as_json: bool) -> int:
    passed: list[str] = []

    def on_step(step: str) -> None:
        passed.append(step)
        if not as_json:
            sys.stdout.write(f"ok  {step}\n")

    with Archive(path) as archive:
        artefacts = read_manifest(archive).artefacts
    graphs = [(artefact.name, graph.role) for artefact in artefacts for graph in artefact.graphs]
    digest = ""
    for index, (name, role) in enumerate(graphs):
        loaded = load(path, artefact=name, graph=role, on_step=_ignore if index else on_step)
        digest = loaded.digest
        if index and not as_json:
            sys.stdout.write(f"ok  self-test of {name}{', frame graph' if role is GraphRole.FRAME else ''}\n")
    names = [artefact.name for artefact in artefacts]
    result: dict[str, Any] = {"bundle": digest, "path": str(path), "steps": passed, "artefacts": names}
    if as_json:
        write_json(result)
    else:
        sys.stdout.write(f"{path}: sealed, whole and as expected on this machine; digest {digest}\n")
    return 0


def _ignore(_: str) -> None:
    """Steps that every artefact shares are said once."""
