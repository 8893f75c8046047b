"""Owns how a training went: its losses, thinned so that the longest one takes no more room than the bundle can spare."""

from dataclasses import dataclass, field, fields

from edge_runtime.bundle.training import TrainingRecord

POINTS = 1000  # at most, of a curve


@dataclass(slots=True)
class History:
    """What `train` writes down; begins anew with every training and is a part of the checkpoint.

    A point is the mean of `span` steps. When there are `POINTS` of them, each two become one and the span doubles.
    """

    asked: int = 0  # steps; 0 until something is trained
    made: int = 0
    kept: int = 0  # step whose state was kept
    ended_early: bool = False
    span: int = 1
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)  # steps after which the validation share was looked at
    look_losses: list[float] = field(default_factory=list)

    def take(self, other: "History") -> None:
        """Become another one."""
        for part in fields(self):
            setattr(self, part.name, getattr(other, part.name))

    def add(self, loss: float, rate: float) -> None:
        """Note a step that was made at a learning rate."""
        if self.made % self.span == 0 and len(self.losses) == POINTS:
            self.losses = [(first + second) / 2 for first, second in zip(*_pairs(self.losses), strict=True)]
            self.rates = _pairs(self.rates)[1]
            self.span *= 2
        done = self.made % self.span
        if done == 0:
            self.losses.append(0.0)
            self.rates.append(0.0)
        self.losses[-1] += (loss - self.losses[-1]) / (done + 1)
        self.rates[-1] = rate
        self.made += 1

    def look(self, step: int, loss: float, *, best: bool) -> None:
        """Note a look at the validation share, and whether the state of this step is the best so far."""
        self.looks.append(step)
        self.look_losses.append(loss)
        if best:
            self.kept = step

    def record(self) -> TrainingRecord | None:
        """As the bundle holds it; None where nothing was trained."""
        if not self.asked:
            return None
        every = -(-len(self.looks) // POINTS) or 1
        return TrainingRecord(
            steps_asked=self.asked,
            steps_made=self.made,
            ended_early=self.ended_early,
            kept_step=self.kept,
            step=tuple(min((index + 1) * self.span, self.made) for index in range(len(self.losses))),
            loss=tuple(self.losses),
            learning_rate=tuple(self.rates),
            validation_step=tuple(self.looks[::-every][::-1]),  # the last look stays
            validation_loss=tuple(self.look_losses[::-every][::-1]),
        )


def _pairs(values: list[float]) -> tuple[list[float], list[float]]:
    """The first and the second of each two."""
    return values[::2], values[1::2]
