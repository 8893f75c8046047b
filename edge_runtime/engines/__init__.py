"""Inference engines behind one Protocol; `open_engine` is the only way to make one from a sealed graph.

Both engines report to their makers when they are imported, and write to the home folder to do so. This package turns
that off for the process; it is loaded before either engine, since their modules lie in it.
"""

import os
import sys

from edge_runtime.engines.contract import (
    Engine,
    EngineName,
    GraphOutput,
    GraphShape,
    Precision,
    TileGraph,
    input_buffers,
    open_engine,
)

__all__ = [
    "Engine",
    "EngineName",
    "GraphOutput",
    "GraphShape",
    "Precision",
    "TileGraph",
    "input_buffers",
    "open_engine",
]

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the whole of it, says ONNX Runtime's Privacy.md; its API comes too late
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # absent; OpenVINO has a stub for that
