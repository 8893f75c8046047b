"""Owns the plots of the report: scores against the threshold, ROC curve, precision against recall, loss of the training."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from calibration.evaluation import Evaluation
from calibration.metrics import Curve
from calibration.report.pictures import data_address
from calibration.samples import Label
from edge_runtime.bundle.training import TrainingRecord
from edge_runtime.inspector import Inspector
from edge_runtime.normalise import MARK

_GOOD, _DEFECTIVE = "#0072b2", "#d55e00"  # told apart by every kind of colour vision: Okabe and Ito (2008)
_INK, _FAINT = "#1c2733", "#c9d1d9"
_BINS = (12, 48)
_REACH = 2.0  # a threshold further than so many times the scores' range away would squash the bars

_LOOK: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#6b7785",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": "#44505c",
    "ytick.color": "#44505c",
    "svg.hashsalt": "takt",  # the same evaluation gives the same bytes
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A picture with what it shows, for those who cannot see it."""

    picture: str  # data address
    text: str


def plots(evaluation: Evaluation, inspector: Inspector) -> tuple[Plot, ...]:
    """What can be drawn of an evaluation: histogram first; curves only with good and defective images."""
    found = []
    if evaluation.of(Label.GOOD) or evaluation.of(Label.DEFECTIVE):
        found.append(_histogram(evaluation, inspector))
    if evaluation.image_curve is not None:
        mark = _mark(evaluation)
        found += [_roc(evaluation.image_curve, mark), _precision_recall(evaluation.image_curve, mark)]
    return tuple(found)


@contextmanager
def _drawing(width: float, height: float, into: io.BytesIO) -> Iterator[Axes]:
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot()
        figure.savefig(into, format="svg", metadata={"Date": None})


def _plot(svg: io.BytesIO, text: str) -> Plot:
    return Plot(picture=data_address("image/svg+xml", svg.getvalue()), text=text)


def _mark(evaluation: Evaluation) -> float:
    """The reject threshold on the scale that the curves order by."""
    return next(iter(evaluation.thresholds.values())) if len(evaluation.thresholds) == 1 else MARK


def _histogram(evaluation: Evaluation, inspector: Inspector) -> Plot:
    several = len(evaluation.thresholds) > 1
    finite = {label: _finite_rankings(evaluation, label) for label in (Label.GOOD, Label.DEFECTIVE)}
    lost = sum(len(evaluation.of(label)) - scores.size for label, scores in finite.items())
    every = np.concatenate(list(finite.values()))
    lines = {"reject threshold": _mark(evaluation)}
    if not several:
        review = next(iter(inspector.artefact.thresholds.values())).review
        lines |= {} if review is None else {"review threshold": review}
    svg = io.BytesIO()
    with _drawing(11.6, 3.5, svg) as axes:
        if every.size:
            _bars(axes, finite, _edges(every, _mark(evaluation)))
        for (name, value), style in zip(lines.items(), ("-", "--"), strict=False):
            _threshold_line(axes, name, value, style, every)
        axes.set_title("Image scores" + (f" ({lost} in error not drawn)" if lost else ""))
        axes.set_xlabel("normalised image score (every region's threshold is 100)" if several else "raw image score")
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    shown = ", ".join(f"{scores.size} {label}" for label, scores in finite.items())
    return _plot(svg, f"Histogram of image scores: {shown}; reject threshold at {_mark(evaluation):.4g}")


def _finite_rankings(evaluation: Evaluation, label: Label) -> NDArray[np.float64]:
    rankings = np.array([item.ranking for item in evaluation.of(label)], dtype=np.float64)
    return rankings[np.isfinite(rankings)]


def _edges(scores: NDArray[np.float64], mark: float) -> list[float]:
    """Edges of the bins; a threshold among the scores is one of them, so that no bar stands on both sides of it."""
    edges = np.histogram_bin_edges(scores, bins=int(np.clip(2 * np.sqrt(scores.size), *_BINS)))
    if edges[0] < mark < edges[-1]:
        width = edges[1] - edges[0]
        below = np.ceil((mark - edges[0]) / width)
        edges = mark + width * (np.arange(edges.size + 1) - below)
    return [float(edge) for edge in edges]


def _bars(axes: Axes, finite: dict[Label, NDArray[np.float64]], edges: list[float]) -> None:
    looks: dict[Label, dict[str, Any]] = {
        Label.GOOD: {"facecolor": _GOOD, "alpha": 0.75},
        Label.DEFECTIVE: {"facecolor": _DEFECTIVE, "alpha": 0.65, "hatch": "////", "edgecolor": "#7a3300"},
    }
    for label, scores in finite.items():
        if scores.size:
            axes.hist(scores, bins=edges, label=f"{label} ({scores.size})", **looks[label])


def _threshold_line(axes: Axes, name: str, value: float, style: str, every: NDArray[np.float64]) -> None:
    label = f"{name} {value:.4g}"
    if every.size:
        reach = _REACH * (float(np.ptp(every)) or 1.0)
        if not every.min() - reach <= value <= every.max() + reach:
            axes.plot([], [], color=_INK, linestyle=style, label=f"{label}\n(beyond the axis)")
            return
    axes.axvline(value, color=_INK, linestyle=style, linewidth=1.6, label=label)


def _at(counted: Curve, mark: float) -> int | None:
    """Index of the lowest score that the threshold rejects; None where it rejects nothing."""
    rejected = int(np.count_nonzero(counted.thresholds >= mark))
    return rejected - 1 if rejected else None


def _roc(counted: Curve, mark: float) -> Plot:
    at = _at(counted, mark)
    here = (0.0, 0.0) if at is None else (float(counted.false_positive_rate[at]), float(counted.recall[at]))
    svg = io.BytesIO()
    with _drawing(5.6, 4.6, svg) as axes:
        axes.plot([0, 1], [0, 1], color=_FAINT, linestyle=":", label="chance")
        axes.plot(
            np.concatenate([[0.0], counted.false_positive_rate]),
            np.concatenate([[0.0], counted.recall]),
            color=_GOOD,
            linewidth=2,
            clip_on=False,
        )
        _operating_point(axes, here)
        axes.set_title(f"ROC curve, AUROC {counted.auroc():.4f}")
        axes.set_xlabel("good parts rejected (false positive rate)")
        axes.set_ylabel("defective parts rejected (recall)")
    rejected = f"at the threshold {here[1]:.3f} of defective and {here[0]:.3f} of good parts are rejected"
    return _plot(svg, f"ROC curve, AUROC {counted.auroc():.4f}; {rejected}")


def _precision_recall(counted: Curve, mark: float) -> Plot:
    at = _at(counted, mark)
    prevalence = float(counted.precision[-1])
    svg = io.BytesIO()
    with _drawing(5.6, 4.6, svg) as axes:
        axes.axhline(prevalence, color=_FAINT, linestyle=":", label="reject every part")
        axes.plot(
            np.concatenate([[0.0], counted.recall]),
            np.concatenate([counted.precision[:1], counted.precision]),
            color=_GOOD,
            linewidth=2,
            drawstyle="steps-pre",  # the steps that average precision sums
            clip_on=False,
        )
        if at is not None:
            _operating_point(axes, (float(counted.recall[at]), float(counted.precision[at])))
        axes.set_title(f"Precision-recall curve, AP {counted.average_precision():.4f}")
        axes.set_xlabel("defective parts rejected (recall)")
        axes.set_ylabel("rejected parts that are defective (precision)")
    return _plot(svg, f"Precision-recall curve, average precision {counted.average_precision():.4f}")


def _operating_point(axes: Axes, point: tuple[float, float]) -> None:
    look: dict[str, Any] = {"marker": "o", "markersize": 8, "color": _DEFECTIVE, "linestyle": "none", "zorder": 5}
    axes.plot(*point, label="this threshold", clip_on=False, **look)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right")


def loss_curve(record: TrainingRecord) -> Plot:
    """The loss by step, that of the validation share, and the step whose state was kept."""
    svg = io.BytesIO()
    with _drawing(11.6, 3.5, svg) as axes:
        axes.plot(record.step, record.loss, color=_GOOD, linewidth=1.6, label="loss on the fit share")
        if record.validation_step:
            look: dict[str, Any] = {"marker": "o", "markersize": 4, "color": _DEFECTIVE, "linewidth": 1.2}
            axes.plot(record.validation_step, record.validation_loss, label="on the validation share", **look)
            axes.axvline(record.kept_step, color=_INK, linestyle="--", label=f"state kept: step {record.kept_step}")
        axes.set_title("Loss by step" + (" (ended early)" if record.ended_early else ""))
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _plot(svg, f"Loss by step: {record.in_words()}")
