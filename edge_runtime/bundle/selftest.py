"""Owns the self-test: golden frames must give on this machine what they gave where the bundle was sealed."""

import numpy as np

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import ArtefactSpec, GoldenExpectation, GoldenSpec, Manifest
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import array_from
from edge_runtime.errors import DataError, SelfTestError
from edge_runtime.imaging.frames import decode_png
from edge_runtime.imaging.maps import Map
from edge_runtime.scorer import RegionScore, Scorer


def self_test(archive: Archive, manifest: Manifest, artefact: ArtefactSpec, graph: GraphRole, scorer: Scorer) -> None:
    """Score every golden frame and compare maps and scores with the sealed ones.

    Raises:
        SelfTestError: a map or a score differs by more than the tolerance's share of the range, a golden frame cannot
            be scored, or nothing is expected of a region.
        EngineError: the engine failed.
    """
    for golden in manifest.golden:
        scored = _scored(archive, golden, scorer)
        own = [one for one in golden.expected if (one.artefact, one.graph) == (artefact.name, graph)]
        if sorted(expected.region for expected in own) != sorted(scored):
            message = (
                f"{archive.path}: self-test: golden frame {golden.name} expects of {artefact.name} ({graph} graph) results for regions "
                f"{sorted(expected.region for expected in own)}, it has {sorted(scored)}: rebuild the bundle"
            )
            raise SelfTestError(message)
        for expected in own:
            sealed = array_from(archive.read(expected.map), expected.map)
            where = f"{archive.path}: self-test: golden frame {golden.name}, artefact {expected.artefact}, region {expected.region}"
            _check_form(scored[expected.region].grid, sealed, where)
            allowed = manifest.golden_tolerance * value_range(sealed)
            gain = scorer.score_gain(expected.region)
            _compare(scored[expected.region], expected, sealed, allowed=allowed, gain=gain, where=where)


def _scored(archive: Archive, golden: GoldenSpec, scorer: Scorer) -> dict[str, RegionScore]:
    """By region. The frame's pixels are let go: two frames at once would be the most that a process ever holds."""
    try:
        frame = decode_png(archive.read(golden.frame), golden.frame)
        return {part.name: part for part in scorer.score(frame).regions}
    except DataError as error:
        message = f"{archive.path}: self-test: golden frame {golden.name} cannot be scored: {error}"
        raise SelfTestError(message) from error


def _check_form(found: Map, sealed: Map, where: str) -> None:
    if (found.shape, found.dtype) != (sealed.shape, sealed.dtype) or not np.isfinite(sealed).all():
        message = (
            f"{where}: map is {found.dtype} {found.shape}, sealed was {sealed.dtype} {sealed.shape}; "
            "all values must be finite: rebuild the bundle"
        )
        raise SelfTestError(message)


def _compare(
    found: RegionScore, expected: GoldenExpectation, sealed: Map, *, allowed: float, gain: float, where: str
) -> None:
    map_error = float(np.abs(found.grid - sealed).max())
    score_error = abs(found.image_score - expected.score)
    if not (map_error <= allowed and score_error <= allowed * gain):  # NaN fails too
        message = (
            f"{where}: map differs by {map_error:.3g}, allowed is {allowed:.3g}, and score by {score_error:.3g}, allowed is "
            f"{allowed * gain:.3g}: this machine computes otherwise; try another artefact, or seal the draft here"
        )
        raise SelfTestError(message)


def value_range(values: Map) -> float:
    """Maximum minus minimum; where that is 0, the magnitude; where that is 0 too, 1."""
    spread = float(values.max() - values.min())
    return spread or float(np.abs(values).max()) or 1.0
