"""What every method must do, whatever it computes: each property is a function of a method's name and its fit.

`PROPERTIES` is run over the registry by tests/contract/test_methods.py, and over the method that docs/adding-a-method.md
writes.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from support.methods import SIDE, fit, gabor, image_scores, parts, score, settings, shape, shares, unseen_parts
from torch import nn

from edge_runtime.engines import EngineName, Precision, TileGraph, open_engine
from edge_runtime.engines.openvino import to_ir
from edge_runtime.errors import DataError
from trainer.demo.product import render
from trainer.export import to_onnx
from trainer.models.registry import METHODS
from trainer.stand_in import made_real
from trainer.torch_engine import TorchEngine

SEES_ALL = {"fastflow"}  # sixteen convolutions one after the other: each cell sees more than this small a tile
CPU = torch.device("cpu")


def onnx_and_ir_compute_what_torch_computes(method: str, fitted: nn.Module) -> None:
    """Maps and image scores of parts that the fit did not see agree to 1e-3 of the range, at any batch."""
    unseen = unseen_parts()
    for batch in (1, 3):
        contract = shape(method, batch)
        onnx = to_onnx(fitted, contract)
        expected = score(TorchEngine(fitted, contract, CPU), unseen)
        allowed = 1e-3 * float(expected.max() - expected.min())
        whole = image_scores(TorchEngine(fitted, contract, CPU), unseen)

        for engine, files in ((EngineName.ONNXRUNTIME, (onnx,)), (EngineName.OPENVINO, to_ir(onnx))):
            graph = TileGraph(engine=engine, precision=Precision.F32, shape=contract, files=files, digest="0" * 64)
            opened = open_engine(graph)
            assert np.abs(score(opened, unseen) - expected).max() <= allowed, (engine, batch)
            worst = np.abs(image_scores(opened, unseen) - whole).max()
            assert worst <= 1e-3 * (whole.max() - whole.min()), (engine, batch)


def openvino_runs_it_in_bf16(method: str, fitted: nn.Module) -> None:
    """Low precision may blur figures, which sealing measures; it must not break the places that a graph looks up."""
    contract = shape(method, 1)
    files = to_ir(to_onnx(fitted, contract))
    graph = TileGraph(
        engine=EngineName.OPENVINO, precision=Precision.BF16, shape=contract, files=files, digest="0" * 64
    )
    assert np.isfinite(score(open_engine(graph), unseen_parts())).all()


def a_score_does_not_depend_on_what_else_is_in_the_batch(method: str, fitted: nn.Module) -> None:
    """Maps of all parts at once are those of each alone."""
    unseen = unseen_parts()
    alone = score(TorchEngine(fitted, shape(method, 1), CPU), unseen)
    together = score(TorchEngine(fitted, shape(method, len(unseen)), CPU), unseen)

    allowed = 1e-5 * float(alone.max() - alone.min()) + 1e-5 * float(alone.max())
    np.testing.assert_allclose(together, alone, atol=allowed)


def the_same_seed_gives_the_same_scores(method: str, fitted: nn.Module) -> None:
    """A second fit gives the same bits."""
    unseen = unseen_parts()
    engine = TorchEngine(fitted, shape(method, 1), CPU)
    again = TorchEngine(fit(method, parts(range(16))), shape(method, 1), CPU)

    np.testing.assert_array_equal(score(again, unseen), score(engine, unseen))


def a_painted_defect_raises_the_score_where_it_is_painted(method: str, fitted: nn.Module) -> None:
    """The image score rises; the map rises most around the paint, unless it is the same everywhere by design."""
    engine = TorchEngine(fitted, shape(method, 1), CPU)
    for seed in range(100, 104):
        good = render(seed, width=SIDE, height=SIDE)
        spoilt = good.image.copy()
        spoilt[28:36, 8:16] = (255, 0, 255)
        before, after = score(engine, np.stack([good.image, spoilt]))

        low, high = image_scores(engine, np.stack([good.image, spoilt]))
        assert high > low
        if after.min() == after.max():
            continue  # a score of the whole image marks no place
        assert after.max() > before.max()
        cell = SIDE // after.shape[0]
        slack = max(8, cell)
        rise = after - before
        painted = np.zeros(rise.shape, dtype=bool)
        painted[(28 - slack) // cell : (36 + slack) // cell, max(0, 8 - slack) // cell : (16 + slack) // cell] = True
        assert rise[painted].mean() > rise[~painted].mean()
        if method in SEES_ALL:
            continue
        row, column = np.unravel_index(int(after.argmax()), after.shape)
        assert 28 - slack <= row * cell <= 36 + slack
        assert 8 - slack <= column * cell <= 16 + slack


def constant_images_are_refused_and_do_not_become_nan(method: str, fitted: nn.Module) -> None:  # noqa: ARG001 - as all
    """Black, grey and white images are data that cannot be fitted to."""
    for level in (0, 128, 255):
        with pytest.raises(DataError, match="do not vary"):
            fit(method, np.full((6, SIDE, SIDE, 3), level, dtype=np.uint8))


def memory_is_predicted_at_least_as_large_as_what_is_kept(method: str, fitted: nn.Module) -> None:
    """`predict_bytes` covers the fitted buffers."""
    features = gabor(method)
    data = shares(method, parts(range(16)), features)
    kept = sum(t.numel() * t.element_size() for n, t in fitted.named_buffers() if not n.startswith("features"))

    assert METHODS[method].predict_bytes(features, data, settings(method)) >= kept


def the_stand_in_is_of_the_shapes_that_are_fitted(method: str, fitted: nn.Module) -> None:
    """`stand_in` has the fitted module's parameters and buffers, by name, shape and type, and draws no weight for it."""
    features = gabor(method)
    data = shares(method, parts(range(16)), features)
    before = torch.random.get_rng_state()
    state = METHODS[method].stand_in(features, data, settings(method)).state_dict()

    assert torch.equal(torch.random.get_rng_state(), before)
    assert _forms(state) == _forms(fitted.state_dict())


def a_stand_in_with_values_is_exported_as_the_fitted_module_is(method: str, fitted: nn.Module) -> None:
    """Same operations on same shapes, so that one takes as long as the other; the features keep their weights."""
    features = gabor(method)
    data = shares(method, parts(range(16)), features)
    kept = {name: values.clone() for name, values in features.state_dict().items()}
    module = made_real(METHODS[method].stand_in(features, data, settings(method)))

    operations = [[node.op_type for node in _graph(made, method).node] for made in (module, fitted)]
    assert operations[0] == operations[1]
    assert all(torch.equal(values, features.state_dict()[name]) for name, values in kept.items())


def _forms(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (values.shape, values.dtype) for name, values in state.items()}


def _graph(module: nn.Module, method: str) -> onnx.GraphProto:
    return onnx.load_model_from_string(to_onnx(module, shape(method, 1))).graph


PROPERTIES = (
    onnx_and_ir_compute_what_torch_computes,
    openvino_runs_it_in_bf16,
    a_score_does_not_depend_on_what_else_is_in_the_batch,
    the_same_seed_gives_the_same_scores,
    a_painted_defect_raises_the_score_where_it_is_painted,
    constant_images_are_refused_and_do_not_become_nan,
    memory_is_predicted_at_least_as_large_as_what_is_kept,
    the_stand_in_is_of_the_shapes_that_are_fitted,
    a_stand_in_with_values_is_exported_as_the_fitted_module_is,
)
