"""Owns the graph contract as the runtime sees it: what goes into a graph, what comes out, and who runs it.

A graph takes `tiles` (B, H, W, C), uint8 or uint16, and for position-bound methods `tile_index` (B,) int32. It gives
`map` (B, h, w) float32 at the feature grid and, where the method has one, `image_score` (B,) float32. Shapes are static.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError, EngineError

Ports: TypeAlias = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]  # shape and type by name


class EngineName(StrEnum):
    """The inference engines of the runtime."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


class Precision(StrEnum):
    """What a graph computes in; always explicit, since engines choose on their own if they may."""

    F32 = "f32"
    BF16 = "bf16"


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphShape:
    """Static shapes and types of a graph's inputs and outputs."""

    batch: int
    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]  # uint8 or uint16
    map_height: int
    map_width: int
    position_bound: bool  # has the input `tile_index`
    image_score: bool  # has the output `image_score`

    @property
    def inputs(self) -> Ports:
        """Shape and type by input name."""
        tiles: Ports = {"tiles": ((self.batch, self.height, self.width, self.channels), self.dtype)}
        index: Ports = {"tile_index": ((self.batch,), np.dtype(np.int32))}
        return tiles | index if self.position_bound else tiles

    @property
    def outputs(self) -> Ports:
        """Shape and type by output name."""
        float32 = np.dtype(np.float32)
        maps: Ports = {"map": ((self.batch, self.map_height, self.map_width), float32)}
        score: Ports = {"image_score": ((self.batch,), float32)}
        return maps | score if self.image_score else maps


@dataclass(frozen=True, kw_only=True, slots=True)
class TileGraph:
    """One graph's bytes and what they must look like.

    `files` is (onnx,) for ONNX Runtime and (xml, bin) for OpenVINO; views must last until the engine is open, no longer.
    """

    engine: EngineName
    precision: Precision
    shape: GraphShape
    files: tuple[bytes | memoryview, ...]
    digest: str  # names the compiled-model cache


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """What one run of a graph gave; the arrays are the caller's to keep."""

    map: NDArray[np.float32]  # (B, h, w)
    image_score: NDArray[np.float32] | None  # (B,)


class Engine(Protocol):
    """Runs one graph on buffers that live as long as the engine does."""

    @property
    def tiles(self) -> NDArray[Any]:
        """(B, H, W, C) input buffer: write here, then call `run`."""

    @property
    def tile_index(self) -> NDArray[np.int32]:
        """(B,) input buffer; a graph that is not position-bound ignores it."""

    def run(self) -> GraphOutput:
        """Run the graph on the buffers.

        Raises:
            EngineError: the engine failed.
        """


def open_engine(graph: TileGraph, *, threads: int | None = None, cache_dir: Path | None = None) -> Engine:
    """Compile a graph and check its inputs and outputs against the contract.

    Args:
        graph: bytes, shapes, engine and precision.
        threads: CPU threads of one inference; all that this process may use when None.
        cache_dir: folder for compiled models, a subfolder by digest; nothing is written when None.

    Raises:
        EngineError: the engine cannot load the graph, or the graph breaks the contract.
        ConfigError: `threads` is negative, or the cache folder cannot be made.
    """
    if threads is not None and threads < 0:
        message = f"threads {threads}: give 1 or more"
        raise ConfigError(message)
    files = 2 if graph.engine is EngineName.OPENVINO else 1
    if len(graph.files) != files:
        message = f"a graph for {graph.engine} is {files} file(s), found {len(graph.files)}: rebuild the bundle"
        raise EngineError(message)
    count = (
        threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count() or 1
    )
    if graph.engine is EngineName.OPENVINO:
        from edge_runtime.engines.openvino import OpenVinoEngine  # noqa: PLC0415 - loading an engine unused costs a second

        return OpenVinoEngine(graph, threads=count, cache_dir=cache_dir)
    from edge_runtime.engines.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415

    if graph.precision is not Precision.F32:
        message = f"ONNX Runtime runs f32 graphs here, not {graph.precision}: choose an OpenVINO artefact"
        raise EngineError(message)
    return OnnxRuntimeEngine(graph, threads=count)


def input_buffers(shape: GraphShape) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The fixed input buffers of an engine: `tiles` (B, H, W, C) and `tile_index` (B,), zeroed."""
    tiles = np.zeros((shape.batch, shape.height, shape.width, shape.channels), dtype=shape.dtype)
    return tiles, np.zeros(shape.batch, dtype=np.int32)


def check_contract(
    kind: str,
    expected: Ports,
    found: Ports,
) -> None:
    """Compare a graph's inputs or outputs with the manifest's.

    Raises:
        EngineError: a name, a shape or a type differs.
    """
    if expected != found:
        show = {name: f"{dtype}{list(shape)}" for name, (shape, dtype) in found.items()}
        want = {name: f"{dtype}{list(shape)}" for name, (shape, dtype) in expected.items()}
        message = f"graph {kind} are {show}, the manifest says {want}: the bundle was put together wrongly, rebuild it"
        raise EngineError(message)
