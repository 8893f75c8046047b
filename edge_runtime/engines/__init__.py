"""Inference engines behind one Protocol; `open_engine` is the only way to make one from a sealed graph."""

import sys

from edge_runtime.engines.contract import Engine, EngineName, GraphOutput, GraphShape, Precision, TileGraph, open_engine

__all__ = ["Engine", "EngineName", "GraphOutput", "GraphShape", "Precision", "TileGraph", "open_engine"]

# `import openvino` alone writes to ~/intel and reports to a telemetry service, from a process that it forks;
# an entry of None makes that package absent, for which openvino has a stub. It must come before the first import.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
