"""Owns who sees which image: fit, validation and calibration, disjoint by content, stratified by folder, seeded."""

from dataclasses import dataclass

from calibration.samples import DataSet, Label, Sample, Split, share
from edge_runtime.errors import DataError

MIN_FIT = 2
MIN_CALIBRATION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """The good images of the train tree, each in one share; and what of the test tree calibration may use."""

    fit: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    calibration: tuple[Sample, ...]


def split(dataset: DataSet, *, holdout: float, validation: float, calibration_split: float, seed: int) -> Splits:
    """Divide a data set.

    Args:
        dataset: whose train tree's good images are divided.
        holdout: share of them for calibration; 0 leaves calibration empty.
        validation: share of them for constants inside the graph; 0 for methods that have none.
        calibration_split: share of the test tree, good and defective, that calibration uses as well.
        seed: of the draw.

    Raises:
        DataError: there are too few good images.
    """
    good = dataset.select(label=Label.GOOD, split=Split.TRAIN)
    needed = MIN_FIT + (MIN_CALIBRATION if holdout else 0) + (1 if validation else 0)
    if len(good) < needed:
        message = (
            f"{dataset.root}: {len(good)} good image(s) to train on, needs {needed} at least "
            f"({dataset.layout}: train/good, or a folder of good images); 30 or more make a useful model"
        )
        raise DataError(message)
    held = share(good, holdout, seed, at_least=MIN_CALIBRATION if holdout else 0)
    rest = _without(good, held)
    checked = share(rest, validation, seed + 1, at_least=1 if validation else 0)
    fit = _without(rest, checked)
    if len(fit) < MIN_FIT:
        message = (
            f"{dataset.root}: of {len(good)} good images {len(held)} are held out and {len(checked)} kept for validation: "
            f"{len(fit)} left to fit to, needs {MIN_FIT}: lower --holdout or --validation"
        )
        raise DataError(message)
    tested = [sample for sample in dataset.select(split=Split.TEST) if sample.label is not Label.UNKNOWN]
    borrowed = share(tested, calibration_split, seed + 2)
    return Splits(fit=tuple(fit), validation=tuple(checked), calibration=(*held, *borrowed))


def _without(samples: "tuple[Sample, ...] | list[Sample]", taken: list[Sample]) -> list[Sample]:
    names = {sample.name for sample in taken}
    return [sample for sample in samples if sample.name not in names]
