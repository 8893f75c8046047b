"""Owns torch as an engine: parity references come through the same scorer as every other score."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.engines import GraphOutput, GraphShape, input_buffers


class TorchEngine:
    """Runs a fitted module behind the runtime's engine Protocol."""

    def __init__(self, module: nn.Module, shape: GraphShape, device: torch.device) -> None:
        """Wrap a fitted module whose `forward` is the graph."""
        self._module = module.to(device).eval()
        self._device = device
        self._position_bound = shape.position_bound
        self._tiles, self._tile_index = input_buffers(shape)

    @property
    def tiles(self) -> NDArray[Any]:
        """(B, H, W, C) input buffer."""
        return self._tiles

    @property
    def tile_index(self) -> NDArray[np.int32]:
        """(B,) input buffer."""
        return self._tile_index

    def run(self) -> GraphOutput:
        """Run the module on the buffers."""
        inputs = [torch.from_numpy(self._tiles).to(self._device)]
        if self._position_bound:
            inputs.append(torch.from_numpy(self._tile_index).to(self._device))
        with torch.inference_mode():
            output = self._module(*inputs)
        parts = output if isinstance(output, tuple) else (output,)
        arrays = [part.to("cpu", torch.float32).numpy() for part in parts]
        return GraphOutput(arrays[0], arrays[1] if len(arrays) > 1 else None)
