"""What the sensor gave beyond 8 bits, and the colours of its mosaic, reach the score: through a real build and service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.line import Line, serving

from edge_runtime.clients import Gateway
from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.frames import Frame, PixelFormat, encode_png, read_image
from edge_runtime.inspector import Inspector

Takt = Callable[..., Any]

FLAGS = ("--backbone", "gabor", "--size", "64x64", "--coreset", "60", "--holdout", "0.5", "--workers", "0")
POLICY = ("--policy", "sigma:6")


def deep(seed: int) -> NDArray[np.uint16]:
    """(64, 64) of 12 bits: a ramp in steps of 16, which 8 bits hold, and one step of noise, which they do not."""
    random = np.random.default_rng(seed)
    ramp = 16 * np.linspace(60, 190, 64).astype(np.int64)
    return np.asarray(ramp[np.newaxis, :] + random.integers(0, 2, (64, 64)), dtype=np.uint16)


def mosaic(seed: int) -> NDArray[np.uint16]:
    """(64, 64) of 12 bits, BayerRG: an orange part with a little noise."""
    random = np.random.default_rng(seed)
    levels = np.tile(np.array([[3000, 1600], [1600, 500]]), (32, 32))
    return np.asarray(levels + random.integers(0, 40, (64, 64)), dtype=np.uint16)


def built(takt_build: Takt, folder: Path, make: Callable[[int], NDArray[np.uint16]], *flags: str) -> Path:
    (folder / "good").mkdir()
    for seed in range(12):
        (folder / "good" / f"{seed:02}.png").write_bytes(encode_png(make(seed)))
    takt_build(folder / "good", "--out", folder / "part.takt", *FLAGS, *POLICY, *flags)
    return folder / "part.takt"


@pytest.fixture(scope="module")
def twelve(takt_build: Takt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(takt_build, tmp_path_factory.mktemp("twelve"), deep, "--pixel-format", "Mono12")


@pytest.fixture(scope="module")
def raw(takt_build: Takt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(takt_build, tmp_path_factory.mktemp("raw"), mosaic, "--pixel-format", "BayerRG12")


def test_what_differs_only_below_8_bits_is_scored_otherwise(twelve: Path) -> None:
    inspector = Inspector.open(twelve)
    good = deep(77)
    scratched = good.copy()
    scratched[30:34, 8:56] |= 15
    assert np.array_equal(good >> 4, scratched >> 4)  # no 8-bit picture would show it
    one, other = (inspector.inspect(Frame(pixels, PixelFormat.MONO12)) for pixels in (good, scratched))
    assert one.verdict is Verdict.ACCEPT
    assert other.verdict is Verdict.REJECT
    assert other.regions[0].y <= 31 < other.regions[0].y + other.regions[0].height


def test_a_frame_of_the_bundles_depth_is_right_and_of_another_is_refused_with_what_to_set(twelve: Path) -> None:
    inspector = Inspector.open(twelve)
    pixels = deep(78)
    stated = inspector.inspect(Frame(pixels, PixelFormat.MONO12))
    assert stated.score == inspector.inspect(Frame(pixels, PixelFormat.MONO16)).score  # a driver that promises nothing
    assert stated.score == inspector.inspect(pixels).score
    wrong = inspector.inspect(Frame(pixels // 4, PixelFormat.MONO10))
    assert (wrong.verdict, wrong.reason) == (Verdict.ERROR, Reason.BAD_IMAGE)
    assert wrong.detail == (
        "frame is mono10, the bundle takes mono12: set the camera to mono12, or build the bundle from mono10 images"
    )
    shifted = inspector.inspect(Frame(pixels << 4, PixelFormat.MONO12))
    assert (shifted.verdict, shifted.reason) == (Verdict.ERROR, Reason.BAD_IMAGE)
    assert "mono12 ends at 4095" in shifted.detail


def test_a_bundle_of_mosaics_knows_what_its_files_hold(takt_here: Takt, raw: Path, tmp_path: Path) -> None:
    geometry = json.loads(takt_here("bundle", "show", raw, "--json").out)["geometry"]
    assert (geometry["pixel_format"], geometry["bit_depth"]) == ("rgb12", 12)
    assert geometry["file_format"] == "bayerrg12"
    assert "64x64 rgb12, 12 bits, from files of bayerrg12" in takt_here("bundle", "show", raw).out
    dull = mosaic(80)
    dull[20:40:2, 20:40:2] = 1600  # the red pixels of a patch: a stain of another colour, no brighter
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "a.png").write_bytes(encode_png(mosaic(79)))
    (frames / "b.png").write_bytes(encode_png(dull))
    found = takt_here("run", raw, frames, "--json", "--overlays", tmp_path / "overlays").lines
    assert [line["verdict"] for line in found] == ["ACCEPT", "REJECT"]
    assert read_image(tmp_path / "overlays" / "a.png").size == (64, 64)
    assert takt_here("calibrate", raw, raw.parent / "good", "--out", tmp_path / "n.takt", *POLICY).code == 0
    evaluated = takt_here("evaluate", raw, frames, "--json")
    assert evaluated.code == 0, evaluated.err


def test_a_folder_of_mosaics_must_be_called_so(takt_here: Takt, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    text = (
        'station = "s"\nrun_dir = "run"\nendpoint = "tcp://127.0.0.1:5999"\n'
        f'[[camera]]\nname = "top"\nbundle = "{raw}"\nsource = "folder:images"\n'
    )
    for stated, code in (("", 2), ('pixel_format = "BayerRG12"\n', 0)):
        (tmp_path / "line.toml").write_text(text + stated)
        found = takt_here("serve", "--config", tmp_path / "line.toml", "--check-config")
        assert found.code == code, found.err
        assert ("camera top: pixel_format is missing" in found.err) == (code == 2)


@pytest.fixture
def line(raw: Path, tmp_path: Path) -> Iterator[Line]:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(encode_png(mosaic(79)))
    common = {"bundle": str(raw), "deadline_ms": 20_000}
    folder = {"name": "folder", "source": f"folder:{images}", "pixel_format": "BayerRG12", **common}
    with serving(tmp_path, folder, {"name": "given", "source": "client", **common}) as line:
        yield line


def test_mosaics_reach_the_service_from_a_folder_and_from_a_client_and_score_as_files_do(
    takt_here: Takt, line: Line, raw: Path, tmp_path: Path
) -> None:
    expected = Inspector.open(raw).inspect_file(tmp_path / "images" / "a.png")
    with Gateway(line.endpoint, name="plc") as gateway:
        of_folder = gateway.inspect(camera="folder").answer
        sent = gateway.inspect(camera="given", frame=Frame(mosaic(79), PixelFormat.BAYER_RG12)).answer
        other = gateway.inspect(camera="given", frame=Frame(mosaic(79), PixelFormat.BAYER_RG10)).answer
    file = ("--frame", tmp_path / "images" / "a.png", "--pixel-format", "BayerRG12", "--deadline-ms", 20_000)
    typed = takt_here("trigger", "--endpoint", line.endpoint, "--camera", "given", *file, "--json").json
    assert typed["score"] == sent.score
    assert of_folder.verdict is sent.verdict is expected.verdict is Verdict.ACCEPT
    assert of_folder.score == pytest.approx(expected.score, rel=1e-5)
    assert sent.score == pytest.approx(expected.score, rel=1e-5)
    assert (other.verdict, other.reason) == (Verdict.ERROR, Reason.BAD_IMAGE)


@pytest.mark.parametrize("size", [(1, 1), (200, 3), (3, 200), (64, 63)])
def test_a_file_of_another_size_is_a_bad_image_and_no_accept(
    takt_here: Takt, twelve: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "x.png").write_bytes(encode_png(np.full(size, 1500, np.uint16)))
    found = takt_here("run", twelve, tmp_path / "x.png", "--json")
    assert found.code == 5
    (line,) = found.lines
    assert (line["verdict"], line["reason"]) == ("ERROR", "BAD_IMAGE")
    assert f"frame is {size[1]}x{size[0]}, the bundle inspects 64x64" in line["detail"]


def test_frames_thinner_than_a_tile_are_inspected(takt_here: Takt, tmp_path: Path) -> None:
    good, frames = tmp_path / "good", tmp_path / "frames"
    good.mkdir()
    frames.mkdir()

    def strip(seed: int) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(100, 120, (3, 200)).astype(np.uint8)

    for seed in range(8):
        (good / f"{seed}.png").write_bytes(encode_png(strip(seed)))
    flags = ("--tile", "64", "--halo", "32", "--backbone", "gabor", "--coreset", "60", "--holdout", "0.5")
    done = takt_here("build", good, "--out", tmp_path / "x.takt", *flags, "--workers", "0", *POLICY)
    assert done.code == 0, done.err
    (frames / "a.png").write_bytes(encode_png(strip(90)))
    bad = strip(91)
    bad[1:3, 150:160] = 255
    (frames / "b.png").write_bytes(encode_png(bad))
    assert [line["verdict"] for line in takt_here("run", tmp_path / "x.takt", frames, "--json").lines] == [
        "ACCEPT",
        "REJECT",
    ]


@pytest.mark.parametrize(
    ("flag", "code", "said"),
    [
        ("Mono12p", 2, "'Mono12p' is no pixel format: Mono, RGB"),
        ("Mono10", 5, "holds 3"),
        ("BayerRG8", 5, "decodes to mono16; bayerrg8, as its pixel format was stated, has one channel of 8 bits"),
        ("RGB12", 5, "decodes to mono16; rgb12, as its pixel format was stated, has three channels of 16 bits"),
    ],
)
def test_a_pixel_format_that_the_files_do_not_have_is_refused_before_anything_is_fitted(
    takt_here: Takt, tmp_path: Path, flag: str, code: int, said: str
) -> None:
    (tmp_path / "good").mkdir()
    for seed in range(4):
        (tmp_path / "good" / f"{seed:02}.png").write_bytes(encode_png(mosaic(seed)))
    found = takt_here("build", tmp_path / "good", "--out", tmp_path / "x.takt", *FLAGS, "--pixel-format", flag)
    assert found.code == code
    assert said in found.err.replace("\n", " ")
    assert not (tmp_path / "x.takt").exists()
