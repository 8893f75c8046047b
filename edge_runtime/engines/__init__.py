"""Inference engines behind one Protocol; `open_engine` is the only way to make one from a sealed graph."""

from edge_runtime.engines.contract import Engine, EngineName, GraphOutput, GraphShape, Precision, TileGraph, open_engine

__all__ = ["Engine", "EngineName", "GraphOutput", "GraphShape", "Precision", "TileGraph", "open_engine"]
