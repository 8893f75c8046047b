"""Engines: they agree, compute in the precision that was asked for, and keep to their buffers and folders."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.store import read_manifest
from edge_runtime.engines import Engine, EngineName, Precision, TileGraph, open_engine
from edge_runtime.errors import ConfigError, EngineError
from edge_runtime.imaging.frames import decode_png

Members = dict[str, bytes]


ENGINES = ["openvino-f32", "onnxruntime-f32"]
FLOATING = {"f32", "f16", "bf16"}


@pytest.fixture(scope="session")
def graphs(small_bundle: Path) -> dict[str, TileGraph]:
    """The graphs of the small bundle, as `load` hands them to the engines."""
    with Archive(small_bundle) as archive:
        manifest = read_manifest(archive)
        return {spec.name: _graph(archive, manifest, spec.name) for spec in manifest.artefacts}


def _graph(archive: Archive, manifest: Manifest, name: str) -> TileGraph:
    spec = manifest.artefact(name)
    return TileGraph(
        engine=spec.engine,
        precision=spec.precision,
        shape=manifest.graph_shape(image_score=manifest.has_image_score),
        files=tuple(archive.read(file) for file in spec.graphs[0].files),
        digest="0" * 64,
    )


@pytest.fixture(scope="session")
def frames(small_members: Members, graphs: dict[str, TileGraph]) -> list[np.ndarray[Any, Any]]:
    """Golden frames and noise, (H, W, C) as the graph takes them."""
    rng = np.random.default_rng(0)
    golden = [decode_png(small_members[name], name).pixels[:, :, ::-1] for name in ("golden/0.png", "golden/1.png")]
    shape = graphs[ENGINES[0]].shape
    return [*golden, rng.integers(0, 256, (shape.height, shape.width, shape.channels), np.uint8)]


def run(engine: Engine, frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    engine.tiles[0] = frame
    return engine.run().map


def test_both_engines_compute_the_same_maps(graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]]) -> None:
    openvino, onnxruntime = (open_engine(graphs[name]) for name in ENGINES)
    for frame in frames:
        one, two = run(openvino, frame), run(onnxruntime, frame)
        assert one.shape == two.shape == (1, 12, 12)
        assert one.dtype == two.dtype == np.float32
        assert np.ptp(one) > 0
        assert np.abs(one - two).max() <= 1e-5 * np.ptp(one)


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_frame_gives_the_same_map_whatever_was_run_before(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]], name: str
) -> None:
    engine = open_engine(graphs[name])
    first = run(engine, frames[0])
    run(engine, frames[2])
    assert np.array_equal(run(engine, frames[0]), first)
    one_thread = run(open_engine(graphs[name], threads=1), frames[0])
    assert np.abs(one_thread - first).max() <= 1e-5 * np.ptp(first)


@pytest.mark.parametrize("name", ENGINES)
def test_the_input_buffers_stay_the_same_objects_and_are_what_is_run(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]], name: str
) -> None:
    engine = open_engine(graphs[name])
    tiles, index, address = engine.tiles, engine.tile_index, engine.tiles.ctypes.data
    assert (tiles.shape, tiles.dtype) == ((1, 96, 96, 3), np.uint8)
    assert (index.shape, index.dtype) == ((1,), np.int32)
    maps = []
    for frame in frames:
        tiles[0] = frame  # into the buffer that was handed out at first
        maps.append(engine.run().map)
        assert engine.tiles is tiles
        assert engine.tile_index is index
        assert engine.tiles.ctypes.data == address
        assert np.array_equal(tiles[0], frame)
    assert not np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[1], maps[2])


@pytest.mark.parametrize("name", ENGINES)
def test_an_output_is_the_callers_to_keep(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]], name: str
) -> None:
    engine = open_engine(graphs[name])
    first = run(engine, frames[0])
    kept = first.copy()
    second = run(engine, frames[2])
    assert not np.shares_memory(first, second)
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    second[:] = np.nan  # nor does a caller's hand reach into the engine
    assert np.array_equal(run(engine, frames[0]), kept)
    del engine
    assert np.array_equal(first, kept)


def _compiled(engine: Engine) -> ov.CompiledModel:
    request = engine._request  # type: ignore[attr-defined]  # noqa: SLF001 - what was compiled is no one's business but this test's
    return request.get_compiled_model()


def _floating_precisions(compiled: ov.CompiledModel) -> set[str]:
    """What the layers of the graph as compiled compute in, of the floating types."""
    nodes = compiled.get_runtime_model().get_ops()
    return {node.get_rt_info()["runtimePrecision"].astype(str) for node in nodes} & FLOATING


def _picks_bf16(graph: TileGraph) -> bool:
    """Whether OpenVINO would compute in bf16 on this CPU if it were not told otherwise."""
    core = ov.Core()
    compiled = core.compile_model(core.read_model(model=graph.files[0], weights=graph.files[1]), "CPU")
    return "bf16" in _floating_precisions(compiled)


def test_f32_is_f32_also_on_a_cpu_that_would_choose_bf16(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]]
) -> None:
    graph = graphs["openvino-f32"]
    compiled = _compiled(open_engine(graph))
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
    assert _floating_precisions(compiled) == {"f32"}
    if _picks_bf16(graph):  # there the hint is also seen in the figures
        exact, coarse = (run(open_engine(replace(graph, precision=p)), frames[1]) for p in Precision)
        assert np.abs(exact - coarse).max() > 1e-4 * np.ptp(exact)


def test_bf16_is_bf16_where_it_is_asked_for(graphs: dict[str, TileGraph]) -> None:
    graph = replace(graphs["openvino-f32"], precision=Precision.BF16)
    compiled = _compiled(open_engine(graph))
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16
    if _picks_bf16(graph):
        assert "bf16" in _floating_precisions(compiled)


def test_onnx_runtime_refuses_a_precision_that_it_would_not_compute_in(graphs: dict[str, TileGraph]) -> None:
    with pytest.raises(EngineError, match="runs f32 graphs here, not bf16"):
        open_engine(replace(graphs["onnxruntime-f32"], precision=Precision.BF16))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_what_was_asked_for(graphs: dict[str, TileGraph], threads: int) -> None:
    compiled = _compiled(open_engine(graphs["openvino-f32"], threads=threads))
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    session = open_engine(graphs["onnxruntime-f32"], threads=threads)._session  # type: ignore[attr-defined]  # noqa: SLF001
    assert session.get_session_options().intra_op_num_threads == threads


@pytest.mark.parametrize("name", ENGINES)
def test_a_negative_number_of_threads_is_a_config_error(graphs: dict[str, TileGraph], name: str) -> None:
    with pytest.raises(ConfigError, match="threads -1"):
        open_engine(graphs[name], threads=-1)


@pytest.mark.parametrize("garbage", [b"", b"x", b"\xff\xfe\x00\x80", bytes(1000), b"<net>", b"/etc/passwd"])
@pytest.mark.parametrize("name", ENGINES)
def test_bytes_that_are_no_graph_are_an_engine_error(graphs: dict[str, TileGraph], name: str, garbage: bytes) -> None:
    graph = graphs[name]
    with pytest.raises(EngineError, match="cannot load the graph"):
        open_engine(replace(graph, files=(garbage, *graph.files[1:])))


@pytest.mark.parametrize("name", ENGINES)
def test_a_graph_cut_short_is_an_engine_error(graphs: dict[str, TileGraph], name: str) -> None:
    graph = graphs[name]
    for cut in (1, 100, len(graph.files[0]) // 2, len(graph.files[0]) - 10):
        with pytest.raises(EngineError):
            open_engine(replace(graph, files=(graph.files[0][:cut], *graph.files[1:])))


def test_weights_cut_short_are_an_engine_error(graphs: dict[str, TileGraph]) -> None:
    xml, weights = graphs["openvino-f32"].files
    for cut in (0, 1, len(weights) // 2, len(weights) - 64):
        with pytest.raises(EngineError):
            open_engine(replace(graphs["openvino-f32"], files=(xml, weights[:cut])))


@pytest.mark.parametrize("name", ENGINES)
def test_another_number_of_files_than_the_engine_takes_is_an_engine_error(
    graphs: dict[str, TileGraph], name: str
) -> None:
    for files in ((), (b"a", b"b", b"c")):
        with pytest.raises(EngineError, match=f"found {len(files)}"):
            open_engine(replace(graphs[name], files=files))


def test_a_graph_handed_to_the_other_engine_is_an_engine_error(graphs: dict[str, TileGraph]) -> None:
    for name, other in zip(ENGINES, (EngineName.ONNXRUNTIME, EngineName.OPENVINO), strict=True):
        with pytest.raises(EngineError):
            open_engine(replace(graphs[name], engine=other))


def test_the_cache_is_written_only_below_the_given_folder_and_the_graphs_digest(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    graph = graphs["openvino-f32"]
    for cache in (tmp_path / "cache", Path("relative")):  # a relative folder is made absolute at once
        first = run(open_engine(graph, cache_dir=cache), frames[0])
        folder = cache.absolute() / graph.digest
        blobs = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        assert blobs, "nothing was cached"
        assert [path.name for path in cache.iterdir()] == [graph.digest]
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert np.array_equal(run(open_engine(graph, cache_dir=folder.parent), frames[0]), first)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == blobs  # it was used
        assert list((tmp_path / "elsewhere").iterdir()) == []
        monkeypatch.chdir(tmp_path / "work")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "elsewhere", "work"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["relative"]


def test_a_damaged_cache_gives_the_right_map_or_an_engine_error(
    graphs: dict[str, TileGraph], frames: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    graph = graphs["openvino-f32"]
    first = run(open_engine(graph, cache_dir=tmp_path), frames[0])
    for blob in (path for path in tmp_path.rglob("*") if path.is_file()):
        blob.write_bytes(b"garbage" * 100)
    try:
        engine = open_engine(graph, cache_dir=tmp_path)
    except EngineError:
        return
    assert np.array_equal(run(engine, frames[0]), first)


def test_a_cache_folder_that_cannot_be_made_is_a_config_error(graphs: dict[str, TileGraph], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ConfigError, match="give another cache folder") as caught:
        open_engine(graphs["openvino-f32"], cache_dir=tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_nothing_is_written_anywhere_without_a_cache_folder(
    small_bundle: Path, one_image: Path, tmp_path: Path
) -> None:
    """Home, temporary and working folder are empty before and after both engines ran, in a process of their own."""
    folders = {name: tmp_path / name for name in ("home", "tmp", "work")}
    for folder in folders.values():
        folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from edge_runtime import Inspector\n"
        "for name in ('openvino-f32', 'onnxruntime-f32'):\n"
        "    print(Inspector.open(sys.argv[1], artefact=name).inspect_file(Path(sys.argv[2])).verdict)"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, small_bundle, one_image],
        cwd=folders["work"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ACCEPT", "ACCEPT"]
    assert done.stderr == ""
    assert sorted(path for path in tmp_path.rglob("*") if path not in folders.values()) == []
