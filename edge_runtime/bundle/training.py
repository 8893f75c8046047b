"""Owns the member `training.json`: how the loss went while the model was trained. No verdict depends on it."""

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import dump
from edge_runtime.bundle.recipe import Count, Strict
from edge_runtime.errors import ManifestError

TRAINING = "training.json"

_Step = Annotated[int, Field(ge=1)]


class TrainingRecord(Strict):
    """Losses of a training by gradients; columns of one name belong together."""

    steps_asked: _Step
    steps_made: Count
    ended_early: bool  # the validation loss did not fall any more
    kept_step: Count  # whose state is in the graph
    step: tuple[_Step, ...]  # the last one of each span
    loss: tuple[float, ...]  # mean over the span
    learning_rate: tuple[float, ...]  # of the span's last step
    validation_step: tuple[_Step, ...]
    validation_loss: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.step) == len(self.loss) == len(self.learning_rate):
            message = "step, loss and learning_rate are not of one length"
            raise ValueError(message)
        if len(self.validation_step) != len(self.validation_loss):
            message = "validation_step and validation_loss are not of one length"
            raise ValueError(message)
        return self

    def in_words(self) -> str:
        """One line for people."""
        end = "ended early" if self.ended_early else "to the end"
        last = f"; last loss {self.loss[-1]:.4g}" if self.loss else ""
        return f"{self.steps_made} of {self.steps_asked} steps, {end}, state of step {self.kept_step} kept{last}"


def dump_training(record: TrainingRecord) -> bytes:
    """The member's bytes."""
    return dump(record)


def parse_training(data: bytes, source: str) -> TrainingRecord:
    """The record of a member's bytes.

    Raises:
        ManifestError: they are none.
    """
    try:
        return TrainingRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        message = f"{source}: {TRAINING}: {where}: {first['msg']}: rebuild the bundle"
        raise ManifestError(message) from error


def read_training(archive: Archive) -> TrainingRecord | None:
    """The record of a bundle; None where its model was fitted in one pass.

    Raises:
        ManifestError: the member is no such record.
    """
    return parse_training(archive.read(TRAINING), str(archive.path)) if TRAINING in archive.names else None
