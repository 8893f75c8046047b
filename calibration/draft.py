"""Owns opening a draft: what the trainer hands over, checked as strictly as a bundle is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.parity import ReferenceScore
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import read_backgrounds, read_valid_areas
from edge_runtime.bundle.manifest import DraftManifest, ReferenceSpec
from edge_runtime.bundle.recipe import GraphRole, GraphSpec
from edge_runtime.bundle.store import DRAFT, array_from, check_digests, read_draft_manifest
from edge_runtime.errors import BundleError
from edge_runtime.imaging.background import Background


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A fitted model without thresholds."""

    path: Path
    manifest: DraftManifest
    graphs: dict[GraphRole, bytes]  # ONNX
    members: dict[str, bytes]  # those that go into the bundle as they are: masks and licences
    valid_areas: dict[str, NDArray[np.bool_]]
    backgrounds: dict[str, Background]
    references: tuple[tuple[ReferenceSpec, NDArray[np.float32]], ...]  # with torch's maps


def open_draft(path: Path) -> Draft:
    """Read and check a draft.

    Raises:
        BundleError: damaged, sealed already, made with random weights, or no draft at all.
    """
    with Archive(path) as archive:
        manifest = read_draft_manifest(archive)
        check_digests(archive, DRAFT, manifest.members)
        if not manifest.sealable:
            message = f"{path}: was fitted with random weights, which is for testing exports; it cannot be sealed: fit it with real weights"
            raise BundleError(message)
        maps = {spec.map: array_from(archive.read(spec.map), spec.map) for spec in manifest.references}
        graphs = {graph.role: _only(graph, path) for graph in manifest.graphs}
        passed_on = set(archive.names) - {DRAFT, *graphs.values()} - set(maps)
        return Draft(
            path=path,
            manifest=manifest,
            graphs={role: archive.read(name) for role, name in graphs.items()},
            members={name: archive.read(name) for name in sorted(passed_on)},
            valid_areas=read_valid_areas(archive, manifest),
            backgrounds=read_backgrounds(archive, manifest),
            references=tuple((spec, maps[spec.map]) for spec in manifest.references),
        )


def _only(graph: GraphSpec, path: Path) -> str:
    if len(graph.files) != 1:
        message = f"{path}: the {graph.role} graph is {len(graph.files)} files, a draft's is one of ONNX: fit it again"
        raise BundleError(message)
    return graph.files[0]


def reference_scores(
    references: Sequence[tuple[ReferenceSpec, NDArray[np.float32]]], names: dict[str, str]
) -> list[ReferenceScore]:
    """Torch's results with the frames' names in place of their digests."""
    return [
        ReferenceScore(names[spec.digest], spec.variant, spec.region, spec.score, grid) for spec, grid in references
    ]
