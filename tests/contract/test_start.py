"""What a worker does between its start and the self-test: no engine that is not used, no work that is done already."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.load import open_artefact
from edge_runtime.bundle.store import read_manifest
from edge_runtime.engines import Engine, TileGraph, open_engine
from edge_runtime.inspector import Inspector

ENGINES = ["openvino-f32", "onnxruntime-f32"]

LOADED = """
import json, sys
from edge_runtime.inspector import Inspector
before = sorted({name.partition(".")[0] for name in sys.modules})
Inspector.open(sys.argv[1], artefact=sys.argv[2])
print(json.dumps([before, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(("artefact", "engine"), list(zip(ENGINES, ("openvino", "onnxruntime"), strict=True)))
def test_opening_a_bundle_imports_the_engine_that_runs_it_and_no_other(stub: Path, artefact: str, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, stub, artefact], capture_output=True, text=True, check=True, timeout=120
    )
    before, after = json.loads(done.stdout)
    assert {"openvino", "onnxruntime"} & set(before) == set()
    assert {"openvino", "onnxruntime"} & set(after) == {engine}
    assert {"torch", "onnx", "matplotlib"} & set(after) == set()


def was_cached(inspector: Inspector) -> bool:
    compiled = inspector.scorer.engine._request.get_compiled_model()  # type: ignore[attr-defined]  # noqa: SLF001
    return bool(compiled.get_property("LOADED_FROM_CACHE"))


def test_the_second_start_takes_the_compiled_model_from_the_cache(stub: Path, tmp_path: Path) -> None:
    first, second, without = (Inspector.open(stub, cache_dir=folder) for folder in (tmp_path, tmp_path, None))
    assert [was_cached(inspector) for inspector in (first, second, without)] == [False, True, False]
    pixels = np.full((64, 96), 77, np.uint8)
    assert first.inspect(pixels).score == second.inspect(pixels).score == 77


def graph_of(bundle: Path, name: str) -> tuple[TileGraph, list[bytearray]]:
    """A bundle's graph over memory that a test can spoil."""
    with Archive(bundle) as archive:
        manifest = read_manifest(archive)
        spec = manifest.artefact(name)
        memory = [bytearray(archive.read(file)) for file in spec.graphs[0].files]
    shape = manifest.graph_shape(image_score=manifest.has_image_score)
    graph = TileGraph(engine=spec.engine, precision=spec.precision, shape=shape, files=(), digest="0" * 64)
    return replace(graph, files=tuple(memoryview(part) for part in memory)), memory


def run(engine: Engine) -> NDArray[np.float32]:
    engine.tiles[...] = np.arange(engine.tiles.size, dtype=np.uint32).reshape(engine.tiles.shape) % 251
    return engine.run().map


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_needs_the_bytes_of_its_graph_no_longer_than_it_takes_to_open(small_bundle: Path, name: str) -> None:
    """Else the file that they are mapped from could not be closed, or the process would die in the next inspection."""
    graph, memory = graph_of(small_bundle, name)
    engine = open_engine(graph)
    for view, part in zip(graph.files, memory, strict=True):
        assert isinstance(view, memoryview)
        view.release()
        part[:] = b"\xff" * len(part)
    found = run(engine)
    with Archive(small_bundle) as archive:
        manifest = read_manifest(archive)
        mapped = open_artefact(
            archive, manifest, manifest.artefact(name), manifest.artefact(name).graphs[0], threads=None, cache_dir=None
        )
    assert np.array_equal(found, run(mapped))  # the file is closed by now
    fresh, kept = graph_of(small_bundle, name)
    assert np.array_equal(found, run(open_engine(replace(fresh, files=tuple(bytes(part) for part in kept)))))
    assert np.ptp(found) > 0
