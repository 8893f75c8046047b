import math

import numpy as np
import pytest
import torch
from support.training import Tiles
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from trainer.backbones.features import PixelSpec
from trainer.backbones.pixels import PixelFeatures
from trainer.data import perlin as noise
from trainer.data.alterations import ALTERATIONS, alter
from trainer.data.textures import DrawnTextures, Texture
from trainer.models import draem, unet
from trainer.models.draem import DRAEM, DRAEMMethod, turned, with_anomalies
from trainer.models.draem_losses import focal_loss, l2_loss, ssim, ssim_loss
from trainer.models.method import FeatureRequest, FitData, FitSettings, state_bytes
from trainer.training import Schedule

PIXELS = PixelSpec(channels=3, bit_depth=8)


class White:
    """A texture source that is easy to recompute."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Texture:  # noqa: ARG002
        """White."""
        return np.ones((height, width, 3), np.float32)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draem, "RECONSTRUCTION_WIDTH", 4)
    monkeypatch.setattr(draem, "DISCRIMINATION_WIDTH", 4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_focal_loss_is_what_a_hand_computation_gives() -> None:
    logits, anomalous = 3 * drawn(2, 2, 5, 7) - 1, drawn(2, 5, 7, seed=1) > 0.7
    kept = drawn(2, 5, 7, seed=2) > 0.3
    total, count = 0.0, 0
    for place in np.argwhere(kept.numpy()):
        good, bad = (math.exp(float(logits[place[0], c, place[1], place[2]])) for c in (0, 1))
        p = (bad if anomalous[tuple(place)] else good) / (good + bad)
        total, count = total - (1 - p) ** 2 * math.log(p), count + 1

    assert float(focal_loss(logits, anomalous, kept)) == pytest.approx(total / count, rel=1e-5)


def test_the_focal_loss_weighs_good_pixels_as_much_as_anomalous_ones() -> None:
    wrong, kept = torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    expected = 0.25 * math.log(2)  # p is a half everywhere

    for truth in (False, True):
        assert float(focal_loss(wrong, torch.full((1, 4, 4), truth), kept)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("row", "column"), [(8, 9), (0, 0), (3, 15)])
def test_ssim_is_what_a_hand_computation_of_the_window_gives(row: int, column: int) -> None:
    first, second = drawn(1, 3, 16, 16), drawn(1, 3, 16, 16, seed=1)
    found = ssim(first, second)[0, 1, row, column]

    around = np.arange(-5, 6)
    taps = np.exp(-(around[:, None] ** 2 + around[None, :] ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    a, b = (
        np.pad(part[0, 1].numpy().astype(np.float64), 5)[row : row + 11, column : column + 11]
        for part in (first, second)
    )
    mean_a, mean_b = (taps * a).sum(), (taps * b).sum()
    var_a, var_b = (taps * a * a).sum() - mean_a**2, (taps * b * b).sum() - mean_b**2
    both = (taps * a * b).sum() - mean_a * mean_b
    c1, c2 = 1e-4, 9e-4
    expected = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_ssim_of_an_image_with_itself_is_1_and_its_loss_0() -> None:
    image, kept = drawn(2, 3, 16, 16), torch.ones(2, 16, 16, dtype=torch.bool)

    assert float(ssim_loss(image, image, kept)) == pytest.approx(0, abs=1e-5)
    assert float(ssim_loss(image, 1 - image, kept)) > 0.5


def test_pixels_of_the_halo_do_not_count() -> None:
    image, kept = drawn(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool)
    kept[:, 8:24, 8:24] = True
    changed = image.clone()
    changed[..., :2, :] += 5  # more than half a window away from what counts
    logits = torch.zeros(1, 2, 32, 32)
    worse = logits.clone()
    worse[..., :8, :] = 9

    assert float(l2_loss(changed, image, kept)) == 0
    assert float(ssim_loss(changed, image, kept)) == pytest.approx(0, abs=1e-5)
    empty = torch.zeros(1, 32, 32, dtype=torch.bool)
    worse[:, 0, :8] = -9
    assert torch.equal(focal_loss(logits, empty, kept), focal_loss(worse, empty, kept))


def test_an_anomaly_is_seen_through_by_beta_up_to_08_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draem, "alter", lambda _, texture: texture)
    black = torch.zeros(64, 3, 32, 32)
    spoilt, masks = with_anomalies(black, White(), torch.Generator().manual_seed(3))

    assert torch.equal(spoilt[:, 0] > 0, masks)
    opacity = spoilt.amax(dim=(1, 2, 3))[masks.any(dim=(1, 2))]  # 1 - beta
    assert 0.2 <= float(opacity.min()) < 0.35
    assert 0.85 < float(opacity.max()) <= 1
    assert 20 <= len(opacity) <= 44  # about half of them
    assert torch.equal(black, torch.zeros_like(black))


def test_the_same_chance_gives_the_same_anomalies_and_other_chance_others() -> None:
    images = drawn(4, 3, 32, 32)
    first, again, other = (
        with_anomalies(images, DrawnTextures(), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_perlin_noise_is_what_a_scalar_computation_gives() -> None:
    found = noise.perlin(np.random.default_rng(5), 20, 30, cells=(4, 8), angle=0.4)
    rng = np.random.default_rng(5)
    direction, shift = rng.uniform(0, 2 * math.pi, (64, 64)), rng.uniform(0, 64, 2)

    for row, column in ((0, 0), (7, 22), (19, 29)):
        y, x = (row + 0.5) / 20 - 0.5, (column + 0.5) / 30 - 0.5
        v = (y * math.cos(0.4) + x * math.sin(0.4)) * 4 + shift[0]
        u = (x * math.cos(0.4) - y * math.sin(0.4)) * 8 + shift[1]
        total = 0.0
        for i in (math.floor(v), math.floor(v) + 1):
            for j in (math.floor(u), math.floor(u) + 1):
                angle = direction[i % 64, j % 64]
                fades = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in (1 - abs(v - i), 1 - abs(u - j))]
                total += fades[0] * fades[1] * (math.sin(angle) * (v - i) + math.cos(angle) * (u - j))
        assert float(found[row, column]) == pytest.approx(math.sqrt(2) * total, abs=1e-5)


def test_masks_are_noise_above_a_half_of_1_to_32_cells_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def ramp(_: object, height: int, width: int, *, cells: tuple[int, int], angle: float) -> np.ndarray:
        seen.append(cells)
        assert abs(angle) <= math.pi / 2
        return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)

    monkeypatch.setattr(noise, "perlin", ramp)
    rng = np.random.default_rng(0)
    masks = [noise.perlin_mask(rng, 10, 10) for _ in range(200)]

    assert all(mask.sum() == 50 for mask in masks)
    assert {side for cells in seen for side in cells} == {1, 2, 4, 8, 16, 32}


def test_altered_textures_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3 * len(ALTERATIONS)):
        texture = alter(rng, DrawnTextures().draw(rng, 32, 32))
        assert texture.dtype == np.float32
        assert texture.shape == (32, 32, 3)
        assert 0 <= float(texture.min()) <= float(texture.max()) <= 1


def test_turning_moves_image_and_counted_pixels_together() -> None:
    images = torch.zeros(40, 3, 64, 32)
    images[:, :, 10:20, 8:16] = 1
    kept = images[:, 0] > 0
    there, moved = turned(images, kept, torch.Generator().manual_seed(0))
    changed = [index for index in range(40) if not torch.equal(there[index], images[index])]

    assert 4 <= len(changed) <= 20
    for index in changed:
        overlap = (there[index, 0] > 0.5) & moved[index]
        assert overlap.sum() > 0.8 * max(int(moved[index].sum()), 1)
        assert 50 <= int(moved[index].sum()) <= 110  # a turned oblong image keeps its areas: 80 pixels here


def test_the_schedule_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules: list[Schedule] = []
    monkeypatch.setattr(draem, "train", lambda *arguments: schedules.append(arguments[3]))
    tiles = Tiles(torch.randint(0, 256, (10, 64, 64, 3), dtype=torch.uint8), stride=1, batch=4)
    DRAEMMethod().fit(
        PixelFeatures(pixels=PIXELS, input_stride=32), FitData(fit=tiles, validation=None), FitSettings(seed=0)
    )

    assert schedules[0].steps == 700 * 3
    assert schedules[0].learning_rate == 1e-4
    assert schedules[0].drop_at == (400 / 700, 600 / 700)
    assert schedules[0].drop_by == 0.1


def test_a_share_of_the_width_narrows_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draem, "RECONSTRUCTION_WIDTH", 128)
    monkeypatch.setattr(draem, "DISCRIMINATION_WIDTH", 64)
    monkeypatch.setattr(draem, "train", lambda *_: None)
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    data = FitData(fit=Tiles(pixels, stride=1, batch=4), validation=None)
    features = PixelFeatures(pixels=PIXELS, input_stride=32)
    settings = FitSettings(seed=0, width=0.0625)
    model = DRAEMMethod().fit(features, data, settings)

    networks = (model.reconstruction, model.discrimination)
    widths = [next(m for m in part.modules() if isinstance(m, nn.Conv2d)).out_channels for part in networks]
    assert widths == [8, 4]
    whole = state_bytes(DRAEMMethod().stand_in(features, data, FitSettings(seed=0)))
    assert state_bytes(DRAEMMethod().stand_in(features, data, settings)) < whole / 200


def test_the_map_is_the_probability_of_an_anomaly_at_every_pixel() -> None:
    features = PixelFeatures(pixels=PIXELS, input_stride=32)
    model = DRAEM(features, unet.Reconstruction(4), unet.Discrimination(4)).eval()
    tiles = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        images = tiles.permute(0, 3, 1, 2) / 255
        logits = model.discrimination(images, model.reconstruction(images)).numpy()
        found = model(tiles).numpy()

    assert found.shape == (2, 64, 96)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-5)


def test_a_mono_camera_will_do_and_pixels_are_not_standardised() -> None:
    wanted = FeatureRequest(
        backbone="",
        named=False,
        layers=None,
        weights=None,
        weights_dir=None,
        teacher=None,
        pixels=PixelSpec(channels=1, bit_depth=12),
    )
    features = DRAEMMethod().features(wanted)
    images = features(torch.full((1, 32, 32, 1), 4095, dtype=torch.uint16))[0]

    assert images.shape == (1, 3, 32, 32)
    assert torch.equal(images, torch.ones_like(images))
    assert (features.grid_stride, features.input_stride) == (1, 32)


def test_tiles_that_are_too_small_and_folders_without_pictures_are_refused(tmp_path: pytest.TempPathFactory) -> None:
    features = PixelFeatures(pixels=PIXELS, input_stride=32)
    small = Tiles(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8), stride=1)
    large = Tiles(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), stride=1)

    with pytest.raises(ConfigError, match="64 pixels a side"):
        DRAEMMethod().stand_in(features, FitData(fit=small, validation=None), FitSettings(seed=0))
    with pytest.raises(ConfigError, match="holds no picture"):
        DRAEMMethod().fit(features, FitData(fit=large, validation=None), FitSettings(seed=0, textures=tmp_path))
    flat = Tiles(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), stride=1)
    with pytest.raises(DataError, match="do not vary"):
        DRAEMMethod().fit(features, FitData(fit=flat, validation=None), FitSettings(seed=0))
