"""Owns the layouts in which data sets come: MVTec tree, a folder of good images, TOML, CSV, VisA."""

import csv
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibration.samples import DataSet, Label, Sample, Split, file_digest, sample_limit, without_duplicates
from edge_runtime.errors import DataError
from edge_runtime.imaging.frames import IMAGE_SUFFIXES

_GOOD_FOLDER = "good"
_UNKNOWN_FOLDER = "unknown"
_CSV_COLUMNS = {"path", "label", "split", "mask"}


class _Entry(NamedTuple):
    """A sample before its digest is known."""

    path: Path
    label: Label
    split: Split
    folder: str
    mask: Path | None


def open_dataset(root: Path, *, limit: int | None = None, seed: int = 0) -> DataSet:
    """Read a data set of any layout.

    Args:
        root: a folder, a .toml or a .csv file.
        limit: keep a seeded sample of so many images of each split.
        seed: of that sample.

    Raises:
        DataError: nothing there, no layout that is known, no image, or an image that stands in train and test.
    """
    if not root.exists():
        message = f"{root}: does not exist: give a data set's folder, or its .toml or .csv file"
        raise DataError(message)
    layout, read = _layout(root)
    base = root if root.is_dir() else root.parent
    entries = sorted(read(root), key=lambda entry: entry.path.as_posix())
    if not entries:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        message = f"{root}: holds no image (looked for a {layout}; images end in {suffixes}, in any case)"
        raise DataError(message)
    kept, duplicates = without_duplicates([_sample(entry, base) for entry in entries], root)
    if limit is not None:
        kept = sample_limit(kept, limit, seed)
    return DataSet(root=root, layout=layout, samples=kept, duplicates=duplicates)


def _layout(root: Path) -> tuple[str, Callable[[Path], Iterator[_Entry]]]:
    if root.is_file():
        readers = {".toml": ("TOML file", _read_toml), ".csv": ("CSV list", _read_csv)}
        if root.suffix.lower() not in readers:
            message = f"{root}: is a file, but neither .toml nor .csv: give a data set's folder or list"
            raise DataError(message)
        return readers[root.suffix.lower()]
    if (root / "train").is_dir() or (root / "test").is_dir():
        return "MVTec tree", _read_mvtec
    if (root / "Data" / "Images").is_dir():
        return "VisA folder", _read_visa
    return "folder of good images", _read_good


def _sample(entry: _Entry, base: Path) -> Sample:
    path = entry.path
    name = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
    return Sample(
        path=path,
        name=name,
        label=entry.label,
        split=entry.split,
        folder=entry.folder,
        digest=file_digest(path),
        mask=entry.mask,
    )


def images(folder: Path) -> list[Path]:
    """Image files directly in a folder, by suffix in any case, hidden files left out."""
    if not folder.is_dir():
        return []
    found = (
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(path for path in found if path.is_file())


def _folders(tree: Path) -> list[Path]:
    """Folders directly in a folder, hidden ones (thumbnails, checkpoints) left out."""
    found = tree.iterdir() if tree.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _read_mvtec(root: Path) -> Iterator[_Entry]:
    for split in Split:
        for folder in _folders(root / split):
            label = _folder_label(folder.name)
            for path in images(folder):
                mask = _mask_for(path, root / "ground_truth" / folder.name) if label is Label.DEFECTIVE else None
                yield _Entry(path, label, split, f"{split}/{folder.name}", mask)


def _folder_label(name: str) -> Label:
    return {_GOOD_FOLDER: Label.GOOD, _UNKNOWN_FOLDER: Label.UNKNOWN}.get(name.lower(), Label.DEFECTIVE)


def _mask_for(image: Path, folder: Path) -> Path | None:
    """`<stem>_mask.*`, or `<stem>.*`, in a mask folder."""
    by_stem = {path.stem: path for path in images(folder)}
    return by_stem.get(f"{image.stem}_mask") or by_stem.get(image.stem)


def _read_good(root: Path) -> Iterator[_Entry]:
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        stratum = folder.relative_to(root).as_posix()
        if any(part.startswith(".") for part in folder.relative_to(root).parts):
            continue  # thumbnails, checkpoints
        label = Label.UNKNOWN if folder.name.lower() == _UNKNOWN_FOLDER else Label.GOOD
        for path in images(folder):
            yield _Entry(path, label, Split.TRAIN, stratum, None)


class _TomlList(BaseModel):
    """A data set named folder by folder, each relative to the file; `masks` belong to `defective`, in order."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    good: Annotated[list[str], Field(min_length=1)]
    test_good: list[str] = []
    defective: list[str] = []
    masks: list[str] = []
    unknown: list[str] = []


def _read_toml(file: Path) -> Iterator[_Entry]:
    try:
        listed = _TomlList.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        message = f"{file}: is not a TOML file ({error})"
        raise DataError(message) from error
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; keys are good, test_good, defective, masks, unknown"
        raise DataError(message) from error
    if listed.masks and len(listed.masks) != len(listed.defective):
        message = f"{file}: {len(listed.masks)} mask folders for {len(listed.defective)} defective folders: one each, in order"
        raise DataError(message)
    missing = [name for name in listed.masks if not (file.parent / name).is_dir()]
    if missing:
        message = f"{file}: mask folder {missing[0]!r} does not exist"
        raise DataError(message)
    masks: list[Path | None] = [file.parent / mask for mask in listed.masks]
    masks = masks or [None] * len(listed.defective)
    groups = [
        (listed.good, Label.GOOD, Split.TRAIN),
        (listed.test_good, Label.GOOD, Split.TEST),
        (listed.unknown, Label.UNKNOWN, Split.TEST),
    ]
    for names, label, split in groups:
        for name in names:
            for path in _listed_images(file, name):
                yield _Entry(path, label, split, name, None)
    for name, mask_folder in zip(listed.defective, masks, strict=True):
        for path in _listed_images(file, name):
            mask = None if mask_folder is None else _mask_for(path, mask_folder)
            yield _Entry(path, Label.DEFECTIVE, Split.TEST, name, mask)


def _listed_images(file: Path, name: str) -> list[Path]:
    found = images(file.parent / name)
    if not found:
        message = f"{file}: folder {name!r} does not exist or holds no image"
        raise DataError(message)
    return found


def _read_csv(file: Path) -> Iterator[_Entry]:
    """Rows of path, label and optionally split and mask; paths relative to the file."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{file}: is not a CSV list ({error})"
        raise DataError(message) from error
    columns = set(rows[0]) if rows else set()
    if not {"path", "label"} <= columns <= _CSV_COLUMNS:
        message = f"{file}: columns are {sorted(map(str, columns))}; needs path and label, may have split and mask"
        raise DataError(message)
    for number, row in enumerate(rows, start=2):
        try:
            label = Label(row["label"].strip().lower())
            default = Split.TRAIN if label is Label.GOOD else Split.TEST
            split = Split((row.get("split") or default).strip().lower())
            path = file.parent / row["path"].strip()
        except (ValueError, AttributeError) as error:
            message = f"{file}: line {number}: {error}; label is good, defective or unknown, split train or test"
            raise DataError(message) from error
        mask = (row.get("mask") or "").strip()
        yield _Entry(path, label, split, f"{split}/{label}", file.parent / mask if mask else None)


def _read_visa(root: Path) -> Iterator[_Entry]:
    """One class folder of VisA; its published one-class split where the list lies beside it."""
    published = _visa_split(root)
    groups = [("Normal", Label.GOOD), ("Anomaly", Label.DEFECTIVE)]
    for name, label in groups:
        for path in images(root / "Data" / "Images" / name):
            default = Split.TRAIN if label is Label.GOOD else Split.TEST
            split = published.get(path.relative_to(root).as_posix(), default)
            mask = _mask_for(path, root / "Data" / "Masks" / name) if label is Label.DEFECTIVE else None
            yield _Entry(path, label, split, f"{split}/{name}", mask)


def _visa_split(root: Path) -> dict[str, Split]:
    file = root.parent / "split_csv" / "1cls.csv"
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row.get("object") == root.name]
        return {row["image"].removeprefix(f"{root.name}/"): Split(row["split"]) for row in rows}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        message = f"{file}: is not VisA's list of object, split, label, image, mask ({error}): restore it or remove it"
        raise DataError(message) from error
