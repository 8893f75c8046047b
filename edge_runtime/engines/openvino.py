"""Runs graphs with OpenVINO on the CPU, at a stated precision."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edge_runtime.engines.contract import GraphOutput, Ports, Precision, TileGraph, check_contract, input_buffers
from edge_runtime.errors import ConfigError, EngineError

_HINTS = {Precision.F32: "f32", Precision.BF16: "bf16"}
_DTYPES = {"u8": np.uint8, "u16": np.uint16, "i32": np.int32, "f32": np.float32}


class OpenVinoEngine:
    """An `Engine` over one compiled model and one infer request."""

    def __init__(self, graph: TileGraph, *, threads: int, cache_dir: Path | None) -> None:
        """Compile the graph; see `open_engine`."""
        try:
            compiled = _compile(graph, threads, cache_dir)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            message = f"OpenVINO cannot load the graph ({_first_line(error)}): verify the bundle, or rebuild it"
            raise EngineError(message) from error
        check_contract("inputs", graph.shape.inputs, _ports(compiled.inputs))
        check_contract("outputs", graph.shape.outputs, _ports(compiled.outputs))
        shape = graph.shape
        self._has_score = shape.image_score
        self._tiles, self._tile_index = input_buffers(shape)
        # a shared tensor holds no reference to its array (openvino issue 36554): both stay attributes
        self._tensors = {"tiles": ov.Tensor(self._tiles, shared_memory=True)}
        if shape.position_bound:
            self._tensors["tile_index"] = ov.Tensor(self._tile_index, shared_memory=True)
        for name, tensor in self._tensors.items():
            self._request.set_tensor(name, tensor)

    @property
    def tiles(self) -> NDArray[Any]:
        """(B, H, W, C) input buffer."""
        return self._tiles

    @property
    def tile_index(self) -> NDArray[np.int32]:
        """(B,) input buffer."""
        return self._tile_index

    def run(self) -> GraphOutput:
        """Run the graph on the buffers."""
        try:
            self._request.infer()
        except RuntimeError as error:
            message = f"OpenVINO failed to run the graph ({_first_line(error)})"
            raise EngineError(message) from error
        scores = self._request.get_tensor("image_score").data.copy() if self._has_score else None
        return GraphOutput(self._request.get_tensor("map").data.copy(), scores)


def to_ir(onnx: bytes) -> tuple[bytes, bytes]:
    """Convert an ONNX graph to OpenVINO IR, weights kept in full precision.

    The core's own ONNX reader is used and not the converter package, which reports to a telemetry service.

    Returns:
        The bytes of the xml and of the bin file.

    Raises:
        EngineError: OpenVINO cannot read the graph.
    """
    import tempfile  # noqa: PLC0415 - only sealing converts

    try:
        model = ov.Core().read_model(model=onnx, weights=b"")
        with tempfile.TemporaryDirectory(prefix="takt-ir-") as folder:
            xml = Path(folder) / "graph.xml"
            ov.save_model(model, xml, compress_to_fp16=False)
            return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
    except RuntimeError as error:
        message = f"OpenVINO cannot read the exported ONNX graph ({_first_line(error)})"
        raise EngineError(message) from error


def _compile(graph: TileGraph, threads: int, cache_dir: Path | None) -> ov.CompiledModel:
    core = ov.Core()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[graph.precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    if cache_dir is not None:
        folder = cache_dir.resolve() / graph.digest
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{folder}: cannot be made ({error.strerror}): give another cache folder, or none"
            raise ConfigError(message) from error
        settings["CACHE_DIR"] = str(folder)
    xml, weights = graph.files
    return core.compile_model(core.read_model(model=bytes(xml), weights=_owned(weights)), "CPU", settings)


def _owned(weights: bytes | memoryview) -> ov.Tensor:
    """A tensor that holds weights for as long as the model needs them: the only copy, where bytes are copied twice."""
    tensor = ov.Tensor(ov.Type.u8, ov.Shape([len(weights)]))
    tensor.data[:] = np.frombuffer(weights, dtype=np.uint8)
    return tensor


def _ports(ports: list[Any]) -> Ports:
    found: Ports = {}
    for port in ports:
        type_name = port.get_element_type().get_type_name()
        shape = port.get_partial_shape()
        sizes = tuple(shape.to_shape()) if shape.is_static else (-1,)
        found[port.get_any_name()] = (sizes, np.dtype(_DTYPES.get(type_name, np.void)))
    return found


def _first_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
