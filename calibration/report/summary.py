"""Owns what the report states in words and tables: headline, warnings, rates, confusion, thresholds, figures."""

from dataclasses import dataclass

from calibration.evaluation import Evaluation
from calibration.metrics import AUPRO_LIMIT
from calibration.policies import NO_GUARANTEE
from calibration.report.wording import NOTHING, RateLine, RateName, count, number, rate_line
from calibration.samples import Label
from edge_runtime.bundle.recipe import Recipe
from edge_runtime.decision import Verdict
from edge_runtime.inspector import Inspector
from edge_runtime.layout import tile_plan


@dataclass(frozen=True, slots=True)
class Fact:
    """A name, its value, and perhaps what to know about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A count in the confusion table."""

    amount: int
    tone: str  # "bad", "warn", "good" or "" for its colour
    name: str  # what such images are called, or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusionRow:
    """Images of one label by verdict."""

    label: str
    cells: tuple[Cell, ...]
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdRow:
    """One region's thresholds, in raw scores."""

    region: str
    reject: str
    review: str
    pixel: str
    policy: str
    guarantee: str
    promises: bool
    basis: str  # what the threshold was computed from
    suggested: str  # what another policy would set on these images; empty where none was asked for


def headline(evaluation: Evaluation, inspector: Inspector) -> tuple[Fact, ...]:
    """What was evaluated on what."""
    recipe, artefact = inspector.scorer.recipe, inspector.artefact
    runs = f"{artefact.engine}, {artefact.precision}, {artefact.latency_ms:.3g} ms an image"
    return (
        Fact("Method", evaluation.method, recipe.provenance.backbone),
        Fact("Artefact", evaluation.artefact, runs),
        *_tiles(recipe),
        Fact("Data set", evaluation.dataset, count(len(evaluation.judged), "image")),
        Fact("Bundle", evaluation.bundle[:12], "first 12 digits of its digest"),
        Fact("Created", recipe.created, f"Takt {recipe.takt_version}"),
    )


def _tiles(recipe: Recipe) -> tuple[Fact, ...]:
    """How planes are cut, where they are."""
    tiling = recipe.tiling
    count_of = max(tile_plan(recipe, region).count for region in recipe.geometry.regions)
    if count_of == 1:
        return ()
    seams = f"halo {tiling.halo} px, {tiling.halo_kind}: seam error {tiling.seam_error:.1g} of the map's range"
    return (Fact("Tiles", f"{count_of} of {tiling.core.size}", seams),)


def warnings(evaluation: Evaluation, inspector: Inspector) -> tuple[Fact, ...]:
    """What stands in the way of trusting the page, most important first."""
    found = []
    thresholds = inspector.artefact.thresholds
    free = {name: part.policy for name, part in thresholds.items() if part.guarantee == NO_GUARANTEE}
    if free:
        where = "" if len(thresholds) == 1 else f" of {', '.join(free)}"
        policies = ", ".join(sorted(set(free.values())))
        text = f"Policy {policies} set the threshold{where}; it promises no rate of false rejects on new parts."
        found.append(Fact("Guarantee: none", text))
    elif len(thresholds) > 1:
        text = "Each region's guarantee holds for that region alone; the regions of one part add up."
        found.append(Fact("Several regions", text))
    tiling = inspector.scorer.recipe.tiling
    if tiling.halo_kind == "approximate":
        text = f"At the edges of tiles the map is off by up to {tiling.seam_error:.2g} of its range: the halo of {tiling.halo} px is too narrow."
        found.append(Fact("Seams", text))
    errors = sum(item.inspection.verdict is Verdict.ERROR for item in evaluation.judged)
    if errors:
        text = f"{count(errors, 'image')} got no score. The gate rejects such parts; they count as rejected here."
        found.append(Fact("Errors", text))
    if not evaluation.of(Label.DEFECTIVE):
        found.append(Fact("No defective parts", "The data set has none, so nothing here says how many would escape."))
    if not evaluation.of(Label.GOOD):
        found.append(Fact("No good parts", "The data set has none, so nothing here says how many would be rejected."))
    return tuple(found)


def rates(evaluation: Evaluation) -> tuple[RateLine, ...]:
    """Escapes, false rejects, reviews, each with its interval."""
    good_errors = any(item.inspection.verdict is Verdict.ERROR for item in evaluation.of(Label.GOOD))
    escapes = RateName(
        title="Escape rate",
        of="defective part",
        what="accepted",
        meaning="Defective parts that pass the gate.",
        tone="bad",
    )
    false_rejects = RateName(
        title="False reject rate",
        of="good part",
        what="rejected or in error" if good_errors else "rejected",
        meaning="Good parts with verdict REJECT or ERROR; REVIEW is counted apart.",
        tone="warn",
    )
    reviews = RateName(
        title="Review rate",
        of="part",
        what="sent to review",
        meaning="Good and defective parts with verdict REVIEW; the gate rejects them.",
        tone="warn",
    )
    return (
        rate_line(escapes, evaluation.escape_rate),
        rate_line(false_rejects, evaluation.false_reject_rate),
        rate_line(reviews, evaluation.review_rate),
    )


def verdicts(evaluation: Evaluation) -> tuple[Fact, ...]:
    """How many images got each verdict."""
    total = len(evaluation.judged)
    counts = {verdict: sum(item.inspection.verdict is verdict for item in evaluation.judged) for verdict in Verdict}
    return tuple(Fact(verdict.value, str(found), f"of {count(total, 'image')}") for verdict, found in counts.items())


def confusion(evaluation: Evaluation) -> tuple[ConfusionRow, ...]:
    """Labels by verdicts, in the order of `Verdict`."""
    return tuple(
        ConfusionRow(
            label=label,
            cells=tuple(Cell(found, *_tone(label, verdict, found)) for verdict, found in counts.items()),
            total=sum(counts.values()),
        )
        for label, counts in evaluation.confusion().items()
    )


def _tone(label: str, verdict: str, found: int) -> tuple[str, str]:
    accepted = verdict == Verdict.ACCEPT
    if not found or label == Label.UNKNOWN:
        return "", ""
    if label == Label.DEFECTIVE:
        return ("bad", "escapes") if accepted else ("good", "")
    return ("good", "") if accepted else ("warn", "" if verdict == Verdict.REVIEW else "false rejects")


def threshold_rows(evaluation: Evaluation, inspector: Inspector) -> tuple[ThresholdRow, ...]:
    """What decides, by region."""
    suggested = evaluation.policy_threshold or {}
    return tuple(
        ThresholdRow(
            region=name,
            reject=number(part.reject, 6),
            review=number(part.review, 6),
            pixel=number(part.pixel, 6),
            policy=part.policy,
            guarantee=part.guarantee,
            promises=part.guarantee != NO_GUARANTEE,
            basis=f"{count(part.n_good, 'good image')}, {count(part.n_defective, 'defective image')}",
            suggested=f"Policy {suggested[name].policy} would set {number(suggested[name].value, 6)}"
            if name in suggested
            else "",
        )
        for name, part in inspector.artefact.thresholds.items()
    )


def figures(evaluation: Evaluation) -> tuple[Fact, ...]:
    """Figures that no threshold enters, and what they were measured on; a dash and the reason for missing ones."""
    image, pixels = evaluation.image_curve, evaluation.pixels
    good, bad = len(evaluation.of(Label.GOOD)), len(evaluation.of(Label.DEFECTIVE))
    no_image = "no defective images" if bad == 0 else "no good images" if good == 0 else ""
    no_pixels = _lacks_pixels(evaluation, bad) if pixels is None else ""
    aupro = f"mean overlap with each defect, false positive rate up to {AUPRO_LIMIT:g}"
    return (
        _figure(
            "Image AUROC", image.auroc() if image else no_image, "chance that a defective part outscores a good one"
        ),
        _figure("Image AP", image.average_precision() if image else no_image, "area under the precision-recall curve"),
        _figure("Image F1", image.best_f1() if image else no_image, "best over all thresholds"),
        _figure("Pixel AUROC", pixels.auroc if pixels else no_pixels, "over all inspected pixels"),
        _figure("Pixel AP", pixels.average_precision if pixels else no_pixels, "over all inspected pixels"),
        _figure("Pixel F1", pixels.f1 if pixels else no_pixels, "best over all thresholds"),
        _figure("AUPRO", pixels.aupro if pixels else no_pixels, aupro),
        Fact("Unmasked images", str(evaluation.n_unmasked), _unmasked(evaluation, bad)),
        Fact("Left-out images", str(evaluation.n_left_out), "had a part in making the bundle, so they were not judged"),
    )


def _figure(name: str, found: float | str, note: str) -> Fact:
    """A figure, or a dash and the reason why there is none."""
    return Fact(name, NOTHING, found) if isinstance(found, str) else Fact(name, f"{found:.4f}", note)


def _lacks_pixels(evaluation: Evaluation, defective: int) -> str:
    if defective == 0:
        return "no defective images"
    if evaluation.n_unmasked == defective:
        return "no masks"
    return "no inspected pixels of both kinds, good and defective"


def _unmasked(evaluation: Evaluation, defective: int) -> str:
    if evaluation.n_unmasked == 0 or evaluation.pixels is None:
        return "defective images without a mask"
    if evaluation.n_unmasked == defective:
        return "defective images without a mask, counted as defective in every pixel (--full-masks)"
    return "defective images without a mask, in no pixel figure unless --full-masks was given"


def parity(inspector: Inspector) -> tuple[Fact, ...]:
    """How close the artefact came to torch when it was exported."""
    found = inspector.artefact.parity
    kinds = ", ".join(f"{amount} {kind}" for kind, amount in found.kinds.items())
    maps = _of_range(found.map_max_abs, found.map_range, found.tolerance)
    scores = _of_range(found.score_max_abs, found.score_range, found.tolerance)
    return (
        Fact("Frames compared", str(found.frames), kinds),
        Fact("Largest map difference", number(found.map_max_abs), maps),
        Fact("Largest score difference", number(found.score_max_abs), scores),
        Fact("Decision flips", str(found.decision_flips), f"at most {found.flip_limit} allowed"),
        Fact("Worst frame", found.worst, "the one with the largest difference"),
        Fact("Near the threshold", str(len(found.near_threshold)), "too close to it to count as flips"),
    )


def _of_range(difference: float, whole: float, tolerance: float) -> str:
    if whole <= 0:
        return f"the range is {number(whole)}, allowed {number(tolerance)} of it"
    return f"{number(difference / whole, 2)} of the range {number(whole)}; allowed {number(tolerance, 2)}"
