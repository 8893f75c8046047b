"""The report: what it states, what it shows, that it needs nothing else, and that no file name harms it."""

import base64
import csv
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.evaluation import Evaluation, evaluate
from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.rates import rate
from calibration.report import render, write_report
from calibration.report.pictures import LONG_SIDE_PX, thumbnail
from calibration.report.plots import plots
from calibration.report.wording import RateName, percent, rate_words, readable
from edge_runtime.bundle.manifest import ArtefactSpec, ParityEvidence, RegionThresholds
from edge_runtime.bundle.recipe import (
    CropSpec,
    GeometrySpec,
    GraphRole,
    GraphSpec,
    ImageScoreRule,
    MapPolicySpec,
    ProvenanceSpec,
    Recipe,
    RegionSpec,
    SizeSpec,
    SplitsSpec,
    TilingSpec,
)
from edge_runtime.engines import EngineName, GraphOutput, Precision
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.inspector import Inspector
from edge_runtime.scorer import Scorer

WIDTH, HEIGHT, STRIDE = 64, 48, 8
REVIEW, REJECT = 90.0, 100.0
SICK = 255  # grey value at which the engine's map is not finite
CONFORMAL = "at most 0.05 of good parts are rejected"


class Brightness:
    """An engine whose map is the mean grey value of each cell."""

    def __init__(self, width: int) -> None:
        """Make buffers for one mono tile of a width."""
        self.tiles = np.zeros((1, HEIGHT, width, 1), np.uint8)
        self.tile_index = np.zeros(1, np.int32)

    def run(self) -> GraphOutput:
        """Average each cell."""
        cells = self.tiles[0, :, :, 0].reshape(HEIGHT // STRIDE, STRIDE, -1, STRIDE).astype(np.float32)
        means = cells.mean(axis=(1, 3))
        return GraphOutput(np.where(means < SICK, means, np.nan)[np.newaxis], None)


def recipe(regions: tuple[RegionSpec, ...], core: int) -> Recipe:
    """A recipe for mono frames of one size."""
    return Recipe(
        product="Washer <M8>",
        takt_version="0.1.0",
        created="2025-11-20T09:00:00Z",
        geometry=GeometrySpec(
            pixel_format=PixelFormat.MONO8,
            bit_depth=8,
            frame=SizeSpec(width=WIDTH, height=HEIGHT),
            regions=regions,
            resize_version=RESIZE_VERSION,
            demosaic_version=DEMOSAIC_VERSION,
        ),
        tiling=TilingSpec(
            core=SizeSpec(width=core, height=HEIGHT),
            halo=0,
            stride=STRIDE,
            offset=3.5,
            batch=1,
            position_bound=False,
            halo_kind="exact",
            seam_error=0.0,
        ),
        map_policy=MapPolicySpec(upsampling="bilinear", sigma=0.0, image_score=ImageScoreRule.MAX_RAW),
        provenance=ProvenanceSpec(
            method="patchcore",
            backbone="resnet18.tv_in1k",
            dataset="washers",
            dataset_fingerprint="0" * 64,
            splits=SplitsSpec(fit=(), validation=(), calibration=()),
            seed=0,
            packages={},
            config={},
            fit_seconds=1.0,
            peak_memory_mb=1.0,
        ),
    )


def inspector(*names: str, guarantee: str = CONFORMAL, review: float | None = REVIEW) -> Inspector:
    """A bundle that judges brightness, in side-by-side regions of the given names."""
    names = names or ("frame",)
    width = WIDTH // len(names)
    regions = tuple(
        RegionSpec(
            name=name,
            crop=CropSpec(x1=i * width, y1=0, x2=(i + 1) * width, y2=HEIGHT),
            plane=SizeSpec(width=width, height=HEIGHT),
        )
        for i, name in enumerate(names)
    )
    thresholds = RegionThresholds(
        reject=REJECT,
        review=review,
        pixel=REJECT,
        policy="sigma:3" if guarantee == "none" else "conformal:0.05",
        guarantee=guarantee,
        n_good=31,
        n_defective=0,
        display_low=0.0,
        display_high=200.0,
    )
    artefact = ArtefactSpec(
        name="openvino-f32",
        engine=EngineName.OPENVINO,
        precision=Precision.F32,
        graphs=(GraphSpec(role=GraphRole.TILE, batch=1, height=HEIGHT, width=WIDTH, files=("graph.xml", "graph.bin")),),
        frame=None,
        parity=ParityEvidence(
            frames=16,
            kinds={"good": 8, "painted": 8},
            map_range=200.0,
            map_max_abs=0.02,
            score_range=50.0,
            score_max_abs=0.01,
            tolerance=1e-3,
            worst="train/good/<worst>.png",
            decision_flips=1,
            flip_limit=2,
            near_threshold=("train/good/near & far.png",),
        ),
        thresholds=dict.fromkeys(names, thresholds),
        scores="calibration/openvino-f32.json",
        parity_scores="calibration/openvino-f32-parity.json",
        latency_ms=12.5,
    )
    scorer = Scorer(recipe(regions, width), Brightness(width), valid_areas={})
    return Inspector(scorer, artefact, "abcdef0123456789" * 4)


class Tree:
    """An MVTec tree of grey images with a brighter spot."""

    def __init__(self, root: Path) -> None:
        """Start with two good images for training."""
        self.root = root
        self._made = 0
        for i in range(2):
            self.add(f"train/good/{i}.png", 40)

    def add(self, name: str, peak: int, *, mask: bool = False, cell: int = 3) -> Path:
        """Write an image whose score is `peak`, and perhaps its mask."""
        picture: NDArray[np.uint8] = np.full((HEIGHT, WIDTH), 20, np.uint8)
        self._made += 1
        picture.flat[: self._made] = 21  # no two images have the same content
        spot = (slice(2 * STRIDE, 3 * STRIDE), slice(cell * STRIDE, (cell + 1) * STRIDE))
        picture[spot] = peak
        path = self.root / name
        _write(path, picture)
        if mask:
            drawn = np.zeros_like(picture)
            drawn[spot] = 255
            _write(self.root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png", drawn)
        return path

    def judged_by(self, bundle: Inspector, policy: str | None = None) -> Evaluation:
        """What the bundle makes of the tree."""
        return evaluate(bundle, open_dataset(self.root), policy=None if policy is None else parse_policy(policy))


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Every kind of judgement, some more than once."""
    made = Tree(tmp_path / "washers")
    for name, peak in [("calm", 40), ("bright", 80), ("review", 95), ("hot", 130), ("hotter", 150)]:
        made.add(f"test/good/{name}.png", peak)
    for name, peak in [("faint", 50), ("fainter", 45), ("plain", 180), ("close", 110)]:
        made.add(f"test/spot/{name}.png", peak, mask=True)
    made.add("test/unknown/who.png", 60)
    return made


class Page(HTMLParser):
    """A page taken apart: text and pictures by section, every attribute."""

    def __init__(self, html: str) -> None:
        """Take the whole page apart."""
        super().__init__()
        self.text: defaultdict[str, str] = defaultdict(str)
        self.pictures: defaultdict[str, list[str]] = defaultdict(list)
        self.tags: defaultdict[str, int] = defaultdict(int)
        self.attributes: list[tuple[str, str]] = []
        self._section = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, its attributes and its section."""
        self.tags[tag] += 1
        found = {name: value or "" for name, value in attrs}
        self.attributes += found.items()
        if tag == "section":
            self._section = found.get("id", found.get("class", ""))
        if tag == "img":
            self.pictures[self._section].append(found["alt"])

    def handle_data(self, data: str) -> None:
        """Note text under its section."""
        self.text[self._section] += f" {data.strip()}" if data.strip() else ""


def report(bundle: Inspector, tree: Tree, *, only_wrong: bool = False) -> Page:
    return Page(render(tree.judged_by(bundle), bundle, only_wrong=only_wrong))


def test_each_gallery_shows_its_images_hardest_first(tree: Tree) -> None:
    page = report(inspector(), tree)
    assert page.pictures["escapes"][::2] == ["original of test/spot/fainter.png", "original of test/spot/faint.png"]
    assert page.pictures["escapes"][1] == "heatmap over test/spot/fainter.png"
    names = ["hotter", "hot", "review"]
    assert page.pictures["false-rejects"][::2] == [f"original of test/good/{name}.png" for name in names]
    assert page.pictures["true-rejects"][::2] == [f"original of test/spot/{name}.png" for name in ("close", "plain")]
    assert page.pictures["true-accepts"][::2] == [f"original of test/good/{name}.png" for name in ("bright", "calm")]
    assert list(page.pictures)[-4:] == ["escapes", "false-rejects", "true-rejects", "true-accepts"]


def test_only_wrong_leaves_out_what_was_judged_rightly(tree: Tree) -> None:
    page = report(inspector(), tree, only_wrong=True)
    assert page.pictures["escapes"]
    assert page.pictures["false-rejects"]
    assert "true-rejects" not in page.text
    assert "true-accepts" not in page.text
    assert "test/good/calm.png" in page.text["images"]


def test_a_long_gallery_says_how_many_it_shows(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    for i in range(26):
        made.add(f"test/good/bad{i}.png", 120 + i)
    for i in range(14):
        made.add(f"test/good/fine{i}.png", 40 + i)
    page = report(inspector(), made)
    assert "showing 24 of 26" in page.text["false-rejects"]
    assert "showing 12 of 14" in page.text["true-accepts"]
    assert len(page.pictures["false-rejects"]) == 48
    assert page.pictures["true-accepts"][0] == "original of test/good/fine13.png"


def test_rates_are_told_in_words_with_their_intervals(tree: Tree) -> None:
    text = report(inspector(), tree).text["verdicts"]
    assert "2 of 4 defective parts accepted: 50.0 %, 95 % interval 6.8-93.2 %" in text
    assert "2 of 5 good parts rejected: 40.0 %, 95 % interval 5.3-85.3 %" in text
    assert "1 of 9 parts sent to review: 11.1 %" in text


def test_the_confusion_table_counts_every_label(tree: Tree) -> None:
    text = report(inspector(), tree).text["verdicts"]
    assert "good 2 1 2 false rejects 0 5" in text
    assert "defective 2 escapes 0 2 0 4" in text
    assert "unknown 1 0 0 0 1" in text


def test_headline_threshold_and_parity_come_from_the_bundle(tree: Tree) -> None:
    page = report(inspector(), tree)
    head = page.text[""]
    for fact in ("Washer <M8>", "patchcore", "openvino-f32", "washers", "abcdef012345", "2025-11-20T09:00:00Z"):
        assert fact in head
    assert "abcdef0123456" not in head
    for fact in ("100", "90", "conformal:0.05", CONFORMAL, "31 good images, 0 defective images"):
        assert fact in page.text["threshold"]
    for fact in (
        "8 good, 8 painted",
        "0.0001 of the range 200; allowed 0.001",
        "0.0002 of the range 50; allowed 0.001",
        "Decision flips 1 at most 2 allowed",
        "train/good/<worst>.png",
        "train/good/near & far.png",
    ):
        assert fact in page.text["parity"]


def test_seams_are_a_warning_with_their_size_and_tiles_a_fact(tree: Tree) -> None:
    sealed = inspector()
    whole = sealed.scorer.recipe
    tiling = recipe(whole.geometry.regions, WIDTH // 2).tiling.model_copy(
        update={"halo_kind": "approximate", "seam_error": 0.153}
    )
    cut = whole.model_copy(update={"tiling": tiling})
    bundle = Inspector(Scorer(cut, Brightness(WIDTH // 2), valid_areas={}), sealed.artefact, sealed.digest)
    page = report(bundle, tree)
    assert "off by up to 0.15 of its range" in page.text["warnings"]
    assert "2 of 32x48 halo 0 px, approximate: seam error 0.2 of the map's range" in page.text[""]
    assert "Tiles" not in report(sealed, tree).text[""]


def test_a_missing_guarantee_is_a_warning(tree: Tree) -> None:
    assert "Guarantee: none" in report(inspector(guarantee="none"), tree).text["warnings"]
    assert "warnings" not in report(inspector(), tree).text


def test_another_policy_is_shown_beside_the_threshold(tree: Tree) -> None:
    bundle = inspector()
    page = Page(render(tree.judged_by(bundle, "f1"), bundle))
    assert "Policy f1 would set 42.5 on the images of this report." in page.text["threshold"]


def test_the_page_needs_no_network_and_no_other_file(tree: Tree) -> None:
    bundle = inspector()
    html = render(tree.judged_by(bundle), bundle)
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert all(value.startswith("data:") for name, value in page.attributes if name in {"src", "srcset", "data"})
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert {"link", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert ("content", "default-src 'none'") in [(name, value.partition(";")[0]) for name, value in page.attributes]


def test_a_hostile_file_name_stays_text(tree: Tree) -> None:
    tree.add("test/<script>alert(1)</script>.png", 50)  # a folder, and a file in it
    tree.add('test/good/"><img src=x onerror=alert(2)>.png', 150)
    bundle = inspector()
    html = render(tree.judged_by(bundle), bundle)
    hostile = Page(html)
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in html
    assert "test/<script>alert(1)</script>.png" in hostile.text["escapes"]
    assert hostile.tags["script"] == 1  # our own
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]


@pytest.mark.parametrize("name", ["\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe", "two\nlines", os.fsdecode(b"caf\xe9")])
def test_a_name_that_does_not_print_is_spelled_out(name: str) -> None:
    assert readable(name).isprintable()
    assert readable(name) != name


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_a_file_name_that_is_not_utf_8_is_reported(tree: Tree, tmp_path: Path) -> None:
    tree.add(f"test/spot/{os.fsdecode(b'caf')}\udce9.png", 50)
    bundle = inspector()
    index = write_report(tree.judged_by(bundle), bundle, tmp_path / "out")
    assert r"caf\udce9.png" in index.read_text(encoding="utf-8")
    assert r"caf\udce9.png" in (tmp_path / "out" / "images.csv").read_text(encoding="utf-8")


def test_a_set_without_defects_gives_dashes_and_reasons(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    made.add("test/good/calm.png", 50)
    made.add("test/good/hot.png", 150)
    page = report(inspector(), made)
    assert "not measured: the data set has no defective part" in page.text["verdicts"]
    assert "No defective parts" in page.text["warnings"]
    assert "Image AUROC - no defective images" in page.text["figures"]
    assert "AUPRO - no defective images" in page.text["figures"]
    assert len(page.pictures["figures"]) == 1  # no curves
    assert not page.pictures["escapes"]


def test_a_set_of_defects_alone_is_reported(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    made.add("test/spot/plain.png", 150, mask=True)
    page = report(inspector(), made)
    assert "not measured: the data set has no good part" in page.text["verdicts"]
    assert "Image AUROC - no good images" in page.text["figures"]


def test_a_set_of_unknown_parts_alone_is_reported(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    made.add("test/unknown/who.png", 150)
    page = report(inspector(), made)
    assert not page.pictures["figures"]
    assert "not measured: the data set has no part" in page.text["verdicts"]


def test_a_set_without_masks_gives_dashes_for_pixels_alone(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    made.add("test/good/calm.png", 50)
    made.add("test/spot/plain.png", 150)
    page = report(inspector(), made)
    assert "Image AUROC 1.0000" in page.text["figures"]
    assert "Pixel AUROC - no masks" in page.text["figures"]
    assert "Unmasked images 1" in page.text["figures"]
    assert len(page.pictures["figures"]) == 3


def test_an_image_that_vanished_is_shown_as_unavailable(tree: Tree) -> None:
    bundle = inspector()
    found = tree.judged_by(bundle)
    (tree.root / "test/spot/faint.png").unlink()
    tree.add("test/spot/fainter.png", 200)
    (tree.root / "ground_truth/spot/plain_mask.png").unlink()
    page = Page(render(found, bundle))
    assert not page.pictures["escapes"]
    assert "The file is gone" in page.text["escapes"]
    assert "The file has changed since it was judged." in page.text["escapes"]
    assert "Its mask is gone" in page.text["true-rejects"]
    assert "original of test/spot/plain.png" in page.pictures["true-rejects"]


def test_an_image_in_error_is_a_false_reject_without_a_heatmap(tree: Tree) -> None:
    tree.add("test/good/sick.png", SICK)
    page = report(inspector(), tree)
    assert page.pictures["false-rejects"][0] == "original of test/good/sick.png"
    assert "heatmap over test/good/sick.png" not in page.pictures["false-rejects"]
    assert "ERROR NOT_FINITE" in page.text["false-rejects"]
    assert "1 image got no score" in page.text["warnings"]
    assert "3 of 6 good parts rejected or in error" in page.text["verdicts"]


def test_several_regions_are_told_apart(tree: Tree, tmp_path: Path) -> None:
    tree.add("test/spot/right.png", 150, mask=True, cell=6)
    bundle = inspector("left", "right", guarantee="none")
    found = tree.judged_by(bundle)
    page = Page(render(found, bundle))
    assert "of left, right" in page.text["warnings"]
    assert "region right" in page.text["true-rejects"]
    assert "normalised" in page.text["images"].lower()
    rows = _rows(write_report(found, bundle, tmp_path / "out"))
    right = next(row for row in rows if row["path"] == "test/spot/right.png")
    assert (right["region"], float(right["score_left"]), float(right["score_right"])) == ("right", 20.125, 150)


def _rows(index: Path) -> list[dict[str, str]]:
    with index.with_name("images.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_table_has_one_row_an_image_with_exact_scores(tree: Tree, tmp_path: Path) -> None:
    bundle = inspector()
    found = tree.judged_by(bundle)
    index = write_report(found, bundle, tmp_path / "deep" / "out")
    rows = _rows(index)
    assert index == tmp_path / "deep" / "out" / "index.html"
    assert [row["path"] for row in rows] == [item.sample.name for item in found.judged]
    assert [float(row["score"]) for row in rows] == [item.inspection.score for item in found.judged]
    hot = next(row for row in rows if row["path"] == "test/good/hot.png")
    assert hot | {"total_ms": "", "digest": ""} == {
        "path": "test/good/hot.png",
        "label": "good",
        "folder": "test/good",
        "verdict": "REJECT",
        "reason": "",
        "region": "frame",
        "score": "130.0",
        "threshold": "100.0",
        "score_normalized": "130.0",
        "listed_regions": "1",
        "total_ms": "",
        "digest": "",
    }


def test_a_file_name_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    made.add("=folder/=1+1.png", 50)
    bundle = inspector()
    found = evaluate(bundle, open_dataset(tmp_path / "=folder"))
    assert _rows(write_report(found, bundle, tmp_path / "out"))[0]["path"] == "./=1+1.png"


def _file_in_the_way(folder: Path) -> None:
    folder.write_bytes(b"")


def _folder_for_a_page(folder: Path) -> None:
    (folder / "index.html").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [_file_in_the_way, _folder_for_a_page])
def test_a_folder_that_cannot_be_written_is_named(tree: Tree, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder, bundle = tmp_path / "out", inspector()
    spoil(folder)
    with pytest.raises(ConfigError, match=f"{re.escape(str(folder))}.*cannot be written.*give a folder"):
        write_report(tree.judged_by(bundle), bundle, folder)
    assert not list(tmp_path.glob("out/.*"))  # no half-written file stays


def test_without_the_extra_the_report_says_how_to_get_it(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = inspector()
    found = tree.judged_by(bundle)
    for name in [name for name in sys.modules if name.startswith(("calibration.report.p", "calibration.report.s"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"takt-inspect\[calibration\]"):
        render(found, bundle)


def test_the_same_evaluation_gives_the_same_page(tree: Tree) -> None:
    bundle = inspector()
    found = tree.judged_by(bundle)
    assert render(found, bundle) == render(found, bundle)


@pytest.mark.parametrize("threshold", [-1e9, 0.0, 60.0, 1e9])
def test_the_histogram_can_be_drawn_wherever_the_threshold_lies(tree: Tree, threshold: float) -> None:
    bundle = inspector()
    drawn = plots(replace(tree.judged_by(bundle), thresholds={"frame": threshold}), bundle)
    assert [plot.picture.partition(",")[0] for plot in drawn] == ["data:image/svg+xml;base64"] * 3


def test_pictures_are_shrunk_and_the_mask_is_outlined() -> None:
    picture = np.full((900, 1200, 3), 128, np.uint8)
    mask = np.zeros((900, 1200), np.bool_)
    mask[400:402, 600:602] = True  # smaller than a pixel of the thumbnail
    plain, outlined = _decoded(thumbnail(picture)), _decoded(thumbnail(picture, mask=mask))
    assert plain.shape == (240, LONG_SIDE_PX, 3)
    assert np.abs(outlined.astype(int) - plain).max() > 60
    assert _decoded(thumbnail(picture[:30, :40])).shape == (30, 40, 3)


def _decoded(address: str) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0.0"), (1.0, "100.0"), (0.05, "5.0"), (0.0001, "0.01"), (0.99996, "99.996")]
)
def test_a_share_reads_0_or_100_percent_only_where_it_is(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_rate_of_one_part_is_in_the_singular() -> None:
    found = rate(1, 1)
    assert found is not None
    name = RateName(title="", of="good part", what="rejected", meaning="", tone="warn")
    assert rate_words(found, name).startswith("1 of 1 good part rejected: 100.0 %")
