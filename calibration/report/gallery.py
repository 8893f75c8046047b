"""Owns which images the report shows, in what order, and what it shows of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.evaluation import Evaluation, Judged
from calibration.progress import progress
from calibration.report.pictures import thumbnail
from calibration.report.wording import number, readable
from calibration.samples import Label, Sample, file_digest
from edge_runtime.decision import Verdict
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import read_image
from edge_runtime.imaging.overlay import displayable
from edge_runtime.inspector import Inspector

_WRONG_SHOWN = 24
_RIGHT_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """One of the four ways in which an image can be judged."""

    key: str
    title: str
    meaning: str
    label: Label
    accepted: bool
    highest_first: bool

    @property
    def wrong(self) -> bool:
        return self.accepted is (self.label is Label.DEFECTIVE)

    def holds(self, item: Judged) -> bool:
        return item.sample.label is self.label and (item.inspection.verdict is Verdict.ACCEPT) is self.accepted


_KINDS = (
    _Kind(
        key="escapes",
        title="Escapes",
        meaning="defective parts accepted, lowest score first",
        label=Label.DEFECTIVE,
        accepted=True,
        highest_first=False,
    ),
    _Kind(
        key="false-rejects",
        title="False rejects",
        meaning="good parts rejected, in review or in error, highest score first",
        label=Label.GOOD,
        accepted=False,
        highest_first=True,
    ),
    _Kind(
        key="true-rejects",
        title="True rejects",
        meaning="defective parts rejected, in review or in error, closest to the threshold first",
        label=Label.DEFECTIVE,
        accepted=False,
        highest_first=False,
    ),
    _Kind(
        key="true-accepts",
        title="True accepts",
        meaning="good parts accepted, closest to the threshold first",
        label=Label.GOOD,
        accepted=True,
        highest_first=True,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Data addresses of what can be shown of an image, and what could not be."""

    original: str | None
    overlay: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One image of a gallery."""

    name: str
    folder: str
    verdict: str
    region: str  # empty where there is one region
    score: str
    normalized: str
    pictures: Pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Images of one kind, the hardest ones."""

    key: str
    title: str
    meaning: str
    wrong: bool
    total: int
    cards: tuple[Card, ...]


def galleries(evaluation: Evaluation, inspector: Inspector, *, only_wrong: bool) -> tuple[Gallery, ...]:
    """Escapes and false rejects, then what was judged rightly; the images shown are inspected again."""
    kinds = [kind for kind in _KINDS if kind.wrong or not only_wrong]
    found = {kind.key: _members(evaluation, kind) for kind in kinds}
    shown = {kind.key: found[kind.key][: _WRONG_SHOWN if kind.wrong else _RIGHT_SHOWN] for kind in kinds}
    every = [item for items in shown.values() for item in items]
    cards = {item.sample.name: _card(item, inspector) for item in progress(every, "report")}
    return tuple(
        Gallery(
            key=kind.key,
            title=kind.title,
            meaning=kind.meaning,
            wrong=kind.wrong,
            total=len(found[kind.key]),
            cards=tuple(cards[item.sample.name] for item in shown[kind.key]),
        )
        for kind in kinds
    )


def _members(evaluation: Evaluation, kind: _Kind) -> Sequence[Judged]:
    """All images of a kind, the hardest first."""
    members = [item for item in evaluation.judged if kind.holds(item)]
    return sorted(members, key=lambda item: item.ranking, reverse=kind.highest_first)


def _card(item: Judged, inspector: Inspector) -> Card:
    found = item.inspection
    several = len(inspector.artefact.thresholds) > 1
    return Card(
        name=readable(item.sample.name),
        folder=readable(item.sample.folder),
        verdict=found.verdict.value if found.reason is None else f"{found.verdict} {found.reason}",
        region=found.region or "" if several else "",
        score=number(found.score),
        normalized=number(found.score_normalized),
        pictures=_pictures(item.sample, inspector),
    )


def _pictures(sample: Sample, inspector: Inspector) -> Pictures:
    """Inspect an image again; one that is gone or another by now is said to be so."""
    try:
        if file_digest(sample.path) != sample.digest:
            return Pictures(original=None, overlay=None, notes=("The file has changed since it was judged.",))
        frame = read_image(sample.path, inspector.file_format)
    except DataError as error:
        return Pictures(original=None, overlay=None, notes=(f"The file is gone: {readable(str(error))}",))
    notes: list[str] = []
    mask = None
    if sample.mask is not None:
        try:
            mask = sample.read_mask(frame.size)
        except DataError as error:
            notes.append(f"Its mask is gone: {readable(str(error))}")
    inspection = inspector.inspect(frame)
    overlay = inspector.overlay(frame, inspection)
    if overlay is None:
        notes.append(f"No heatmap: {readable(inspection.detail)}")
    return Pictures(
        original=thumbnail(displayable(frame), mask=mask),
        overlay=None if overlay is None else thumbnail(overlay, listed=inspection.regions),
        notes=tuple(notes),
    )
