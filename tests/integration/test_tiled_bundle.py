"""A sealed bundle that inspects a 1130x460 frame in many tiles finds a defect wherever it lies."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.layouts import open_dataset
from calibration.perturb import paint_defect
from calibration.policies import parse_policy
from calibration.recalibration import calibrate
from calibration.sealing import seal
from edge_runtime.bundle.archive import Archive
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size, encode_png
from edge_runtime.inspector import Inspector
from edge_runtime.layout import tile_plan
from trainer.bench.cli import bench
from trainer.bench.frames import Study, bench_frames
from trainer.config import make_config
from trainer.fitting import fit

WIDTH, HEIGHT = 1130, 460
CORE, HALO = 192, 32


def sheet(seed: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Rolled metal sheet: grain along x, slow shading, noise; (height, width, 3)."""
    random = np.random.default_rng(seed)
    grain = np.repeat(random.normal(0, 6, (height, width // 10)), 10, axis=1)
    shade = 10 * np.sin(np.linspace(0, 3, width) + random.uniform(0, 6))
    grey = 120 + grain + shade + random.normal(0, 3, (height, width))
    return np.clip(grey, 0, 255).astype(np.uint8)[:, :, np.newaxis].repeat(3, axis=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    (folder / "good").mkdir()
    for seed in range(14):
        (folder / "good" / f"{seed:02}.png").write_bytes(encode_png(sheet(seed)))
    flags = {"backbone": "gabor", "tile": CORE, "halo": HALO, "coreset": 300, "holdout": 0.4, "workers": 0}
    fit(make_config(flags | {"policy": "sigma:5"}, None), folder / "good", folder / "sheet.draft")
    sealed: Path = seal(folder / "sheet.draft", open_dataset(folder / "good"), folder / "sheet.takt").path
    return sealed


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> Inspector:
    return Inspector.open(bundle)


def places() -> list[tuple[int, int]]:
    """Every tile corner, border centre and tile centre of the frame, moved inside where it lies on its rim."""
    xs = sorted({min(x, WIDTH - 8) for x in range(0, WIDTH + CORE, CORE // 2)})
    ys = sorted({min(y, HEIGHT - 8) for y in range(0, HEIGHT + CORE, CORE // 2)})
    return [(max(x, 8), max(y, 8)) for y in ys for x in xs]


def test_the_plan_has_several_tiles_and_covers_every_pixel_once(inspector: Inspector) -> None:
    recipe = inspector.scorer.recipe
    plan = tile_plan(recipe, recipe.geometry.regions[0])

    assert (plan.columns, plan.rows) == (6, 3)
    assert recipe.tiling.batch == 1  # inputs of 256x256
    assert (plan.coverage() == 1).all()


def test_an_unseen_good_sheet_is_accepted(inspector: Inspector) -> None:
    assert inspector.inspect(sheet(100)).verdict is Verdict.ACCEPT


def test_a_defect_on_every_tile_border_corner_and_centre_is_rejected_and_listed_where_it_is(
    inspector: Inspector,
) -> None:
    for x, y in places():
        frame = sheet(101)
        shape = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
        shape[y - 7 : y + 8, x - 7 : x + 8] = True
        paint_defect(frame, shape, white=255)

        inspection = inspector.inspect(frame)

        assert inspection.verdict is Verdict.REJECT, (x, y)
        best = inspection.regions[0]
        assert best.x <= x < best.x + best.width, (x, y, best)
        assert best.y <= y < best.y + best.height, (x, y, best)
        assert max(best.width, best.height) < 3 * CORE // 4, (x, y, best)


@pytest.mark.parametrize(("width", "height"), [(700, 500), (1500, 200), (150, 120)])
def test_calibrated_for_frames_of_another_size_it_inspects_those_and_no_others(
    bundle: Path, tmp_path: Path, width: int, height: int
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for seed in range(8):
        (good / f"{seed}.png").write_bytes(encode_png(sheet(200 + seed, width, height)))
    out = tmp_path / "other.takt"
    calibrate(bundle, open_dataset(good), out, policy=parse_policy("sigma:5"), frame=Size(width, height))
    other = Inspector.open(out)  # its golden frames are of the new size, too
    assert other.inspect(sheet(100, width, height)).verdict is Verdict.ACCEPT
    frame, shape = sheet(101, width, height), np.zeros((height, width), dtype=np.bool_)
    shape[-15:, -15:] = True
    paint_defect(frame, shape, white=255)
    assert other.inspect(frame).verdict is Verdict.REJECT
    assert other.inspect(sheet(100)).reason is Reason.BAD_IMAGE
    with Archive(out) as archive:
        assert len([name for name in archive.names if name.startswith("golden/") and name.endswith(".png")]) == 2


def test_the_study_of_growing_frames_lays_the_model_on_each_and_times_its_stages(bundle: Path, tmp_path: Path) -> None:
    study = Study(bundle=bundle, folder=tmp_path, megapixels=(0.05, 0.2), runs=1, tile=512, flags=())

    head, _, *rows = bench_frames(study)

    names = [name.strip() for name in head.strip("|").split("|")]
    cells = [dict(zip(names, (cell.strip() for cell in row.strip("|").split("|")), strict=True)) for row in rows]
    assert [(row["MP"], row["frame"], row["tiles"]) for row in cells] == [
        ("0.05", "256x192", "2"),
        ("0.2", "520x384", "6"),
    ]
    for row in cells:
        total, tiles = float(row["total, ms"]), int(row["tiles"])
        assert 0 < float(row["infer, ms"]) < total
        assert float(row["ms a tile"]) == pytest.approx(total / tiles, abs=1)
        assert float(row["process, MB"]) >= float(row["beyond frame and map, MB"]) > 0
    assert Inspector.open(tmp_path / "520x384.takt").scorer.recipe.geometry.frame.size == (520, 384)


def test_settings_of_what_is_built_are_refused_where_a_bundle_is_laid(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tile and --with are of what is built"):
        bench(["frames", str(bundle), "--out", str(tmp_path), "--tile", "256"])


def test_the_study_of_growing_frames_builds_for_each_in_tiles_that_divide_it(tmp_path: Path) -> None:
    study = Study(bundle=None, folder=tmp_path, megapixels=(0.05,), runs=1, tile=160, flags=("--backbone", "gabor"))

    _, _, row = bench_frames(study)

    assert [cell.strip() for cell in row.strip("|").split("|")][:4] == ["0.05", "256x192", "4", "128x96"]
    assert Inspector.open(tmp_path / "256x192.takt").scorer.recipe.tiling.core.size == (128, 96)
