"""Owns the frames that parity is measured on: which, how changed, and how to make the very same ones again."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from calibration.perturb import Variant, perturb
from calibration.samples import Sample
from edge_runtime.bundle.recipe import Recipe
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Frame, read_image
from edge_runtime.imaging.geometry import Region


@dataclass(frozen=True, slots=True)
class ReferenceFrame:
    """One frame of the parity set."""

    sample: Sample
    variant: Variant
    frame: Frame
    pixels_digest: str  # SHA-256 of the pixels, so that another decoder is noticed

    @property
    def label(self) -> str:
        """What evidence and errors call it."""
        return f"{self.sample.name} ({self.variant})"


def reference_frames(
    recipe: Recipe, regions: Sequence[Region], wanted: Iterable[tuple[Sample, Variant]]
) -> Iterator[ReferenceFrame]:
    """Read, check and change the frames of a parity set.

    Raises:
        DataError: an image cannot be read, or is not of the recipe's size and format.
    """
    geometry = recipe.geometry
    white = 2**geometry.bit_depth - 1
    for sample, variant in wanted:
        frame = read_image(sample.path, geometry.file_format)
        if frame.size != geometry.frame.size:
            message = (
                f"{sample.path}: is {frame.size}, the model inspects {geometry.frame.size}: give images of one size"
            )
            raise DataError(message)
        made = frame.converted(geometry.pixel_format)
        changed = perturb(made.pixels, variant, digest=sample.digest, regions=regions, white=white)
        digest = hashlib.sha256(changed.tobytes()).hexdigest()
        yield ReferenceFrame(sample, variant, Frame(changed, made.format), digest)
