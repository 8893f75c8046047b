import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional

from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.models.patchcore import MAX_BANK, PatchCore, bank_size, embed


def test_the_map_is_the_distance_to_the_nearest_patch_of_the_bank() -> None:
    features = load_features(
        "gabor", ("layer2", "layer3"), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )
    random = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=random)
    bank = torch.randn(300, sum(features.channels), generator=random) * 5
    model = PatchCore(features, bank)

    with torch.inference_mode():
        found = model(tiles).numpy()
        patches = embed(features(tiles)).permute(0, 2, 3, 1).reshape(-1, bank.shape[1]).numpy()
    expected, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank.numpy()).kneighbors(patches)

    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-4)


def test_a_patch_of_the_bank_has_distance_zero_without_cancellation() -> None:
    features = load_features(
        "gabor", ("layer2",), weights=None, pixels=PixelSpec(channels=3, bit_depth=8), weights_dir=None
    )
    tiles = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        patches = embed(features(tiles)).permute(0, 2, 3, 1).reshape(-1, sum(features.channels))
        far = patches + 30.0  # large norms, where |x|^2 + |c|^2 - 2xc leaves distances of a tenth and more
        model = PatchCore(features, torch.cat([patches, far]))

        assert float(model(tiles).max()) == 0.0


def test_layers_are_pooled_over_their_neighbours_and_joined_at_the_first_grid() -> None:
    shallow, deep = torch.rand(1, 2, 8, 8), torch.rand(1, 3, 4, 4)

    joined = embed([shallow, deep])

    assert joined.shape == (1, 5, 8, 8)
    torch.testing.assert_close(joined[0, 0, 3, 4], shallow[0, 0, 2:5, 3:6].mean())
    pooled = functional.avg_pool2d(deep, 3, 1, 1)
    torch.testing.assert_close(joined[0, 2, 1, 1], (pooled[0, 0, 0:2, 0:2] * torch.tensor([[9, 3], [3, 1]]) / 16).sum())


def test_the_bank_is_a_share_or_a_number_and_never_larger_than_it_may_be() -> None:
    assert bank_size(10_000, None) == 100
    assert bank_size(1_000_000, None) == 1500
    assert bank_size(10_000, 0.1) == 1000
    assert bank_size(10_000, 77) == 77
    assert bank_size(50, 77) == 50
    assert bank_size(10, 0.001) == 1
    assert bank_size(10_000_000, 0.5) == MAX_BANK
    assert bank_size(10_000, 1.0) == 10_000
