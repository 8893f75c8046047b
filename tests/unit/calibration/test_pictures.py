"""Maps and masks of an evaluation: one of each image, in the folder asked for and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from calibration.evaluation import Evaluation, evaluate
from calibration.layouts import open_dataset
from calibration.pictures import is_wrong, write_pictures
from calibration.samples import DataSet
from edge_runtime.imaging.frames import decode_png
from edge_runtime.inspector import Inspector


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def found(inspector: Inspector, opened: DataSet) -> Evaluation:
    return evaluate(inspector, opened)


def test_every_image_gets_its_map_and_its_mask_under_its_own_folder(
    found: Evaluation, inspector: Inspector, tmp_path: Path
) -> None:
    outputs = {"maps": tmp_path / "maps", "masks": tmp_path / "masks"}
    write_pictures(found, inspector, outputs, only_wrong=False)
    stems = {f"{item.sample.folder}/{item.sample.path.stem}" for item in found.judged}
    assert files(tmp_path / "maps") == {f"{stem}.npy" for stem in stems}
    assert files(tmp_path / "masks") == {f"{stem}.png" for stem in stems}
    item = found.judged[-1]
    inspection = inspector.inspect_file(item.sample.path)
    stem = f"{item.sample.folder}/{item.sample.path.stem}"
    frame_map, mask = inspector.frame_map(inspection), inspector.defect_mask(inspection)
    assert frame_map is not None
    assert np.load(tmp_path / f"maps/{stem}.npy") == pytest.approx(frame_map)
    written = decode_png((tmp_path / f"masks/{stem}.png").read_bytes(), stem).pixels
    assert np.array_equal(written, mask)


def test_only_wrong_writes_false_rejects_and_escapes_alone(
    found: Evaluation, inspector: Inspector, tmp_path: Path
) -> None:
    write_pictures(found, inspector, {"maps": tmp_path}, only_wrong=True)
    wrong = {f"{item.sample.folder}/{item.sample.path.stem}.npy" for item in found.judged if is_wrong(item)}
    assert files(tmp_path) == wrong
    assert 0 < len(wrong) < len(found.judged)


def test_no_output_is_overwritten_by_another_image_and_none_leaves_its_folder(
    inspector: Inspector, opened: DataSet, tmp_path: Path
) -> None:
    """Names with dots, equal names in several folders, folders named by `..` or as a whole: all seen on factory PCs."""
    sources = iter(sample.path for sample in opened.samples if "test" in sample.folder)
    places = ["part/in/10.31.42.1.png", "part/in/10.31.42.2.png", "beside/10.31.42.1.png", "whole/10.31.42.1.png"]
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(next(sources).read_bytes())
    listed = tmp_path / "part/parts.toml"
    listed.write_text(f"good = ['in', '../beside', '{tmp_path / 'whole'}']\n")
    before = files(tmp_path)
    maps = tmp_path / "maps"
    write_pictures(evaluate(inspector, open_dataset(listed)), inspector, {"maps": maps}, only_wrong=False)
    assert files(tmp_path) - {f"maps/{name}" for name in files(maps)} == before
    assert len(files(maps)) == 4
    assert "in/10.31.42.1.npy" in files(maps)
