"""Splits: disjoint by content, stratified, seeded, and refused where too little is left."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from calibration.samples import DataSet, Label, Sample, Split
from edge_runtime.errors import DataError
from trainer.data.splits import Splits, split


def sample(name: str, label: Label = Label.GOOD, tree: Split = Split.TRAIN) -> Sample:
    """A sample that is not on disk: splitting reads no pixels."""
    folder = name.rsplit("/", 1)[0]
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Sample(path=Path(name), name=name, label=label, split=tree, folder=folder, digest=digest)


def dataset(*samples: Sample) -> DataSet:
    return DataSet(root=Path("parts"), layout="MVTec tree", samples=samples, duplicates=0)


def good(**folders: int) -> list[Sample]:
    """Good images to train on, so many in each folder."""
    return [sample(f"{folder}/{index:03}") for folder, count in folders.items() for index in range(count)]


def divide(
    data: DataSet, *, holdout: float = 0.2, validation: float = 0.0, calibration_split: float = 0.0, seed: int = 0
) -> Splits:
    return split(data, holdout=holdout, validation=validation, calibration_split=calibration_split, seed=seed)


def others() -> list[Sample]:
    """A test tree of good, defective and unknown images."""
    return [
        *(sample(f"test/good/{index}", tree=Split.TEST) for index in range(20)),
        *(sample(f"test/dent/{index}", Label.DEFECTIVE, Split.TEST) for index in range(10)),
        *(sample(f"test/unknown/{index}", Label.UNKNOWN, Split.TEST) for index in range(10)),
    ]


def test_the_shares_are_disjoint_and_hold_every_good_image_once() -> None:
    images = good(a=30, b=20)
    found = divide(dataset(*images, *others()), holdout=0.3, validation=0.2)
    digests = [s.digest for share in (found.fit, found.validation, found.calibration) for s in share]
    assert len(set(digests)) == len(digests)
    assert set(digests) == {s.digest for s in images}
    assert (len(found.calibration), len(found.validation), len(found.fit)) == (15, 7, 28)


def test_every_share_holds_its_part_of_every_folder() -> None:
    found = divide(dataset(*good(a=50, b=30, c=20)), holdout=0.2, validation=0.1)
    assert Counter(s.folder for s in found.calibration) == {"a": 10, "b": 6, "c": 4}
    assert Counter(s.folder for s in found.validation) == {
        "a": 4,
        "b": pytest.approx(2, abs=1),
        "c": pytest.approx(2, abs=1),
    }


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    data = dataset(*good(a=40))
    assert divide(data, seed=3) == divide(data, seed=3)
    assert {s.name for s in divide(data, seed=3).calibration} != {s.name for s in divide(data, seed=4).calibration}


def test_the_calibration_split_takes_its_share_of_good_and_defective_test_images_and_no_unknown_ones() -> None:
    found = divide(dataset(*good(a=20), *others()), calibration_split=0.5)
    borrowed = [s for s in found.calibration if s.split is Split.TEST]
    assert Counter(s.label for s in borrowed) == {Label.GOOD: 10, Label.DEFECTIVE: 5}
    assert all(s.split is Split.TRAIN for s in (*found.fit, *found.validation))


def test_without_a_calibration_split_the_test_tree_is_left_alone() -> None:
    found = divide(dataset(*good(a=20), *others()))
    assert all(s.split is Split.TRAIN for s in found.calibration)


def test_defective_images_in_the_train_tree_are_not_fitted_to() -> None:
    found = divide(dataset(*good(a=20), sample("train/dent/0", Label.DEFECTIVE)))
    assert {s.label for s in (*found.fit, *found.calibration)} == {Label.GOOD}


def test_a_holdout_of_nothing_fits_to_every_image() -> None:
    found = divide(dataset(*good(a=5)), holdout=0.0)
    assert (len(found.fit), found.calibration, found.validation) == (5, (), ())


def test_a_small_holdout_still_holds_two_images_back() -> None:
    assert len(divide(dataset(*good(a=6)), holdout=0.01).calibration) == 2


@pytest.mark.parametrize(
    ("count", "holdout", "validation", "needed"),
    [(0, 0.2, 0.0, 4), (1, 0.2, 0.0, 4), (1, 0.0, 0.0, 2), (4, 0.2, 0.1, 5)],
)
def test_too_few_good_images_are_refused_with_both_numbers(
    count: int, holdout: float, validation: float, needed: int
) -> None:
    with pytest.raises(DataError, match=rf"parts: {count} good image\(s\) to train on, needs {needed}") as caught:
        divide(dataset(*good(a=count), *others()), holdout=holdout, validation=validation)
    assert caught.value.exit_code == 5


def test_too_few_left_after_the_holdout_is_refused_with_the_flags_to_lower() -> None:
    with pytest.raises(DataError, match=r"of 10 good images 9 are held out .* 1 left .* lower --holdout"):
        divide(dataset(*good(a=10)), holdout=0.9)
