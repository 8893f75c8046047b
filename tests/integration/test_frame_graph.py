"""A bundle with two graphs, built by the command: tiles and whole frames give one map, one verdict, under one threshold."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.line import Line, serving
from support.toys import scramble

from edge_runtime import cli
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import read_manifest
from edge_runtime.decision import Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import PixelFormat, encode_png, read_image
from edge_runtime.inspector import Inspector
from edge_runtime.layout import tile_plan
from trainer.demo.product import write_dataset

WIDTH, HEIGHT = 152, 136  # no multiples of the core, nor of the network's stride
GABOR = ("--backbone", "gabor", "--layers", "layer1,layer2", "--workers", "0", "--holdout", "0.4")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiled") / "flange"
    write_dataset(root, seed=1, train=16, test_good=2, per_defect=1, width=WIDTH, height=HEIGHT)
    return root


def takt(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def manifest_of(bundle: Path) -> Manifest:
    with Archive(bundle) as archive:
        return read_manifest(archive)


@pytest.fixture(scope="module")
def bundle(dataset: Path) -> Path:
    out = dataset.with_name("part.takt")
    built = takt("build", dataset, "--out", out, *GABOR, "--tile", 64, "--coreset", 100, "--frame-graph")
    assert built == 0
    return out


def test_the_halo_is_chosen_recorded_and_exact(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = manifest_of(bundle)

    assert manifest.tiling.halo_kind == "exact"
    assert 0 <= manifest.tiling.seam_error <= 1e-4
    assert 0 < manifest.tiling.halo <= 64
    assert manifest.provenance.config["halo"] == manifest.tiling.halo
    assert takt("bundle", "show", bundle) == 0
    shown = capsys.readouterr().out
    assert f"halo {manifest.tiling.halo}, stride 4; exact, seam error" in shown
    assert f"frame graph: 1 x {WIDTH + 2 * manifest.tiling.halo}x{HEIGHT + 2 * manifest.tiling.halo}" in shown


def test_every_artefact_lists_both_graphs_with_evidence_for_both(bundle: Path) -> None:
    for artefact in manifest_of(bundle).artefacts:
        assert [graph.role for graph in artefact.graphs] == [GraphRole.TILE, GraphRole.FRAME]
        assert artefact.frame is not None
        assert artefact.frame.parity.map_max_abs <= 1e-3 * artefact.frame.parity.map_range
        assert artefact.frame.parity.decision_flips == 0


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_tiles_and_the_whole_frame_give_one_map_and_one_verdict(bundle: Path, dataset: Path, artefact: str) -> None:
    tiled, whole = (Inspector.open(bundle, artefact=artefact, graph=graph) for graph in ("tile", "frame"))
    assert len(tiled.scorer.engine.tiles) > 1
    assert whole.scorer.engine.tiles.shape[0] == 1
    for path in sorted(dataset.rglob("*.png")):
        if "ground_truth" in path.parts:
            continue
        one, other = tiled.inspect_file(path), whole.inspect_file(path)
        assert one.verdict is other.verdict
        assert one.scored is not None
        assert other.scored is not None
        maps = one.scored.regions[0].grid, other.scored.regions[0].grid
        assert np.abs(maps[0] - maps[1]).max() <= 2e-4 * (maps[0].max() - maps[0].min())


def test_run_takes_the_graph_that_it_is_told(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = min((dataset / "test" / "good").iterdir())
    rows: list[dict[str, Any]] = []
    for graph in ("tile", "frame"):
        assert takt("run", bundle, image, "--graph", graph, "--json") == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0]["verdict"] == rows[1]["verdict"]
    assert rows[0]["score"] == pytest.approx(rows[1]["score"], rel=1e-3)


def test_verify_tests_frame_graphs_too(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert takt("bundle", "verify", bundle) == 0
    said = capsys.readouterr().out
    assert "self-test of openvino-f32, frame graph" in said
    assert "self-test of onnxruntime-f32, frame graph" in said


def test_a_station_runs_whole_frames_where_its_file_says_so(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    camera = {"name": "top", "bundle": str(bundle), "source": f"folder:{dataset / 'test' / 'good'}"}
    with serving(tmp_path / "line", camera, graph="frame") as line:
        assert [event["graph"] for event in line.events("bundle_loaded")] == ["frame"]


def test_a_station_of_whole_frames_refuses_a_bundle_of_tiles(
    stub: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = {"name": "top", "bundle": str(stub), "source": f"folder:{dataset / 'test' / 'good'}"}
    line = Line(tmp_path / "line", camera, graph="frame")
    assert takt("serve", "--config", line.config, "--check-config") == 2
    assert "has no frame graph" in capsys.readouterr().err


def test_new_thresholds_serve_both_graphs(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.takt"
    assert takt("calibrate", bundle, dataset, "--out", again, "--policy", "sigma:9") == 0
    for before, after in zip(manifest_of(bundle).artefacts, manifest_of(again).artefacts, strict=True):
        assert after.graphs == before.graphs
        assert after.thresholds != before.thresholds
    assert Inspector.open(again, graph="frame").inspect(scramble(HEIGHT, WIDTH, 3)).scored is not None


def test_a_bundle_without_a_frame_graph_says_so(stub: Path) -> None:
    with pytest.raises(ConfigError, match=r"artefact openvino-f32 has no frame graph: .*--frame-graph"):
        Inspector.open(stub, graph="frame")
    with pytest.raises(ConfigError, match="graph 'whole': there are tile, frame"):
        Inspector.open(stub, graph="whole")


REFUSED = {
    "with --size": (("--size", "64x64"), "--frame-graph belongs to --tile"),
    "one tile": (("--tile", "160"), "one tile of 160x160 holds the whole region"),
    "PaDiM": (("--tile", "64", "--method", "padim"), "padim: keeps statistics for every place"),
    "CFLOW": (("--tile", "64", "--method", "cflow"), "cflow: what it knows of a place is a place in the tile"),
    "no halo": (
        ("--tile", "64", "--halo", "0"),
        r"--frame-graph: tiles and whole frames share thresholds .*--halo \d+ is",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_frame_graph_that_cannot_be_is_refused_before_the_fit(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    flags, message = REFUSED[case]
    assert takt("build", dataset, "--out", tmp_path / "no.takt", *GABOR, *flags, "--frame-graph") == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "no.takt").exists()


def test_an_approximate_halo_is_said_recorded_and_named_with_the_exact_one(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft, out = tmp_path / "part.draft", tmp_path / "part.takt"
    assert takt("fit", dataset, "--out", draft, *GABOR, "--tile", 64, "--halo", 8, "--coreset", 100) == 0
    assert re.search(
        r"seam error \d+ % of the map's range at halo 8; --halo \d+ would be exact", capsys.readouterr().err
    )
    assert takt("seal", draft, dataset, "--out", out, "--frame-graph") == 2
    assert takt("seal", draft, dataset, "--out", out) == 0
    tiling = manifest_of(out).tiling
    assert (tiling.halo, tiling.halo_kind) == (8, "approximate")
    assert tiling.seam_error > 1e-3


def test_padim_keeps_statistics_for_every_tile_and_finds_paint_in_each(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "padim.takt"
    assert takt("build", dataset, "--out", out, *GABOR, "--method", "padim", "--tile", 64, "--policy", "sigma:5") == 0
    manifest = manifest_of(out)
    assert (manifest.tiling.position_bound, manifest.tiling.batch) == (True, 1)
    inspector = Inspector.open(out)
    plan = tile_plan(manifest, manifest.geometry.regions[0])
    for path in sorted((dataset / "test" / "good").iterdir()):
        good = read_image(path).as_format(PixelFormat.RGB8)
        assert inspector.inspect(good).verdict is Verdict.ACCEPT
        for tile in range(plan.count):
            y, x = 64 * (tile // plan.columns) + 2, 64 * (tile % plan.columns) + 2
            spoilt = good.copy()
            spoilt[y : y + 12, x : x + 12] = (255, 0, 255)
            assert inspector.inspect(spoilt).verdict is Verdict.REJECT, tile


def test_on_frames_of_another_size_the_graph_of_whole_frames_is_left_out_and_that_is_said(
    bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = read_image(next(path for path in sorted(dataset.rglob("*.png")) if path.parent.name == "good")).pixels
    for index in range(3):
        path = tmp_path / "large" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(np.roll(np.tile(pixels, (2, 1, 1)), 7 * index, axis=0)))
    frame = f"{pixels.shape[1]}x{2 * pixels.shape[0]}"
    out = tmp_path / "large.takt"

    assert takt("calibrate", bundle, path.parent, "--frame", frame, "--out", out, "--policy", "sigma:3") == 0

    assert f"is left out: build from frames of {frame} for one" in capsys.readouterr().err
    assert {graph.role for spec in manifest_of(out).artefacts for graph in spec.graphs} == {GraphRole.TILE}
