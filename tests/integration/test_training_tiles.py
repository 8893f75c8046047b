"""Training on tiles through the command: what is chosen, cached and augmented, and what is refused."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bundle.archive import Archive
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame, PixelFormat, encode_png, read_image
from edge_runtime.inspector import Inspector
from trainer.data import planes
from trainer.data.tiles import FrameTiles
from trainer.models import patchcore
from trainer.plan import Plan

Takt = Callable[..., Any]

MODEL = ("--backbone", "gabor", "--coreset", "50", "--workers", "0", "--holdout", "0.3")
TILES = ("--tile", "64", "--halo", "32")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 136x104: 3 x 2 tiles of 64, of which two are complete; the part lies on the first one."""
    root = tmp_path_factory.mktemp("plates")
    for seed in range(6):
        random = np.random.default_rng(seed)
        pixels = random.integers(10, 20, (104, 136, 3)).astype(np.uint8)
        pixels[8:60, 8:56] = random.integers(120, 200, (52, 48, 3))
        (root / f"{seed}.png").write_bytes(encode_png(pixels))
    mask = np.zeros((104, 136), np.uint8)
    mask[:64, 64:128] = 255
    (root.parent / "mask.png").write_bytes(encode_png(mask))
    return root


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Tiles, cells and images of every fit."""
    seen: list[tuple[int, int, int]] = []
    fit = patchcore.PatchCoreMethod.fit

    def watched(self: Any, features: Any, data: Any, settings: Any) -> Any:  # noqa: ANN401
        seen.append((data.fit.count, data.fit.cells, sum(len(batch.tiles) for batch in data.fit)))
        assert isinstance(data.fit, FrameTiles)
        return fit(self, features, data, settings)

    monkeypatch.setattr(patchcore.PatchCoreMethod, "fit", watched)
    return seen


def config(draft: Path) -> dict[str, Any]:
    with Archive(draft) as archive:
        values: dict[str, Any] = json.loads(archive.read("draft.json"))["provenance"]["config"]
    return values


FULL = 8 * 8  # cells of a complete core


@pytest.mark.parametrize(
    ("flags", "tiles", "cells", "said"),
    [
        ((), 4 * 6, 4 * 13 * 17, None),
        (
            ("--incomplete-tiles", "out"),
            4 * 2,
            4 * 2 * FULL,
            "--incomplete-tiles out: trains on 8 of 24 tiles, of 4 of 4",
        ),
        (("--foreground", "otsu"), 4, 4 * FULL, "--foreground otsu --foreground-share 0.1: trains on 4 of 24 tiles"),
        (
            ("--foreground", "../mask.png", "--foreground-share", "1"),
            4,
            4 * FULL,
            "mask.png --foreground-share 1: trains on",
        ),
        (("--augment", "flip_x,flip_y,turn,light"), 5 * 24, 5 * 4 * 13 * 17, None),
        (("--foreground", "otsu", "--augment", "turn"), 8, 8 * FULL, "trains on 4 of 24 tiles, of 4 of 4 fit images;"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_a_fit_sees_the_tiles_that_were_asked_for(
    takt_here: Takt,
    plates: Path,
    tmp_path: Path,
    fitted: list[tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: tuple[str, ...],
    tiles: int,
    cells: int,
    said: str | None,
) -> None:
    monkeypatch.chdir(plates)
    ran = takt_here("fit", plates, "--out", tmp_path / "x.draft", *MODEL, *TILES, *flags)
    assert ran.code == 0, ran.err
    assert fitted == [(tiles, cells, tiles)]
    assert said is None or said in ran.err
    assert ("inspection covers them all" in ran.err) == (said is not None)
    recorded = config(tmp_path / "x.draft")
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        found = recorded[flag.removeprefix("--").replace("-", "_")]
        assert (
            ",".join(found) if isinstance(found, list) else f"{found:g}" if isinstance(found, float) else found
        ) == value


def test_a_bundle_of_selected_tiles_is_sealed_and_scores_every_tile(
    takt_here: Takt, plates: Path, tmp_path: Path
) -> None:
    flags = ("--foreground", "otsu", "--incomplete-tiles", "out", "--augment", "flip_x,light", "--policy", "quantile:1")
    out = tmp_path / "x.takt"
    ran = takt_here("build", plates, "--out", out, *MODEL, *TILES, *flags, "--tile-cache", tmp_path / "cache")
    assert ran.code == 0, ran.err
    scorer = Inspector.open(out).scorer
    good = read_image(plates / "0.png").as_format(PixelFormat.RGB8).copy()
    defective = good.copy()
    defective[80:100, 80:120] = 250  # on a tile that no fit saw
    before, after = (scorer.score(Frame(pixels, PixelFormat.RGB8)).regions[0].grid for pixels in (good, defective))
    assert before.shape == (13, 17)  # all 3 x 2 tiles, incomplete ones included
    assert np.isfinite(before).all()
    assert (after[10:12, 10:15] != before[10:12, 10:15]).all()  # it is looked at, though nothing was learnt of it


@pytest.mark.parametrize("size", [TILES, ("--size", "64x64")])
def test_a_build_from_the_cache_decodes_no_image_of_the_fit_and_gives_the_same(
    takt_here: Takt, plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[str, ...]
) -> None:
    def members(draft: Path) -> dict[str, bytes]:
        with Archive(draft) as archive:
            return {name: archive.read(name) for name in archive.names if name != "draft.json"}

    flags = (*MODEL, *size, "--augment", "light")
    cached = (*flags, "--tile-cache", tmp_path / "cache")
    for name, some in {"plain": flags, "first": cached}.items():
        ran = takt_here("fit", plates, "--out", tmp_path / name, *some)
        assert ran.code == 0, ran.err
    monkeypatch.delattr(planes, "read_image")

    ran = takt_here("fit", plates, "--out", tmp_path / "second", *cached)

    assert ran.code == 0, ran.err
    assert members(tmp_path / "plain") == members(tmp_path / "first") == members(tmp_path / "second")


@pytest.mark.slow
def test_a_disk_that_fills_up_is_told_once_and_the_fit_goes_on(plates: Path, tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    takt, folder = Path(sys.executable).with_name("takt"), shlex.quote(str(mount))
    fit = shlex.join(
        map(str, (takt, "fit", plates, "--out", tmp_path / "x.draft", *MODEL, *TILES, "--tile-cache", mount))
    )
    script = f"mount -t tmpfs -o size=120k tmpfs {folder} || exit 99\n{fit} >&2 || exit $?\nls -A {folder}"
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"`unshare -rm` and a tmpfs must be permitted: {done.stderr}"
    assert done.stderr.count("cannot be written to any more (No space left on device): the fit goes on without") == 1
    assert (tmp_path / "x.draft").is_file()
    assert all(name.endswith(".plane") for name in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) > 1


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--foreground", "otsu"), 2, "choose among tiles and belong to --tile"),
        (("--foreground-share", "0.2"), 2, "choose among tiles and belong to --tile"),
        (("--incomplete-tiles", "out"), 2, "choose among tiles and belong to --tile"),
        ((*TILES, "--foreground-share", "0.2"), 2, "--foreground-share belongs to --foreground otsu or MASK.png"),
        ((*TILES, "--foreground", "otsu", "--foreground-share", "0"), 2, "foreground_share"),
        ((*TILES, "--foreground", "otsu", "--foreground-share", "1.1"), 2, "foreground_share"),
        ((*TILES, "--foreground", "nothere.png"), 5, "nothere.png: cannot be read"),
        ((*TILES, "--foreground", __file__), 5, "not an image, or truncated"),
        (
            (*TILES, "--foreground", "otsu", "--foreground-share", "1"),
            5,
            "none of the 24 tiles of 4 fit image(s) is left",
        ),
        (("--tile", "256", "--incomplete-tiles", "out", "--halo", "0"), 5, "the cores of 4 reach beyond the plane"),
        ((*TILES, "--incomplete-tiles", "maybe"), 2, "invalid choice"),
        (("--augment", "flip_z"), 2, "augment.0"),
        (("--augment", "light,light"), 2, "--augment: give each kind once"),
        (("--augment", "turn", "--size", "64x32"), 2, "--augment turn takes square inputs, --size is 64x32"),
        (
            ("--augment", "light,flip_x", "--method", "padim"),
            2,
            "--augment flip_x: the method padim learns what is good",
        ),
        (("--augment", "turn", "--method", "cflow", *TILES), 2, "--augment turn: the method cflow learns what is good"),
        (("--tile-cache", __file__), 2, f"--tile-cache {__file__}: cannot be written to"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_fit(
    takt_here: Takt, plates: Path, tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    method = () if "--method" not in flags else ("--backbone", "gabor", "--workers", "0")
    ran = takt_here("fit", plates, "--out", tmp_path / "x.draft", *(method or MODEL), *flags)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_another_size_is_refused_with_both(takt_here: Takt, plates: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(encode_png(np.full((10, 20), 255, np.uint8)))
    ran = takt_here("fit", plates, "--out", tmp_path / "x.draft", *MODEL, *TILES, "--foreground", mask)
    assert ran.code == 2
    assert f"--foreground {mask}: the mask is 20x10, the frame 136x104" in ran.err


def test_a_method_of_places_takes_another_light(takt_here: Takt, plates: Path, tmp_path: Path) -> None:
    flags = ("--method", "padim", "--backbone", "gabor", "--size", "64x64", "--workers", "0", "--augment", "light")
    ran = takt_here("fit", plates, "--out", tmp_path / "x.draft", *flags)
    assert ran.code == 0, ran.err


def test_a_fit_is_not_gone_on_with_on_other_tiles(takt_here: Takt, plates: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(encode_png(np.full((104, 136), 255, np.uint8)))
    flags = (
        "--method",
        "fastflow",
        "--backbone",
        "gabor",
        "--workers",
        "0",
        "--steps",
        "2",
        "--holdout",
        "0.3",
        *TILES,
    )

    def identity(*more: object) -> dict[str, str]:
        found: list[dict[str, str]] = []
        with pytest.MonkeyPatch.context() as patch:
            from trainer import fitting  # noqa: PLC0415

            made = fitting._identity  # noqa: SLF001 - what a checkpoint is held against

            def seen(plan: Plan) -> dict[str, str]:
                found.append(made(plan))
                message = "seen, and no fit is needed"
                raise ConfigError(message)

            patch.setattr(fitting, "_identity", seen)
            ran = takt_here("fit", plates, "--out", tmp_path / "x.draft", *flags, *more)
            assert "seen, and no fit is needed" in ran.err
        return found[0]

    def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
        return {name for name in one if one[name] != other[name]}

    plain = identity("--foreground", mask)
    assert differing(plain, identity("--foreground", mask, "--tile-cache", tmp_path / "cache")) == set()
    assert differing(plain, identity("--foreground", mask, "--augment", "light")) == {"--augment"}
    assert differing(plain, identity("--foreground", mask, "--foreground-share", "0.5")) == {"--foreground-share"}
    mask.write_bytes(encode_png(np.pad(np.full((64, 64), 255, np.uint8), ((0, 40), (0, 72)))))
    assert differing(plain, identity("--foreground", mask)) == {"foreground mask"}


def test_what_can_be_known_before_a_fit_is_refused_before_it(takt_here: Takt, plates: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.draft"
    for flags, said in (
        (("--background", "on"), "--background on: 1 good image(s) set apart, needs 2 at least: raise --validation"),
        (("--foreground", "OTSU"), "--foreground takes none, otsu, or a mask image"),
    ):
        ran = takt_here("fit", plates, "--out", out, *MODEL, *TILES, *flags)

        assert ran.code == 5
        assert said in ran.err
        assert "fit takes" not in ran.err
        assert not out.exists()
