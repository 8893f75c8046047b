import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from trainer.models.cflow import PLACE_CHANNELS, LinearSubnet
from trainer.models.csflow import CrossScaleSubnet
from trainer.models.fastflow import ConvolutionalSubnet
from trainer.models.flows import AffineCoupling, Flow, Permutation, negative_log_likelihood, soft_clamp


class Mixing(nn.Module):
    """A small subnet that sees one place at a time."""

    def __init__(self, seen: int, given: int) -> None:
        """Draw its weights."""
        super().__init__()
        self.layer = nn.Linear(seen, given)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, seen) -> (B, given)."""
        return [torch.sin(self.layer(part)) for part in maps]


def randomised(module: nn.Module) -> nn.Module:
    """Weights far from the identity that flows begin as, in float64."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def fastflow(channels: int) -> Flow:
    steps: list[Permutation | AffineCoupling] = []
    for kernel in (3, 1):
        steps += [Permutation(channels), AffineCoupling(channels, ConvolutionalSubnet(channels, kernel), clamp=2.0)]
    return Flow(steps)


def test_a_soft_clamp_never_passes_its_limit_and_keeps_small_values_in_proportion() -> None:
    values = torch.tensor([-1e9, -1e-3, 0.0, 1e-3, 1e9], dtype=torch.float64)

    found = soft_clamp(values, 1.9)

    expected = torch.tensor([-1.9, -2e-3 / math.pi, 0.0, 2e-3 / math.pi, 1.9], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("changes_first", [False, True])
@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_coupling_and_its_determinant_are_those_of_autograd(channels: int, changes_first: bool) -> None:  # noqa: FBT001
    changed = channels // 2
    subnet = Mixing(channels - changed + 3, 2 * changed)
    coupling = randomised(AffineCoupling(channels, subnet, clamp=1.9, changes_first=changes_first))
    values, condition = torch.randn(1, channels).double(), torch.randn(1, 3).double()

    moved, log_determinants = coupling([values], [condition])
    matrix = jacobian(lambda part: coupling([part], [condition])[0][0], values).reshape(channels, channels)

    torch.testing.assert_close(log_determinants[0].squeeze(), torch.linalg.slogdet(matrix).logabsdet)
    torch.testing.assert_close(coupling.inverse(moved, [condition])[0], values)
    same = moved[0] == values
    assert int(same.sum()) == channels - changed
    assert bool(same[0, -1 if changes_first else 0])


def test_a_condition_changes_what_a_coupling_does() -> None:
    flow = randomised(Flow([AffineCoupling(4, LinearSubnet(4), clamp=1.9)]))
    values = torch.randn(2, 4).double()

    (one,), _ = flow([values], [torch.zeros(2, PLACE_CHANNELS).double()])
    (other,), _ = flow([values], [torch.ones(2, PLACE_CHANNELS).double()])

    assert not torch.allclose(one, other)


def test_a_permutation_moves_every_channel_and_back() -> None:
    order = Permutation(7, scales=2)
    maps = [torch.arange(7.0).reshape(1, 7, 1, 1), torch.arange(7.0).reshape(1, 7)]

    moved, log_determinants = order(maps, None)

    assert all(sorted(part.flatten().tolist()) == list(range(7)) for part in moved)
    assert moved[0].flatten().tolist() != moved[1].flatten().tolist()
    assert all(float(part.abs().max()) == 0 for part in log_determinants)
    for back, part in zip(order.inverse(moved, None), maps, strict=True):
        torch.testing.assert_close(back, part, rtol=0, atol=0)


def whole_determinant(flow: Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]], maps: list[Tensor]) -> Tensor:
    """Autograd's log-determinant of all maps' values as one vector."""
    sizes, shapes = [part.numel() for part in maps], [part.shape for part in maps]

    def flat(values: Tensor) -> Tensor:
        parts = [part.reshape(shape) for part, shape in zip(values.split(sizes), shapes, strict=True)]
        return torch.cat([part.flatten() for part in flow(parts)[0]])

    return torch.linalg.slogdet(jacobian(flat, torch.cat([part.flatten() for part in maps]))).logabsdet


def test_a_convolutional_flow_is_invertible_and_its_determinants_add_up_to_autograds() -> None:
    flow = randomised(fastflow(5))
    maps = [torch.randn(1, 5, 3, 4).double()]

    latent, log_determinants = flow(maps)

    torch.testing.assert_close(flow.inverse(latent)[0], maps[0])
    torch.testing.assert_close(log_determinants[0].sum(), whole_determinant(flow, maps))
    assert log_determinants[0].shape == (1, 3, 4)
    assert not torch.allclose(latent[0], maps[0])


def test_a_flow_across_scales_is_invertible_and_its_determinants_add_up_to_autograds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.models.csflow.HIDDEN", 6)
    steps: list[Permutation | AffineCoupling] = [Permutation(4, 3)]
    steps += [AffineCoupling(4, CrossScaleSubnet(4, 3), clamp=3.0, changes_first=first) for first in (True, False)]
    flow = randomised(Flow(steps))
    maps = [torch.randn(1, 4, side, side).double() for side in (4, 2, 1)]

    latent, log_determinants = flow(maps)

    for back, part in zip(flow.inverse(latent), maps, strict=True):
        torch.testing.assert_close(back, part)
    total = torch.stack([part.sum() for part in log_determinants]).sum()
    torch.testing.assert_close(total, whole_determinant(flow, maps))


def test_the_inverse_of_anything_leads_back_to_it() -> None:
    flow = randomised(fastflow(4))
    latent = torch.randn(2, 4, 3, 3).double()

    (there,), _ = flow(flow.inverse([latent]))

    torch.testing.assert_close(there, latent)


def test_the_likelihood_is_the_normal_density_of_the_latent_by_change_of_variables() -> None:
    flow = randomised(Flow([Permutation(3), AffineCoupling(3, Mixing(2, 2), clamp=2.0)]))
    values = torch.randn(4, 3).double()

    (latent,), (log_determinant,) = flow([values])
    found = -negative_log_likelihood(latent, log_determinant) - 1.5 * math.log(2 * math.pi)

    for index, value in enumerate(values):
        matrix = jacobian(lambda part: flow([part.unsqueeze(0)])[0][0].squeeze(0), value)
        normal = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
        expected = normal.log_prob(latent[index]) + torch.linalg.slogdet(matrix).logabsdet
        torch.testing.assert_close(found[index], expected)
