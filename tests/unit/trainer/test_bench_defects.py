"""`takt bench defects`: frames with pits of known size and place, and which of them are found."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cli import main
from edge_runtime.imaging.frames import Size, read_image, read_mask
from trainer.bench.defects import Study, bench_defects, render_frames


def study(folder: Path) -> Study:
    return Study(
        folder=folder,
        frame=Size(256, 192),
        diameters_px=(6, 20),
        each=1,
        train=5,
        good=2,
        tile=64,
        flags=("--backbone", "gabor", "--coreset", "200"),
    )


@pytest.mark.slow
def test_each_pit_is_darker_in_its_mask_alone_and_counted_by_its_size(tmp_path: Path) -> None:
    lines = list(bench_defects(study(tmp_path)))
    assert lines[0] == "| pit, px of 256x192 | squashed to 256x256 | scale 1, tiles of 64 |"
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["6", "20"]
    assert all(" of 1 |" in line for line in lines[2:4])
    areas = {}
    for path in sorted((tmp_path / "data/test/pit").iterdir()):
        mask = read_mask(tmp_path / f"data/ground_truth/pit/{path.stem}_mask.png")
        areas[path.name[:3]] = mask.sum()
        pixels = read_image(path).pixels
        ring = np.zeros_like(mask)
        ys, xs = np.nonzero(mask)
        ring[ys.min() - 3 : ys.max() + 4, xs.min() - 3 : xs.max() + 4] = True
        assert pixels[mask].mean() < 0.75 * pixels[ring & ~mask].mean()
    assert areas["006"] == pytest.approx(np.pi * 9, rel=0.2)
    assert areas["020"] == pytest.approx(np.pi * 100, rel=0.1)
    picture = read_image(tmp_path / "pits.png")
    assert picture.size.width > 2 * picture.size.height
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.png")}
    render_frames(study(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.png")} == before


def test_diameters_that_are_none_are_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "defects", "--out", str(tmp_path), "--diameters", "6,x"]) == 2
    assert "whole number" in capsys.readouterr().err
