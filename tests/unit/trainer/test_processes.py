"""What processes share without each other; together they are tested in `integration`."""

import pytest
import torch
from torch import nn

from edge_runtime.errors import ConfigError
from trainer.config import make_config
from trainer.flags import check_flags
from trainer.models.registry import METHODS, find_method
from trainer.processes import Processes, joined


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("tiles", [0, 1, 2, 7, 64])
def test_parts_of_a_batch_are_disjoint_in_order_and_all_of_it(count: int, tiles: int) -> None:
    parts = [list(range(tiles))[Processes(rank=rank, count=count).part(tiles)] for rank in range(count)]

    assert [tile for part in parts for tile in part] == list(range(tiles))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_changed() -> None:
    alone, model = Processes(), nn.Linear(2, 1)
    model.weight.grad = torch.full((1, 2), 3.0)

    assert alone.average(2.5, 4, list(model.parameters()), []) == 2.5
    assert torch.equal(model.weight.grad, torch.full((1, 2), 3.0))
    assert model.bias.grad is None
    assert (alone.first(1.5), alone.least(3), alone.leads) == (1.5, 3, True)
    alone.align(model)
    alone.leave()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # of something else
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with joined() as processes:
        assert processes == Processes()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_fitted_in_one_pass_is_refused_in_several_processes(name: str) -> None:
    config, method = make_config({"method": name}, None), find_method(name)
    check_flags(config, method, Processes(), resume=False)
    if "steps" in method.settings:
        check_flags(config, method, Processes(count=2), resume=False)
    else:
        with pytest.raises(ConfigError, match=f"--method {name} is fitted in one pass.* without torchrun"):
            check_flags(config, method, Processes(count=2), resume=False)
