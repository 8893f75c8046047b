"""What every method in the registry must do, whatever it computes."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support.method_contract import PROPERTIES
from support.methods import fit, narrow, parts
from torch import nn

from edge_runtime.errors import DataError
from trainer.models.registry import METHODS


@pytest.fixture(scope="module", autouse=True)
def _narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with narrow(tmp_path_factory.mktemp("teachers")):
        yield


@pytest.fixture(scope="module", params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def fitted(method: str) -> nn.Module:
    return fit(method, parts(range(16)))


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_of_every_method(method: str, fitted: nn.Module, holds: Callable[[str, nn.Module], None]) -> None:
    holds(method, fitted)


def test_one_image_again_and_again_is_refused_by_what_needs_variation_between_images() -> None:
    with pytest.raises(DataError, match="do not vary"):
        fit("padim", np.repeat(parts(range(1)), 6, axis=0))
