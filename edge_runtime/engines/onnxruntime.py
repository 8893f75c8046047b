"""Runs graphs with ONNX Runtime on the CPU."""

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_runtime.engines.contract import GraphOutput, Ports, TileGraph, check_contract, input_buffers
from edge_runtime.errors import EngineError

_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
}
_FATAL_ONLY = 4


class OnnxRuntimeEngine:
    """An `Engine` over one inference session."""

    def __init__(self, graph: TileGraph, *, threads: int) -> None:
        """Open a session; see `open_engine`."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY  # failures come as exceptions; the log would only repeat them
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the CPU is shared with the line
        try:
            self._session = ort.InferenceSession(bytes(graph.files[0]), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            message = f"ONNX Runtime cannot load the graph ({error}): verify the bundle, or rebuild it"
            raise EngineError(message) from error
        check_contract("inputs", graph.shape.inputs, _ports(self._session.get_inputs()))
        check_contract("outputs", graph.shape.outputs, _ports(self._session.get_outputs()))
        shape = graph.shape
        self._names = list(shape.outputs)
        self._tiles, self._tile_index = input_buffers(shape)
        self._feed: dict[str, NDArray[Any]] = {"tiles": self._tiles}
        if shape.position_bound:
            self._feed["tile_index"] = self._tile_index

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
            results = self._session.run(self._names, self._feed)
        except Exception as error:
            message = f"ONNX Runtime failed to run the graph ({error})"
            raise EngineError(message) from error
        return GraphOutput(results[0], results[1] if len(results) > 1 else None)


def _ports(ports: list[Any]) -> Ports:
    found = {}
    for port in ports:
        sizes = tuple(size if isinstance(size, int) else -1 for size in port.shape)
        found[port.name] = (sizes, np.dtype(_DTYPES.get(port.type, np.void)))
    return found
