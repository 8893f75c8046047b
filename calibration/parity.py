"""Owns parity: whether an artefact computes what torch computed, on frames that no memory bank holds.

Maps and image scores must agree within a share of torch's range (design: 1e-3 in f32), and no verdict may flip beyond
the artefact's stated limit. Frames closer to the threshold than the tolerance are listed and not counted: there a
flip says nothing.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np

from edge_runtime.bundle.manifest import ParityEvidence, RegionThresholds
from edge_runtime.bundle.selftest import value_range
from edge_runtime.bundle.store import json_bytes
from edge_runtime.decision import decide
from edge_runtime.engines import Precision
from edge_runtime.errors import BundleError, ParityError
from edge_runtime.imaging.maps import Map

Thresholds: TypeAlias = Mapping[str, RegionThresholds]

TOLERANCE = 1e-3  # share of the range
_FLIP_SHARE = {Precision.F32: 0.0, Precision.BF16: 0.02}


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """What torch made of one region of one parity frame."""

    frame: str
    variant: str
    region: str
    score: float
    map: Map  # (h, w)


@dataclass(frozen=True, slots=True)
class ParityScore:
    """Torch's and an artefact's image score of one region of one frame: enough to count flips at any threshold."""

    frame: str
    variant: str
    region: str
    reference: float
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityMeasurement:
    """An artefact held against torch, before any threshold."""

    precision: Precision
    scores: tuple[ParityScore, ...]
    map_range: float
    map_max_abs: float
    score_range: float
    score_max_abs: float
    worst: str

    @property
    def within(self) -> bool:
        """Whether maps and scores agree within the tolerance; NaN does not."""
        return bool(
            self.map_max_abs <= TOLERANCE * self.map_range and self.score_max_abs <= TOLERANCE * self.score_range
        )


def measure(
    precision: Precision, references: Sequence[ReferenceScore], found: Sequence[tuple[float, Map]]
) -> ParityMeasurement:
    """Compare an artefact's scores and maps with torch's, region by region and frame by frame.

    Raises:
        ParityError: there is nothing to compare.
    """
    if not references:
        message = "parity has no frames to compare: the draft holds no references; fit it again"
        raise ParityError(message)
    scores = np.array([reference.score for reference in references])
    map_errors = [
        float(np.abs(reference.map - grid).max()) for reference, (_, grid) in zip(references, found, strict=True)
    ]
    score_errors = [abs(reference.score - score) for reference, (score, _) in zip(references, found, strict=True)]
    low = min(float(reference.map.min()) for reference in references)
    high = max(float(reference.map.max()) for reference in references)
    worst = references[int(np.argmax(map_errors))]
    pairs = zip(references, found, strict=True)
    return ParityMeasurement(
        precision=precision,
        scores=tuple(ParityScore(r.frame, r.variant, r.region, r.score, score) for r, (score, _) in pairs),
        map_range=value_range(np.array([low, high], dtype=np.float32)),
        map_max_abs=float(np.max(map_errors)),  # unlike max(), keeps a NaN wherever it stands
        score_range=value_range(scores.astype(np.float32)),
        score_max_abs=float(np.max(score_errors)),
        worst=f"{worst.frame} ({worst.variant}), region {worst.region}",
    )


def require(measurement: ParityMeasurement, artefact: str) -> None:
    """Refuse an f32 artefact that does not compute what torch computed.

    Raises:
        ParityError: maps or scores differ by more than the tolerance.
    """
    if measurement.precision is Precision.F32 and not measurement.within:
        message = (
            f"artefact {artefact} does not compute what torch computed: map differs by {measurement.map_max_abs:.3g} of a range of "
            f"{measurement.map_range:.3g}, image score by {measurement.score_max_abs:.3g} of {measurement.score_range:.3g}, "
            f"allowed is a share of {TOLERANCE:g}; worst on {measurement.worst}. No bundle is made of it: "
            "try another backbone, or report the engine's version with this message"
        )
        raise ParityError(message)


def evidence(
    measurement: ParityMeasurement,
    artefact: str,
    thresholds: Thresholds,
    reference_thresholds: Thresholds,
    reference_scores: Sequence[ParityScore] | None,
) -> ParityEvidence:
    """Sum up a measurement and count decision flips at the thresholds; the arguments are those of `recount`.

    Raises:
        ParityError: more verdicts flip than the artefact's precision may.
    """
    frames = {(pair.frame, pair.variant) for pair in measurement.scores}
    found = ParityEvidence(
        frames=len(frames),
        kinds=dict(Counter(variant for _, variant in frames)),
        map_range=measurement.map_range,
        map_max_abs=measurement.map_max_abs,
        score_range=measurement.score_range,
        score_max_abs=measurement.score_max_abs,
        tolerance=TOLERANCE,
        worst=measurement.worst,
        decision_flips=0,
        flip_limit=int(_FLIP_SHARE[measurement.precision] * len(measurement.scores)),
        near_threshold=(),
    )
    return recount(found, artefact, measurement.scores, thresholds, reference_thresholds, reference_scores)


def recount(
    found: ParityEvidence,
    artefact: str,
    scores: Sequence[ParityScore],
    thresholds: Thresholds,
    reference_thresholds: Thresholds,
    reference_scores: Sequence[ParityScore] | None,
) -> ParityEvidence:
    """Count decision flips at other thresholds.

    Args:
        found: the evidence so far; its ranges and its limit stay.
        artefact: whose evidence it is.
        scores: torch's and the artefact's.
        thresholds: the artefact's own, by region.
        reference_thresholds: those of what it is held against: the same for f32, f32's own for other precisions.
        reference_scores: the f32 artefact's scores in the same order; torch's where None.

    Raises:
        ParityError: more verdicts flip than the artefact's precision may.
    """
    near_by = found.tolerance * found.score_range
    counterparts = (
        [pair.reference for pair in scores] if reference_scores is None else [pair.score for pair in reference_scores]
    )
    flips, near = 0, []
    for pair, reference in zip(scores, counterparts, strict=True):
        own, other = thresholds[pair.region].image, reference_thresholds[pair.region].image
        if abs(pair.score - own.reject) <= near_by or abs(reference - other.reject) <= near_by:
            near.append(f"{pair.frame} ({pair.variant}), region {pair.region}")
        elif decide(pair.score, own) != decide(reference, other):
            flips += 1
    if flips > found.flip_limit:
        message = (
            f"artefact {artefact}: {flips} of {len(scores)} verdicts flip, allowed are {found.flip_limit}: "
            "leave this precision out"
        )
        raise ParityError(message)
    return found.model_copy(update={"decision_flips": flips, "near_threshold": tuple(near)})


def dump_parity(scores: Sequence[ParityScore]) -> bytes:
    """Parity scores as a JSON member."""
    return json_bytes([asdict(score) for score in scores])


def load_parity(data: bytes, name: str) -> tuple[ParityScore, ...]:
    """Parity scores from a JSON member.

    Raises:
        BundleError: the member is of another form.
    """
    try:
        return tuple(ParityScore(**row) for row in json.loads(data))
    except (ValueError, TypeError) as error:
        message = f"member {name} holds no parity scores ({error}): rebuild the bundle"
        raise BundleError(message) from error
