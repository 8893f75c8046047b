"""Owns what a data set is: labelled image files, each with a split, a folder to stratify by and perhaps a mask."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import Size, read_mask


class Label(StrEnum):
    """What is known of a part."""

    GOOD = "good"
    DEFECTIVE = "defective"
    UNKNOWN = "unknown"  # inspected, counted in nothing


class Split(StrEnum):
    """Which tree a data set's author put an image in."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image file and what is known of it."""

    path: Path
    name: str  # relative to the data set, with forward slashes
    label: Label
    split: Split
    folder: str  # stratum
    digest: str  # SHA-256 of the file
    mask: Path | None = None

    def read_mask(self, size: Size) -> NDArray[np.bool_]:
        """(H, W): true where the part is defective.

        Raises:
            DataError: there is no mask, it cannot be read, or it is not of the image's size.
        """
        if self.mask is None:
            message = f"{self.path}: has no mask"
            raise DataError(message)
        mask = read_mask(self.mask)
        if mask.shape != (size.height, size.width):
            found = Size(mask.shape[1], mask.shape[0])
            message = (
                f"{self.mask}: mask is {found}, its image {self.path.name} is {size}: draw the mask on the image itself"
            )
            raise DataError(message)
        return mask


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """All samples of one data set, in a fixed order."""

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    duplicates: int  # files left out because another file of the same label has the same content

    def select(self, *, label: Label | None = None, split: Split | None = None) -> tuple[Sample, ...]:
        """Samples of a label and a split, where given."""
        return tuple(s for s in self.samples if label in {None, s.label} and split in {None, s.split})

    @property
    def has_test_tree(self) -> bool:
        """Whether the author set images apart for testing."""
        return any(sample.split is Split.TEST for sample in self.samples)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every image's and mask's place and content: names the data set."""
        whole = hashlib.sha256()
        for sample in self.samples:
            mask = "" if sample.mask is None else file_digest(sample.mask)
            whole.update(f"{sample.name}\0{sample.label}\0{sample.split}\0{sample.digest}\0{mask}\n".encode())
        return whole.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error})"
        raise DataError(message) from error


def without_duplicates(samples: Sequence[Sample], root: Path) -> tuple[tuple[Sample, ...], int]:
    """Keep one file of each content.

    Returns:
        The samples kept, and how many files were left out.

    Raises:
        DataError: the same image stands in the train and in the test tree, or under two labels.
    """
    kept: dict[str, Sample] = {}
    for sample in samples:
        first = kept.setdefault(sample.digest, sample)
        if first.split is not sample.split:
            message = (
                f"{root}: {first.name} and {sample.name} are the same image, and one of them is for testing: "
                "figures would be measured on an image that the model was fitted to; remove one"
            )
            raise DataError(message)
        if first.label is not sample.label:
            message = f"{root}: {first.name} is {first.label} and {sample.name} is {sample.label}, but they are the same image: remove one"
            raise DataError(message)
    return tuple(kept.values()), len(samples) - len(kept)


def sample_limit(samples: Sequence[Sample], limit: int, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples of each split, seeded, every folder in proportion and none left empty where it can be."""
    chosen: set[str] = set()
    for split in Split:
        part = [sample for sample in samples if sample.split is split]
        chosen |= (
            {sample.name for sample in part} if len(part) <= limit else _proportional(part, limit, seed, every=True)
        )
    return tuple(sample for sample in samples if sample.name in chosen)


def _proportional(samples: Sequence[Sample], count: int, seed: int, *, every: bool = False) -> set[str]:
    """Names of `count` samples: shuffled in their folders, then every folder's share spread evenly over the order.

    With `every`, one of each folder comes first where there are no more folders than `count`.
    """
    ranked: list[tuple[bool, float, str, str]] = []
    folders = by_folder(samples)
    one_each = every and len(folders) <= count
    for folder, members in folders.items():
        order = shuffled(members, seed)
        ranked.extend(
            (one_each and rank > 0, (rank + 0.5) / len(order), folder, member.name) for rank, member in enumerate(order)
        )
    return {name for *_, name in sorted(ranked)[:count]}


def by_folder(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples by folder, folders in order of their names."""
    folders: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        folders[sample.folder].append(sample)
    return dict(sorted(folders.items()))


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Samples in an order that depends on their content and the seed alone, not on names or on the machine."""
    order = sorted(samples, key=lambda sample: sample.digest)
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    return order


def share(samples: Sequence[Sample], part: float, seed: int, *, at_least: int = 0) -> list[Sample]:
    """Take a share of the samples, the same share of every folder.

    Rounding is done on the whole, not by folder, so that many small folders do not add up to too much.

    Args:
        samples: what to draw from.
        part: share to take, 0 to 1.
        seed: of the draw.
        at_least: take this many where there are so many.
    """
    count = min(max(round(part * len(samples)), at_least), len(samples))
    names = _proportional(samples, count, seed)
    return [sample for sample in samples if sample.name in names]
