from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from support.good_images import RGB, gabor, images
from support.training import Tiles
from torch import Tensor

from edge_runtime.engines import EngineName, GraphShape, Precision, TileGraph, open_engine
from edge_runtime.engines.openvino import to_ir
from edge_runtime.errors import DataError
from trainer.backbones import load_features
from trainer.export import to_onnx
from trainer.models import lunar, neighbours
from trainer.models.lunar import DistanceNetwork, LUNARMethod, bank_size, draw, warn_where_it_falls
from trainer.models.lunar_index import (
    EPSILON,
    NEIGHBOURS,
    GoodPatches,
    LabelledDistances,
    labelled,
    perturbed_negatives,
    uniform_negatives,
)
from trainer.models.method import FitData, FitSettings
from trainer.models.neighbours import grouped, nearest_distances
from trainer.models.patchcore import embed
from trainer.training import Schedule, train

SETTINGS = FitSettings(seed=0)


def patches(count: int, seed: int, tiles: int = 10) -> GoodPatches:
    random = torch.Generator().manual_seed(seed)
    return GoodPatches(torch.rand(count, 12, generator=random) * 4 + 1, torch.arange(count) * tiles // count)


def pyod_network(ours: DistanceNetwork) -> torch.nn.Module:
    """PyOD's network with the same weights."""
    from pyod.models.lunar import SCORE_MODEL  # noqa: PLC0415 - seconds of compilers, for two tests alone

    theirs: torch.nn.Module = SCORE_MODEL(NEIGHBOURS)
    theirs.load_state_dict({f"network.{name}": value for name, value in ours.layers.state_dict().items()})
    return theirs


@pytest.mark.parametrize("floats", [1, 1000, 2**20])
def test_distances_are_those_that_sklearn_finds_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, floats: int
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_FLOATS", floats)
    random = torch.Generator().manual_seed(0)
    bank, asked = torch.randn(137, 20, generator=random), torch.randn(50, 20, generator=random)

    found = nearest_distances(asked, *grouped(bank), NEIGHBOURS)

    wanted, _ = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(bank.numpy()).kneighbors(asked.numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)


def test_a_training_patch_is_measured_against_the_patches_of_other_tiles_alone() -> None:
    index = patches(200, 0)

    found = index.distances(index.bank, index.owners).numpy()

    for tile in range(10):
        own = (index.owners == tile).numpy()
        others = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(index.bank.numpy()[~own])
        wanted, _ = others.kneighbors(index.bank.numpy()[own])
        np.testing.assert_allclose(found[own], wanted, rtol=1e-4)


def test_the_index_holds_good_patches_only_and_no_negative_is_in_it() -> None:
    features = gabor("layer2", "layer3")
    good = images(8, 0)
    tiles = Tiles(good, features.grid_stride)
    model = LUNARMethod().fit(features, FitData(fit=tiles, validation=None), FitSettings(seed=0, steps=2))

    with torch.inference_mode():
        flat = embed(features(good)).permute(0, 2, 3, 1).flatten(0, 2)
        placed = (flat - model.lowest) * model.scale - model.centre
        nearest = torch.cdist(model.bank[: tiles.cells], placed, compute_mode="donot_use_mm_for_euclid_dist").amin(
            dim=1
        )
    assert float(nearest.max()) < 1e-4
    assert bool((model.halves[tiles.cells :] > 1e29).all())  # what only fills the last group

    index = patches(200, 1)
    rows = labelled(index, index.bank, index.owners, torch.Generator().manual_seed(0))
    assert float(rows.distances[rows.negative].min()) > 0.0
    assert int(rows.negative.sum()) == 200 == int((~rows.negative).sum())


def test_negatives_are_uniform_in_the_widened_cube_or_perturbed_in_some_channels() -> None:
    index = patches(5000, 0)
    generator = torch.Generator().manual_seed(0)

    drawn = uniform_negatives(index, 5000, generator) + index.centre
    assert -EPSILON <= float(drawn.min()) < -EPSILON + 0.01
    assert 1 + EPSILON - 0.01 < float(drawn.max()) <= 1 + EPSILON

    moved = perturbed_negatives(index.bank, generator) - index.bank
    assert float((moved != 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(moved[moved != 0].std()) == pytest.approx(EPSILON, rel=0.02)


def test_channels_are_scaled_to_one_and_quiet_ones_not_without_end() -> None:
    values = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([8.0, 4.0, 1e-6])
    index = GoodPatches(values, torch.arange(100) % 4)
    span = index.bank.amax(dim=0) - index.bank.amin(dim=0)

    torch.testing.assert_close(span[:2], torch.ones(2))
    assert float(span[2]) < 1e-4


def test_the_network_computes_what_pyods_computes_on_the_same_distances() -> None:
    ours = DistanceNetwork(NEIGHBOURS, seed=3)
    theirs = pyod_network(ours)
    distances = torch.rand(100, NEIGHBOURS, generator=torch.Generator().manual_seed(0)) * 3

    with torch.no_grad():
        torch.testing.assert_close(ours(distances).sigmoid(), theirs(distances))


def test_training_takes_the_steps_that_adam_takes_on_pyods_network_with_the_papers_settings() -> None:
    index = patches(300, 0)
    rows = labelled(index, index.bank, index.owners, torch.Generator().manual_seed(0))
    ours = DistanceNetwork(NEIGHBOURS, seed=3)
    theirs = pyod_network(ours)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (theirs(rows.distances) - rows.negative.float()).square().sum()
        loss.backward()
        optimizer.step()

    schedule = Schedule(steps=20, learning_rate=1e-3, weight_decay=0.1)
    train(
        ours,
        rows,
        lambda batch, _: LabelledDistances(batch.tiles, batch.kept).loss(ours),
        schedule,
        FitSettings(seed=0),
    )

    with torch.no_grad():
        torch.testing.assert_close(ours(rows.distances).sigmoid(), theirs(rows.distances), rtol=1e-4, atol=1e-5)


def test_a_seed_draws_the_same_cells_however_tiles_are_batched() -> None:
    features = gabor("layer2")
    good = images(6, 0)

    def drawn(batch: int, seed: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return draw(features, Tiles(good, features.grid_stride, batch), 20, seed)

    (one, owners), (many, same), (other, _) = drawn(1, 0), drawn(6, 0), drawn(6, 1)
    torch.testing.assert_close(one, many)
    assert torch.equal(owners, same)
    assert len(one) == 20
    assert not torch.allclose(one, other)


def test_the_loss_that_decides_which_state_is_kept_is_that_of_the_validation_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = gabor("layer2")
    fit, held_out, others = (Tiles(images(6, seed), features.grid_stride) for seed in (0, 1, 2))
    looks: list[float | None] = []

    def look(*_: object, validate: Callable[[], float] | None = None) -> list[float]:
        with torch.no_grad():  # as the loop does
            looks.append(None if validate is None else validate())
        return []

    monkeypatch.setattr(lunar, "train", look)
    for share in (held_out, held_out, others, None):
        model = LUNARMethod().fit(features, FitData(fit=fit, validation=share), SETTINGS)
        assert not any(parameter.requires_grad for parameter in model.parameters())

    assert looks[0] == looks[1] != looks[2]
    assert looks[3] is None


def trained(parts: Tensor) -> tuple[DistanceNetwork, LabelledDistances]:
    """A network that learnt good patches (N, D) of ten tiles, and what it learnt from."""
    random = torch.Generator().manual_seed(0)
    index = GoodPatches(parts, torch.arange(len(parts)) % 10)
    good = labelled(index, index.bank, index.owners, random)
    network = DistanceNetwork(NEIGHBOURS, 0)
    schedule = Schedule(steps=100, learning_rate=1e-3, weight_decay=0.1)
    train(network, good, lambda batch, _: LabelledDistances(batch.tiles, batch.kept).loss(network), schedule, SETTINGS)
    return network, good


def test_a_score_that_falls_where_distances_grow_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A plain background and a lively part: negatives made from the one lie nearer than good patches of the other."""
    random = torch.Generator().manual_seed(0)
    lively = torch.randn(200, 40, generator=random)
    plain = torch.randn(200, 40, generator=random) * 0.01

    warn_where_it_falls(*trained(lively))
    assert not caplog.records

    warn_where_it_falls(*trained(torch.cat([plain, lively])))
    assert "the score falls where distances grow" in caplog.text


def test_patches_of_one_tile_alone_are_refused() -> None:
    with pytest.raises(DataError, match="0 are left without the largest"):
        patches(40, 0, tiles=1)


def test_the_index_is_ten_thousand_patches_unless_asked_otherwise() -> None:
    assert bank_size(500, None) == 500
    assert bank_size(50_000, None) == 10_000
    assert bank_size(50_000, 0.1) == 5_000
    assert bank_size(50_000, 300) == 300
    assert bank_size(50_000, 1.0) == 20_000


def test_all_views_of_a_tile_are_one_owner() -> None:
    """Else the nearest patch of another tile would be the same place in another light."""
    features = gabor("layer2")
    pixels = images(6, 0)

    def owners(views: int) -> list[int]:
        tiles = Tiles(pixels, features.grid_stride, views=views)
        return draw(features, tiles, 10**6, 0)[1].unique().tolist()

    assert (owners(1), owners(2)) == ([0, 1, 2, 3, 4, 5], [0, 1, 2])


def test_a_stage_of_a_convnext_exports_and_both_engines_agree() -> None:
    features = load_features("convnext_atto", ("stages_1",), weights="random", pixels=RGB, weights_dir=None)
    tiles = Tiles(images(6, 0, side=64), features.grid_stride)
    model = LUNARMethod().fit(features, FitData(fit=tiles, validation=None), FitSettings(seed=0, steps=20))
    shape = GraphShape(
        batch=1,
        height=64,
        width=64,
        channels=3,
        dtype=np.dtype(np.uint8),
        map_height=8,
        map_width=8,
        position_bound=False,
        image_score=False,
    )
    onnx = to_onnx(model, shape)
    unseen = images(1, 1, side=64)
    with torch.inference_mode():
        wanted = model(unseen).numpy()

    for engine, files in ((EngineName.ONNXRUNTIME, (onnx,)), (EngineName.OPENVINO, to_ir(onnx))):
        opened = open_engine(
            TileGraph(engine=engine, precision=Precision.F32, shape=shape, files=files, digest="0" * 64)
        )
        opened.tiles[:] = unseen.numpy()
        np.testing.assert_allclose(opened.run().map, wanted, atol=1e-4)
