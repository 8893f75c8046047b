"""Owns the golden frames of a bundle: a few lossless frames with what every artefact makes of them."""

from collections.abc import Mapping, Sequence

from calibration.references import ReferenceFrame
from edge_runtime.bundle.manifest import GoldenExpectation, GoldenSpec
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import array_bytes
from edge_runtime.imaging.frames import encode_png
from edge_runtime.scorer import Scorer

TOLERANCE = {True: 1e-3, False: 5e-2}  # share of the range, by whether every artefact is f32


def golden_frames(
    frames: Sequence[ReferenceFrame], scorers: Mapping[tuple[str, GraphRole], Scorer]
) -> tuple[tuple[GoldenSpec, ...], dict[str, bytes]]:
    """Specifications and members of the golden frames.

    Args:
        frames: what to keep.
        scorers: by artefact name and graph.
    """
    specs, members = [], {}
    for index, golden in enumerate(frames):
        name = f"golden/{index}.png"
        members[name] = encode_png(golden.frame.pixels)
        expected = []
        for (artefact, graph), scorer in scorers.items():
            mark = "" if graph is GraphRole.TILE else f"-{graph}"
            for part in scorer.score(golden.frame).regions:
                member = f"golden/{index}-{artefact}{mark}-{part.name}.npy"
                members[member] = array_bytes(part.grid)
                expected.append(
                    GoldenExpectation(
                        artefact=artefact, graph=graph, region=part.name, score=part.image_score, map=member
                    )
                )
        specs.append(GoldenSpec(name=golden.label, frame=name, expected=tuple(expected)))
    return tuple(specs), members
