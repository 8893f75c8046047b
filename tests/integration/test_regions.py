"""Several regions of one frame, as a user has them: a file, a build, frames with defects here and there, the service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.line import serving

from edge_runtime.clients import Gateway
from edge_runtime.decision import Verdict
from edge_runtime.imaging.frames import encode_png

Takt = Callable[..., Any]

WIDTH, HEIGHT = 160, 96
POLYGON = [[8, 8], [72, 8], [72, 88], [8, 72]]
CODE = [96, 16, 152, 80]
SETTINGS = f"""
backbone = "gabor"
size = [64, 64]
coreset = 60
holdout = 0.5
workers = 0
policy = "sigma:6"
smallest_region = 4

[[region]]
name = "label"
polygon = {POLYGON}
valid_area = "label.png"
smallest_region = 5000

[[region]]
name = "code"
crop = {CODE}
"""


def part(seed: int, *defects: tuple[int, int]) -> NDArray[np.uint8]:
    """(96, 160): brushed metal, the left half brighter, with black squares of 12 pixels around the places given."""
    random = np.random.default_rng(seed)
    pixels = 120 + random.normal(0, 4, (HEIGHT, WIDTH)) + 30 * (np.arange(WIDTH) < WIDTH // 2)
    for x, y in defects:
        pixels[y - 6 : y + 6, x - 6 : x + 6] = 0
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images, `build.toml` and the mask beside it."""
    folder = tmp_path_factory.mktemp("regions")
    (folder / "good").mkdir()
    for seed in range(16):
        (folder / "good" / f"{seed:02}.png").write_bytes(encode_png(part(seed)))
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    cv2.circle(mask, (24, 24), 10, 0, -1)
    (folder / "label.png").write_bytes(encode_png(mask))
    (folder / "build.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(home: Path, takt_build: Takt) -> Path:
    takt_build(home / "good", "--config", home / "build.toml", "--out", home / "part.takt")
    return home / "part.takt"


@pytest.fixture(scope="module")
def frames(home: Path) -> Path:
    """One good part and one with a defect in each place that matters; names in the order of the results."""
    places = {"a-good": [], "b-label": [(48, 48)], "c-code": [(124, 48)], "d-outside": [(84, 48), (84, 20)]}
    (home / "frames").mkdir()
    for seed, (name, defects) in enumerate(places.items()):
        (home / "frames" / f"{name}.png").write_bytes(encode_png(part(50 + seed, *defects)))
    return home / "frames"


def test_a_defect_rejects_by_the_region_it_is_in_and_none_by_a_place_that_nobody_inspects(
    takt_here: Takt, bundle: Path, frames: Path, tmp_path: Path
) -> None:
    found = takt_here("run", bundle, frames, "--json", "--overlays", tmp_path / "overlays")
    good, label, code, outside = found.lines
    assert [line["verdict"] for line in found.lines] == ["ACCEPT", "REJECT", "REJECT", "ACCEPT"]
    assert (label["region"], code["region"]) == ("label", "code")
    assert label["threshold"] != code["threshold"]
    assert good["regions"] == outside["regions"] == []
    assert label["regions"] == []  # smaller than the label lists; the verdict does not see that
    assert {listed["name"] for listed in code["regions"]} == {"code"}
    (listed,) = code["regions"][:1]
    assert listed["x"] <= 124 < listed["x"] + listed["width"]
    assert listed["y"] <= 48 < listed["y"] + listed["height"]
    picture = cv2.imread(str(tmp_path / "overlays" / "a-good.png"))
    for x, y in ((40, 8), (72, 50), (8, 40), (96, 40), (120, 16), (151, 50)):  # both regions' borders
        assert (picture[y, x] == 255).all(), (x, y)
    assert not (picture[:, 78:92] == 255).all(axis=2).any()


def test_every_region_has_thresholds_and_a_smallest_defect_of_its_own(takt_here: Takt, bundle: Path) -> None:
    manifest = json.loads(takt_here("bundle", "show", bundle, "--json").out)
    regions = {region["name"]: region for region in manifest["geometry"]["regions"]}
    assert {name: region["smallest_region_px"] for name, region in regions.items()} == {"label": 5000, "code": 4}
    assert regions["label"]["valid_area"] == "geometry/label.png"
    for artefact in manifest["artefacts"]:
        thresholds = artefact["thresholds"]
        assert thresholds["label"]["reject"] != thresholds["code"]["reject"]
    shown = takt_here("bundle", "show", bundle).out
    assert "label: 65x81 at 8,8 scaled to 64x64, polygon of 4 corners, masked, lists from 5000 px" in shown
    assert "code: 56x64 at 96,16 scaled to 64x64, lists from 4 px" in shown


def test_calibration_leaves_the_regions_as_they_are(takt_here: Takt, bundle: Path, home: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.takt"
    assert takt_here("calibrate", bundle, home / "good", "--out", new, "--policy", "sigma:9").code == 0
    old, made = (json.loads(takt_here("bundle", "show", path, "--json").out) for path in (bundle, new))
    assert made["geometry"] == old["geometry"]
    assert set(made["artefacts"][0]["thresholds"]) == {"label", "code"}


def test_the_service_names_the_region_that_decided(bundle: Path, frames: Path, tmp_path: Path) -> None:
    camera = {"name": "top", "bundle": str(bundle), "source": f"folder:{frames}", "deadline_ms": 20_000}
    with serving(tmp_path, camera) as line, Gateway(line.endpoint, name="plc") as gateway:
        answers = {answer.label: answer for answer in (gateway.inspect(camera="top").answer for _ in range(4))}
    verdicts = {label: (answer.verdict, answer.region) for label, answer in answers.items()}
    assert verdicts["b-label.png"] == (Verdict.REJECT, "label")
    assert verdicts["c-code.png"] == (Verdict.REJECT, "code")
    assert verdicts["a-good.png"][0] == verdicts["d-outside.png"][0] == Verdict.ACCEPT
    assert {listed.name for listed in answers["c-code.png"].regions} == {"code"}


@pytest.mark.parametrize(
    ("region", "code", "said"),
    [
        ("polygon = [[8, 8], [200, 8], [8, 88]]", 2, r"region r: polygon corner 200,8 lies outside the frame 160x96"),
        ("polygon = [[8, 8], [72, 8]]", 2, "region r: polygon has 2 corner(s): give three"),
        ("polygon = [[8, 8], [16, 16], [40, 40]]", 2, "region r: polygon has no area: its 3 corners lie on one line"),
        ("crop = [0, 0, 161, 96]", 2, "region r: crop 0,0,161,96 is empty or leaves the frame 160x96"),
        ('valid_area = "small.png"', 2, "small.png is 8x6, the frame 160x96"),
        ('valid_area = "black.png"', 2, "black.png is black all over its 160x96, which covers every pixel"),
        ('crop = [0, 0, 8, 8]\nvalid_area = "corner.png"', 2, "region r: nothing is left to inspect of its box 0,0,8,8 in the frame 160x96 by its valid-area mask"),
        ('valid_area = "none.png"', 5, "none.png: cannot be read"),
        ('valid_area = "build.toml"', 5, "build.toml: not an image"),
        ('crop = [0, 0, 8, 8]\n[[region]]\nname = "r"', 2, "region names r, r are not unique"),
    ],
)  # fmt: skip
def test_a_region_that_cannot_be_is_refused_by_its_name_before_anything_is_fitted(
    takt_here: Takt, home: Path, tmp_path: Path, region: str, code: int, said: str
) -> None:
    corner = np.zeros((HEIGHT, WIDTH), np.uint8)
    (tmp_path / "black.png").write_bytes(encode_png(corner))
    corner[-4:, -4:] = 255
    (tmp_path / "corner.png").write_bytes(encode_png(corner))
    (tmp_path / "small.png").write_bytes(encode_png(np.full((6, 8), 255, np.uint8)))
    file = tmp_path / "build.toml"
    file.write_text(f'backbone = "gabor"\n[[region]]\nname = "r"\n{region}\n', encoding="utf-8")
    found = takt_here("build", home / "good", "--config", file, "--out", tmp_path / "x.takt")
    assert found.code == code
    (line,) = found.err.splitlines()
    assert said in line
    assert "region" in line
    assert not (tmp_path / "x.takt").exists()


def test_regions_smaller_than_a_tile_and_than_the_networks_stride_are_inspected(
    takt_here: Takt, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "build.toml"
    file.write_text(
        'backbone = "gabor"\ntile = 64\nhalo = 32\ncoreset = 60\nholdout = 0.5\nworkers = 0\npolicy = "sigma:6"\n'
        '[[region]]\nname = "dot"\ncrop = [120, 40, 123, 42]\n[[region]]\nname = "rest"\ncrop = [0, 0, 96, 96]\n'
    )
    built = takt_here("build", home / "good", "--config", file, "--out", tmp_path / "x.takt")
    assert built.code == 0, built.err
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "a.png").write_bytes(encode_png(part(60)))
    (frames / "b.png").write_bytes(encode_png(part(61, (121, 41))))
    good, bad = takt_here("run", tmp_path / "x.takt", frames, "--json").lines
    assert good["verdict"] == "ACCEPT"
    assert (bad["verdict"], bad["region"]) == ("REJECT", "dot")
    assert [(found["width"], found["height"]) for found in bad["regions"]] == [(3, 2)]
