"""Data sets of every layout: what is read, what is left alone, and what is refused."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.layouts import open_dataset
from calibration.samples import DataSet, Label, Split
from edge_runtime.errors import DataError

Paint = Callable[[Path, int], Path]
HEADER = "object,split,label,image,mask\n"


@pytest.fixture
def paint() -> Paint:
    """Writes an image of its own content for every number."""

    def write(path: Path, number: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4), number, np.uint8)
        _, data = cv2.imencode(path.suffix.lower(), pixels)
        path.write_bytes(data.tobytes())
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, paint: Paint) -> Path:
    """An MVTec tree with something of everything in it."""
    root = tmp_path / "part"
    for index in range(3):
        paint(root / f"train/good/{index}.png", index)
    paint(root / "train/good/3.PNG", 3)
    paint(root / "train/good/4.JpEg", 4)
    paint(root / "train/good/.5.png", 5)
    paint(root / "train/.ipynb_checkpoints/6.png", 6)
    (root / "train/good/notes.txt").write_text("not an image")
    (root / "train/good/dir.png").mkdir()
    paint(root / "test/good/0.png", 10)
    paint(root / "test/Unknown/0.png", 20)
    paint(root / "test/.thumbnails/0.png", 7)
    for index in range(3):
        paint(root / f"test/scratch/{index}.png", 30 + index)
    paint(root / "ground_truth/scratch/0_mask.png", 100)
    paint(root / "ground_truth/scratch/1.BMP", 101)
    paint(root / "ground_truth/good/0.png", 102)
    return root


def places(dataset: DataSet, label: Label | None = None) -> dict[str, str]:
    """Folder by name."""
    return {sample.name: sample.folder for sample in dataset.select(label=label)}


def test_the_mvtec_tree_gives_splits_labels_folders_and_masks(tree: Path) -> None:
    dataset = open_dataset(tree)
    assert dataset.layout == "MVTec tree"
    train = {f"train/good/{name}": "train/good" for name in ("0.png", "1.png", "2.png", "3.PNG", "4.JpEg")}
    assert places(dataset, Label.GOOD) == {**train, "test/good/0.png": "test/good"}
    assert places(dataset, Label.UNKNOWN) == {"test/Unknown/0.png": "test/Unknown"}
    assert places(dataset, Label.DEFECTIVE) == {f"test/scratch/{index}.png": "test/scratch" for index in range(3)}
    assert {s.name: s.mask for s in dataset.samples if s.mask} == {
        "test/scratch/0.png": tree / "ground_truth/scratch/0_mask.png",
        "test/scratch/1.png": tree / "ground_truth/scratch/1.BMP",
    }
    assert {s.split for s in dataset.samples if s.name.startswith("train")} == {Split.TRAIN}
    assert dataset.has_test_tree


def test_a_folder_of_good_images_alone_is_read_to_any_depth(tmp_path: Path, paint: Paint) -> None:
    for number, name in enumerate(["a.png", "shift/b.TIFF", "shift/night/c.jpg", "unknown/d.bmp"]):
        paint(tmp_path / "good images" / name, number)
    paint(tmp_path / "good images/.cache/deep/e.png", 9)
    dataset = open_dataset(tmp_path / "good images")
    assert places(dataset, Label.GOOD) == {
        "a.png": ".",
        "shift/b.TIFF": "shift",
        "shift/night/c.jpg": "shift/night",
    }
    assert list(places(dataset, Label.UNKNOWN)) == ["unknown/d.bmp"]
    assert not dataset.has_test_tree
    assert {sample.split for sample in dataset.samples} == {Split.TRAIN}


@pytest.fixture
def listed(tmp_path: Path, paint: Paint) -> Path:
    """Folders that a TOML file beside them names."""
    for number, name in enumerate(["ok/0.png", "ok/1.png", "ok2/0.png", "later/0.png", "bad/0.png", "odd/0.png"]):
        paint(tmp_path / name, number)
    paint(tmp_path / "bad_masks/0.png", 200)
    return tmp_path


def toml(folder: Path, text: str) -> Path:
    file = folder / "parts.TOML"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_toml_file_names_folders_and_their_masks(listed: Path) -> None:
    text = "good = ['ok', 'ok2']\ntest_good = ['later']\ndefective = ['bad']\nmasks = ['bad_masks']\nunknown = ['odd']"
    dataset = open_dataset(toml(listed, text))
    assert places(dataset, Label.GOOD) == {
        "ok/0.png": "ok",
        "ok/1.png": "ok",
        "ok2/0.png": "ok2",
        "later/0.png": "later",
    }
    (defective,) = dataset.select(label=Label.DEFECTIVE)
    assert defective.mask == listed / "bad_masks/0.png"
    assert {s.name: s.split for s in dataset.samples} == {
        "ok/0.png": Split.TRAIN,
        "ok/1.png": Split.TRAIN,
        "ok2/0.png": Split.TRAIN,
        "later/0.png": Split.TEST,
        "bad/0.png": Split.TEST,
        "odd/0.png": Split.TEST,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("good = ['ok']\ngod = ['ok2']", "god"),
        ("test_good = ['later']", "good: Field required"),
        ("good = []", "good"),
        ("good = 'ok'", "good"),
        ("good = ['ok', 'nowhere']", "folder 'nowhere' does not exist or holds no image"),
        ("good = ['ok']\ndefective = ['bad', 'odd']\nmasks = ['bad_masks']", "1 mask folders for 2 defective folders"),
        ("good = ['ok']\ndefective = ['bad']\nmasks = ['nowhere']", "mask folder 'nowhere' does not exist"),
        ("good = ['ok'", "is not a TOML file"),
    ],
)
def test_a_toml_file_with_a_fault_is_refused_and_the_fault_named(listed: Path, text: str, said: str) -> None:
    file = toml(listed, text)
    with pytest.raises(DataError) as caught:
        open_dataset(file)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def csv_list(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "parts.csv"
    file.write_text(text, encoding=encoding)
    return file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_list_gives_label_split_and_mask_with_or_without_a_byte_order_mark(listed: Path, encoding: str) -> None:
    text = (
        "path,label,split,mask\n ok/0.png , Good ,,\nok2/0.png,good,test,\nbad/0.png,defective,,bad_masks/0.png\n"
        "odd/0.png,unknown,,\n"
    )
    dataset = open_dataset(csv_list(listed, text, encoding))
    assert dataset.layout == "CSV list"
    assert [(s.name, s.label, s.split, s.mask) for s in dataset.samples] == [
        ("bad/0.png", Label.DEFECTIVE, Split.TEST, listed / "bad_masks/0.png"),
        ("odd/0.png", Label.UNKNOWN, Split.TEST, None),
        ("ok/0.png", Label.GOOD, Split.TRAIN, None),
        ("ok2/0.png", Label.GOOD, Split.TEST, None),
    ]


def test_a_csv_list_of_paths_and_labels_alone_will_do(listed: Path) -> None:
    dataset = open_dataset(csv_list(listed, "label,path\ngood,ok/0.png\ndefective,bad/0.png\n"))
    assert [(s.name, s.split) for s in dataset.samples] == [("bad/0.png", Split.TEST), ("ok/0.png", Split.TRAIN)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\nok/0.png\n", "columns are ['path']; needs path and label"),
        ("path,label,colour\nok/0.png,good,red\n", "colour"),
        ("path;label\nok/0.png;good\n", "needs path and label"),
        ("path,label\n", "needs path and label"),
        ("", "needs path and label"),
        ("path,label\nok/0.png,good\nok/1.png,normal\n", "line 3: 'normal' is not a valid Label; label is good"),
        ("path,label,split\nok/0.png,good,dev\n", "line 2: 'dev' is not a valid Split"),
        ("path,label\nok/0.png\n", "line 2"),
        ("label,path\ngood\n", "line 2"),
        ("path,label\nok/nothere.png,good\n", "nothere.png: cannot be read"),
        ("path,label\n,good\n", "cannot be read"),
    ],
)
def test_a_csv_list_with_a_fault_is_refused_and_the_fault_named(listed: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(csv_list(listed, text))
    assert said in str(caught.value)


def test_a_csv_list_of_another_encoding_is_refused(listed: Path) -> None:
    file = listed / "parts.csv"
    file.write_bytes("path,label\nTür.png,good\n".encode("utf-16"))
    with pytest.raises(DataError, match="is not a CSV list"):
        open_dataset(file)


@pytest.fixture
def visa(tmp_path: Path, paint: Paint) -> Path:
    """One class of VisA."""
    root = tmp_path / "VisA" / "candle"
    for index in range(4):
        paint(root / f"Data/Images/Normal/{index}.JPG", index)
    for index in range(2):
        paint(root / f"Data/Images/Anomaly/{index}.JPG", 100 + index)
    paint(root / "Data/Masks/Anomaly/0.png", 255)
    return root


def test_a_visa_folder_without_its_list_trains_on_all_normal_images(visa: Path) -> None:
    dataset = open_dataset(visa)
    assert dataset.layout == "VisA folder"
    assert Counter((s.label, s.split) for s in dataset.samples) == {
        (Label.GOOD, Split.TRAIN): 4,
        (Label.DEFECTIVE, Split.TEST): 2,
    }
    masks = {s.path.name: s.mask for s in dataset.select(label=Label.DEFECTIVE)}
    assert masks == {"0.JPG": visa / "Data/Masks/Anomaly/0.png", "1.JPG": None}


def test_the_published_split_of_visa_is_kept_where_its_list_lies_beside_it(visa: Path) -> None:
    rows = [
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,",
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,",
        "capsules,test,normal,capsules/Data/Images/Normal/0.JPG,",
    ]
    file = visa.parent / "split_csv/1cls.csv"
    file.parent.mkdir()
    file.write_text(HEADER + "\n".join(rows))
    splits = {s.path.name: s.split for s in open_dataset(visa).select(label=Label.GOOD)}
    assert splits == {"0.JPG": Split.TRAIN, "1.JPG": Split.TEST, "2.JPG": Split.TRAIN, "3.JPG": Split.TRAIN}


@pytest.mark.parametrize("text", ["object,part\ncandle,train\n", HEADER + "candle,dev,normal,candle/x.JPG,\n"])
def test_a_damaged_visa_list_is_refused_by_name(visa: Path, text: str) -> None:
    file = visa.parent / "split_csv/1cls.csv"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(DataError, match=r"1cls\.csv: is not VisA's list"):
        open_dataset(visa)


def test_nothing_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: does not exist: give a data set's folder"):
        open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(("made", "layout"), [("", "folder of good images"), ("train/good", "MVTec tree")])
def test_an_empty_folder_is_refused_with_the_layout_looked_for(tmp_path: Path, made: str, layout: str) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError, match=f"holds no image .looked for a {layout}; images end in .bmp"):
        open_dataset(tmp_path)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path, paint: Paint) -> None:
    with pytest.raises(DataError, match=r"is a file, but neither \.toml nor \.csv"):
        open_dataset(paint(tmp_path / "one.png", 1))


def test_the_same_image_in_train_and_test_is_refused_with_both_names(tree: Path) -> None:
    shutil.copy(tree / "train/good/1.png", tree / "test/scratch/copy.png")
    with pytest.raises(DataError) as caught:
        open_dataset(tree)
    assert "train/good/1.png" in str(caught.value)
    assert "test/scratch/copy.png" in str(caught.value)
    assert "same image" in str(caught.value)


def test_the_same_image_twice_in_train_is_kept_once_and_counted(tree: Path) -> None:
    before = open_dataset(tree)
    shutil.copy(tree / "train/good/1.png", tree / "train/good/again.png")
    shutil.copy(tree / "train/good/1.png", tree / "train/good/once more.png")
    dataset = open_dataset(tree)
    assert (before.duplicates, dataset.duplicates) == (0, 2)
    assert [s.name for s in dataset.samples] == [s.name for s in before.samples]


def test_the_same_image_good_and_defective_is_refused_with_both_names(tree: Path) -> None:
    shutil.copy(tree / "test/good/0.png", tree / "test/scratch/copy.png")
    with pytest.raises(DataError) as caught:
        open_dataset(tree)
    assert "test/good/0.png is good and test/scratch/copy.png is defective" in str(caught.value)


@pytest.fixture
def wide(tmp_path: Path, paint: Paint) -> Path:
    """Many images in folders of unlike size."""
    counts = {"train/good": 40, "test/good": 20, "test/scratch": 10, "test/dent": 1}
    numbers = iter(range(256))
    for folder, count in counts.items():
        for index in range(count):
            paint(tmp_path / f"wide/{folder}/{index:02}.png", next(numbers))
    return tmp_path / "wide"


def test_a_limit_takes_a_seeded_sample_of_each_split(wide: Path) -> None:
    names = [{s.name for s in open_dataset(wide, limit=8, seed=seed).samples} for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert Counter(name.split("/")[0] for name in names[0]) == {"train": 8, "test": 8}


def test_a_limit_keeps_every_folder_in_proportion_and_none_empty(wide: Path) -> None:
    chosen = open_dataset(wide, limit=15).select(split=Split.TEST)
    counts = Counter(s.folder for s in chosen)
    assert counts["test/dent"] == 1
    assert counts["test/good"] == pytest.approx(15 * 20 / 31, abs=1)
    assert counts["test/scratch"] == pytest.approx(15 * 10 / 31, abs=1)


def test_a_limit_of_few_still_takes_one_of_each_folder(wide: Path) -> None:
    counts = Counter(s.folder for s in open_dataset(wide, limit=3).select(split=Split.TEST))
    assert counts == {"test/good": 1, "test/scratch": 1, "test/dent": 1}


def test_a_limit_above_what_is_there_takes_everything(wide: Path) -> None:
    assert len(open_dataset(wide, limit=1000).samples) == 71


def test_a_sample_does_not_depend_on_the_names_of_the_files(wide: Path) -> None:
    chosen = {s.digest for s in open_dataset(wide, limit=8).samples}
    for index, path in enumerate(sorted((wide / "train/good").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{index:02}.png"))
    assert {s.digest for s in open_dataset(wide, limit=8).samples} == chosen


def test_the_fingerprint_stays_when_the_data_set_moves(tree: Path, tmp_path: Path) -> None:
    before = open_dataset(tree).fingerprint
    moved = Path(shutil.move(tree, tmp_path / "elsewhere"))
    os.utime(moved / "train/good/0.png", (0, 0))
    assert open_dataset(moved).fingerprint == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root, paint: paint(root / "train/good/0.png", 77), id="an image's content"),
        pytest.param(lambda root, paint: paint(root / "ground_truth/scratch/0_mask.png", 77), id="a mask's content"),
        pytest.param(lambda root, _: (root / "ground_truth/scratch/1.BMP").unlink(), id="a mask that is gone"),
        pytest.param(lambda root, _: (root / "test/scratch").rename(root / "test/unknown"), id="a label"),
        pytest.param(
            lambda root, _: (root / "train/good/0.png").rename(root / "test/good/9.png"), id="an image's split"
        ),
        pytest.param(lambda root, _: (root / "test/scratch/2.png").unlink(), id="an image that is gone"),
    ],
)
def test_the_fingerprint_changes_with(tree: Path, paint: Paint, change: Callable[[Path, Paint], object]) -> None:
    before = open_dataset(tree).fingerprint
    change(tree, paint)
    assert open_dataset(tree).fingerprint != before


def test_an_image_that_is_a_dangling_link_is_no_image(tree: Path) -> None:
    (tree / "train/good/gone.png").symlink_to(tree / "nowhere.png")
    assert "train/good/gone.png" not in places(open_dataset(tree))
