"""Owns what leaves the report package: the page as text, and the files of a report folder."""

import csv
import io
import os
from pathlib import Path

from calibration.evaluation import Evaluation, Judged
from edge_runtime.bundle.training import TrainingRecord
from edge_runtime.errors import ConfigError
from edge_runtime.inspector import Inspector

_COLUMNS = (
    "path",
    "label",
    "folder",
    "verdict",
    "reason",
    "region",
    "score",
    "threshold",
    "score_normalized",
    "listed_regions",
    "total_ms",
    "digest",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that starts so


def render(
    evaluation: Evaluation,
    inspector: Inspector,
    *,
    only_wrong: bool = False,
    training: TrainingRecord | None = None,
) -> str:
    """One HTML page that needs no network and no other file.

    Args:
        evaluation: what to report.
        inspector: the bundle that was evaluated; the images shown are inspected again for their heatmaps.
        only_wrong: show escapes and false rejects, but no images that were judged rightly.
        training: how the bundle's model was trained; None where it was fitted in one pass.

    Raises:
        ConfigError: the packages that draw the report are not installed.
    """
    try:
        from calibration.report.page import page  # noqa: PLC0415 - jinja2 and matplotlib are an extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"jinja2", "matplotlib"}:
            raise
        message = f"the report needs {error.name}, which is not installed: pip install 'takt-inspect[calibration]'"
        raise ConfigError(message) from error
    return page(evaluation, inspector, only_wrong=only_wrong, training=training)


def write_report(
    evaluation: Evaluation,
    inspector: Inspector,
    folder: Path,
    *,
    only_wrong: bool = False,
    training: TrainingRecord | None = None,
) -> Path:
    """Write `index.html` and `images.csv` (one row an image) into a folder, made where it is missing.

    Both are written beside their place and then renamed: a failure leaves the files of an earlier report as they were.

    Returns:
        The page.

    Raises:
        ConfigError: the folder cannot be written, or the packages that draw the report are not installed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    text = render(evaluation, inspector, only_wrong=only_wrong, training=training)
    index = folder / "index.html"
    _write({folder / "images.csv": table(evaluation), index: text}, folder)
    return index


def table(evaluation: Evaluation) -> str:
    """The images as CSV: one row each, in the order in which they were judged.

    Numbers have full precision; a bundle with several regions adds each one's raw score as `score_<region>`.
    """
    regions = list(evaluation.thresholds) if len(evaluation.thresholds) > 1 else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"score_{name}" for name in regions)])
    for item in evaluation.judged:
        writer.writerow([*_row(item), *(item.scores.get(name) for name in regions)])
    return text.getvalue()


def _row(item: Judged) -> list[str | float | None]:
    sample, found = item.sample, item.inspection
    return [
        _cell(sample.name),
        sample.label.value,
        _cell(sample.folder),
        found.verdict.value,
        None if found.reason is None else found.reason.value,
        found.region,
        found.score,
        found.threshold,
        found.score_normalized,
        len(found.regions),
        round(found.timings_ms.total, 3),
        sample.digest,
    ]


def _cell(path: str) -> str:
    """A relative path that no spreadsheet takes for a formula and that still leads to the file."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def _write(texts: dict[Path, str], folder: Path) -> None:
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    try:
        for path, text in texts.items():
            # a file name that is not UTF-8 reaches Python as lone surrogates
            temporary[path].write_bytes(text.encode("utf-8", "backslashreplace"))
        for path in texts:
            temporary[path].replace(path)
    except OSError as error:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    message = (
        f"{folder}: the report cannot be written there ({error.strerror or error}): "
        "give a folder that you may write, on a disk with space, or make way for index.html and images.csv"
    )
    return ConfigError(message)
