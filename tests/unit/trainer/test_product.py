"""The demo product: same seed, same part; a defect is the only difference."""

from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer.demo.product import (
    MIN_SIDE,
    Contrast,
    Defect,
    DefectKind,
    render,
    write_dataset,
)

DEFECTS = [Defect(kind=k, contrast=c) for k, c in product(DefectKind, Contrast)]
SIZES = [(320, 320), (200, 120), (90, 240), (MIN_SIDE, MIN_SIDE)]

each_kind = pytest.mark.parametrize("kind", DefectKind)
each_defect = pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: f"{d.kind}_{d.contrast}")


@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_the_same_seed_gives_the_same_bytes(defect: Defect | None) -> None:
    first = render(11, width=160, height=160, defect=defect)
    again = render(11, width=160, height=160, defect=defect)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()


def test_another_seed_gives_another_part() -> None:
    parts = {render(seed, width=96, height=96).image.tobytes() for seed in range(12)}
    assert len(parts) == 12


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_good_part_is_rgb_bytes_with_an_empty_mask(width: int, height: int) -> None:
    part = render(3, width=width, height=height)
    assert part.image.shape == (height, width, 3)
    assert part.image.dtype == np.uint8
    assert part.mask.shape == (height, width)
    assert part.mask.dtype == np.uint8
    assert not part.mask.any()


@each_defect
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_defect_changes_the_good_part_inside_its_mask_only(defect: Defect, width: int, height: int) -> None:
    for seed in range(6):
        good = render(seed, width=width, height=height)
        spoilt = render(seed, width=width, height=height, defect=defect)
        inside = spoilt.mask > 0
        assert set(np.unique(spoilt.mask)) == {0, 255}
        assert np.array_equal(good.image[~inside], spoilt.image[~inside])
        assert (good.image[inside] != spoilt.image[inside]).any()


@each_kind
def test_a_mask_is_no_larger_than_what_a_defect_alters(kind: DefectKind) -> None:
    """At high contrast most of the mask differs: it is no generous outline."""
    defect = Defect(kind=kind, contrast=Contrast.HIGH)
    for seed in range(6):
        spoilt = render(seed, defect=defect)
        change = np.abs(spoilt.image.astype(int) - render(seed).image).max(axis=2)
        assert np.mean(change[spoilt.mask > 0] > 0) > 0.6


@each_kind
def test_contrast_orders_the_difference_inside_the_mask(kind: DefectKind) -> None:
    for seed in range(8):
        good = render(seed).image.astype(int)
        means = []
        for contrast in (Contrast.LOW, Contrast.MIDDLE, Contrast.HIGH):
            part = render(seed, defect=Defect(kind=kind, contrast=contrast))
            means.append(np.abs(part.image - good)[part.mask > 0].mean())
        low, middle, high = means
        assert low < middle < high


@each_kind
def test_low_contrast_lies_within_what_good_parts_differ_by(kind: DefectKind) -> None:
    """Where it lies, the defect moves a part less than the next good part differs."""
    defect = Defect(kind=kind, contrast=Contrast.LOW)
    moved, usual = [], []
    for seed in range(12):
        good, spoilt = render(seed).image.astype(int), render(seed, defect=defect)
        inside = spoilt.mask > 0
        moved.append(np.abs(spoilt.image - good)[inside].mean())
        usual.append(np.abs(render(seed + 1).image - good)[inside].mean())
    assert np.median(moved) < np.median(usual)


@each_kind
def test_the_seed_alone_decides_where_a_defect_lies(kind: DefectKind) -> None:
    masks = [render(5, defect=Defect(kind=kind, contrast=contrast)).mask for contrast in Contrast]
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[1], masks[2])
    other = Defect(kind=kind, contrast=Contrast.HIGH)
    assert not np.array_equal(masks[0], render(6, defect=other).mask)


@each_kind
def test_a_defect_lies_on_the_part(kind: DefectKind) -> None:
    """No mask reaches a corner, which only the fixture can."""
    y, x = np.mgrid[:240, :320]
    beside = np.hypot(x - 159.5, y - 119.5) > 0.45 * 240
    for seed in range(20):
        defect = Defect(kind=kind, contrast=Contrast.HIGH)
        assert not render(seed, width=320, height=240, defect=defect).mask[beside].any()


@pytest.mark.parametrize(
    ("seed", "width", "height"),
    [(-1, 320, 320), (0, MIN_SIDE - 1, 320), (0, 320, MIN_SIDE - 1)],
)
def test_what_cannot_be_rendered_is_refused_by_name(seed: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"seed {seed} at {width}x{height} px"):
        render(seed, width=width, height=height)


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder by its path in it."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def write_small(folder: Path, seed: int = 0, train: int = 3) -> dict[str, bytes]:
    """Write a dataset of small images and read its files back."""
    write_dataset(folder, seed=seed, train=train, test_good=2, per_defect=2, width=96, height=80)
    return files(folder)


def test_a_dataset_has_the_mvtec_tree(tmp_path: Path) -> None:
    names = [f"{d.kind}_{d.contrast}" for d in DEFECTS]
    expected = {f"train/good/{i:03d}.png" for i in range(3)}
    expected |= {f"test/good/{i:03d}.png" for i in range(2)}
    expected |= {f"test/{n}/{i:03d}.png" for n in names for i in range(2)}
    expected |= {f"ground_truth/{n}/{i:03d}_mask.png" for n in names for i in range(2)}
    assert len(names) == 12
    assert set(write_small(tmp_path)) == expected


def test_no_two_images_of_a_dataset_are_identical(tmp_path: Path) -> None:
    written = write_small(tmp_path)
    images = [data for name, data in written.items() if not name.startswith("ground")]
    assert len(set(images)) == len(images)


def test_a_dataset_is_decided_by_its_seed(tmp_path: Path) -> None:
    first = write_small(tmp_path / "a")
    assert first == write_small(tmp_path / "b")
    other = write_small(tmp_path / "c", seed=1)
    assert first["train/good/000.png"] != other["train/good/000.png"]


def test_more_parts_to_train_on_leave_the_other_parts_as_they_were(
    tmp_path: Path,
) -> None:
    few, more = write_small(tmp_path / "a"), write_small(tmp_path / "b", train=4)
    assert set(more) - set(few) == {"train/good/003.png"}
    assert all(more[name] == data for name, data in few.items())


def test_written_masks_fit_their_images(tmp_path: Path) -> None:
    written = write_small(tmp_path)
    for name in (n for n in written if n.startswith("ground")):
        mask = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == (80, 96)
        assert set(np.unique(mask)) == {0, 255}


def test_files_hold_the_colours_that_were_rendered(tmp_path: Path) -> None:
    """Aluminium is a little bluer than white; swapped channels would make it redder."""
    rendered = render(0).image.mean(axis=(0, 1))
    assert rendered[0] < rendered[1] < rendered[2]
    write_dataset(tmp_path, train=1, test_good=0, per_defect=0)
    image = cv2.imread(str(tmp_path / "train/good/000.png"))
    assert image is not None
    blue, green, red = image.mean(axis=(0, 1))
    assert red < green < blue


def test_a_dataset_that_cannot_be_written_fails_with_the_path(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError, match=str(blocked)):
        write_dataset(blocked, train=1, test_good=0, per_defect=0)
