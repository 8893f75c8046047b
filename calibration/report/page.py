"""Owns the page: its template, and the view that fills it."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from calibration.evaluation import Evaluation
from calibration.report import summary
from calibration.report.gallery import Gallery, galleries
from calibration.report.pictures import ColourBar, colour_bar
from calibration.report.plots import Plot, loss_curve, plots
from calibration.report.wording import RateLine, number, readable
from edge_runtime.bundle.training import TrainingRecord
from edge_runtime.decision import Verdict
from edge_runtime.inspector import Inspector


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRow:
    """One line of the table of all images."""

    name: str
    label: str
    folder: str
    verdict: str
    reason: str
    region: str
    score: str
    normalized: str


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything that the template shows, ready to print."""

    product: str
    headline: tuple[summary.Fact, ...]
    warnings: tuple[summary.Fact, ...]
    rates: tuple[RateLine, ...]
    verdicts: tuple[summary.Fact, ...]
    confusion: tuple[summary.ConfusionRow, ...]
    thresholds: tuple[summary.ThresholdRow, ...]
    figures: tuple[summary.Fact, ...]
    plots: tuple[Plot, ...]
    loss: Plot | None  # None where the model was fitted in one pass
    parity: tuple[summary.Fact, ...]
    near_threshold: tuple[str, ...]
    colours: ColourBar
    galleries: tuple[Gallery, ...]
    only_wrong: bool
    images: tuple[ImageRow, ...]


def page(
    evaluation: Evaluation, inspector: Inspector, *, only_wrong: bool, training: TrainingRecord | None = None
) -> str:
    """The HTML of a report; see `calibration.report.render`."""
    environment = Environment(
        loader=PackageLoader("calibration.report"),
        autoescape=True,  # whoever names an image file writes into this page
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled = view(evaluation, inspector, only_wrong=only_wrong, training=training)
    return environment.get_template("report.html.j2").render(
        view=filled, verdict_names=[str(verdict) for verdict in Verdict]
    )


def view(
    evaluation: Evaluation, inspector: Inspector, *, only_wrong: bool, training: TrainingRecord | None = None
) -> View:
    """Put the parts of the page together."""
    return View(
        product=inspector.scorer.recipe.product,
        headline=summary.headline(evaluation, inspector),
        warnings=summary.warnings(evaluation, inspector),
        rates=summary.rates(evaluation),
        verdicts=summary.verdicts(evaluation),
        confusion=summary.confusion(evaluation),
        thresholds=summary.threshold_rows(evaluation, inspector),
        figures=summary.figures(evaluation),
        plots=plots(evaluation, inspector),
        loss=None if training is None else loss_curve(training),
        parity=summary.parity(inspector),
        near_threshold=tuple(map(readable, inspector.artefact.parity.near_threshold)),
        colours=colour_bar(inspector.artefact),
        galleries=galleries(evaluation, inspector, only_wrong=only_wrong),
        only_wrong=only_wrong,
        images=_images(evaluation),
    )


def _images(evaluation: Evaluation) -> tuple[ImageRow, ...]:
    return tuple(
        ImageRow(
            name=readable(item.sample.name),
            label=item.sample.label.value,
            folder=readable(item.sample.folder),
            verdict=item.inspection.verdict.value,
            reason="" if item.inspection.reason is None else item.inspection.reason.value,
            region=item.inspection.region or "",
            score=number(item.inspection.score, 6),
            normalized=number(item.inspection.score_normalized),
        )
        for item in evaluation.judged
    )
