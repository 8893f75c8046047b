"""Owns the export of a fitted module to ONNX, to the graph contract."""

import io
import logging
import warnings

import onnx
import torch
from torch import nn

from edge_runtime.engines import GraphShape
from edge_runtime.errors import ExportError

OPSET = 18
_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16}


def to_onnx(module: nn.Module, shape: GraphShape) -> bytes:
    """ONNX bytes of a module, with static shapes.

    Raises:
        ExportError: torch cannot export the module.
    """
    dtype = _DTYPES[shape.dtype.name]
    tiles = torch.zeros(shape.batch, shape.height, shape.width, shape.channels, dtype=dtype)
    inputs = (tiles, torch.zeros(shape.batch, dtype=torch.int32)) if shape.position_bound else (tiles,)
    module = module.to("cpu").eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            program = torch.onnx.export(
                module,
                inputs,
                input_names=list(shape.inputs),
                output_names=list(shape.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
    except Exception as error:
        message = f"torch cannot export this model to ONNX ({type(error).__name__}: {error}): try another backbone"
        raise ExportError(message) from error
    if program is None:
        message = "torch's exporter returned nothing: try another version of torch"
        raise ExportError(message)
    buffer = io.BytesIO()
    onnx.save(program.model_proto, buffer)
    return buffer.getvalue()
