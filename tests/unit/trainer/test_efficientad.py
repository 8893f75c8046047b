import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.training import Tiles
from torch import Tensor, nn

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.store import DRAFT
from edge_runtime.errors import ConfigError, DataError
from trainer import training
from trainer.backbones import Features
from trainer.backbones.features import PixelSpec
from trainer.config import make_config
from trainer.demo.product import write_dataset
from trainer.fitting import fit
from trainer.models import efficientad, efficientad_losses, pdn
from trainer.models.autoencoder import AutoEncoder
from trainer.models.efficientad import NOTE, EfficientAD, EfficientADMethod, map_quantiles
from trainer.models.efficientad_losses import hard_loss, jittered
from trainer.models.method import FeatureRequest, FitData, FitSettings
from trainer.models.scaling import channel_statistics
from trainer.training import Schedule

PIXELS = PixelSpec(channels=3, bit_depth=8)
SMALL = EfficientADMethod(name="efficientad_s", size="small")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"small": ((8, 4), (8, 4), (8, 3), (0, 4)), "medium": ((8, 4), (8, 4), (8, 1), (8, 3), (0, 4), (0, 1))}
    monkeypatch.setattr(pdn, "LAYERS", layers)
    monkeypatch.setattr(pdn, "OUTPUTS", 12)


def request(teacher: Path | None) -> FeatureRequest:
    return FeatureRequest(
        backbone="resnet18.tv_in1k",
        named=False,
        layers=None,
        weights=None,
        weights_dir=None,
        teacher=teacher,
        pixels=PIXELS,
    )


@pytest.fixture
def teacher(tmp_path: Path) -> Features:
    torch.manual_seed(1)
    save_file(pdn.PDN("small", 12).state_dict(), tmp_path / "pdn.safetensors")
    return SMALL.features(request(tmp_path / "pdn.safetensors"))


def noise(count: int, seed: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


class Given(nn.Module):
    """Raw maps that are known: whatever it is given, times each of some factors."""

    def __init__(self, *factors: float) -> None:
        """Take the factors."""
        super().__init__()
        self.factors = factors
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, tiles: Tensor) -> list[Tensor]:
        """(B, H, W, C) -> (B, H, W) each."""
        return [tiles[..., 0].double() * factor for factor in self.factors]


@pytest.mark.parametrize("count", [1, 2, 999, 1001, 5000])
def test_the_hard_loss_is_the_mean_from_numpys_0999_quantile_on(count: int) -> None:
    distances = torch.rand(3, 1, 1, count, generator=torch.Generator().manual_seed(count))
    kept = torch.ones(3, 1, count, dtype=torch.bool)
    expected = [tile[tile >= np.quantile(tile, 0.999)].mean() for tile in distances.double().numpy()]

    assert float(hard_loss(distances, kept)) == pytest.approx(float(np.mean(expected)), rel=1e-6)


def test_the_hard_loss_looks_at_cells_that_count_only() -> None:
    distances = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(2, 8, 8, dtype=torch.bool)
    kept[0, 2:6, 2:6] = True
    inside = hard_loss(distances, kept)
    distances[:, :, 0] = 100.0
    distances[1] = 100.0  # a tile of which nothing counts

    assert torch.equal(hard_loss(distances, kept), inside)


def test_statistics_in_two_passes_are_numpys_and_do_not_cancel() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1000, 5, generator=generator, dtype=torch.float64) * torch.tensor([0.01, 0.02, 1, 5, 9]) + 1e4
    single = values.float()
    mean, deviation = channel_statistics(lambda: iter(single.split(64)), "these")

    expected = single.double().numpy()
    np.testing.assert_allclose(mean.numpy(), expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), expected.std(axis=0), rtol=1e-5)


def test_a_dead_channel_is_not_blown_up_and_a_dead_teacher_is_refused() -> None:
    values = torch.rand(100, 2)
    values[:, 1] = 3
    _, deviation = channel_statistics(lambda: iter([values]), "these")

    assert float(deviation[1]) == pytest.approx(1e-3 * float(values[:, 0].std(correction=0)) / 2, rel=1e-4)
    with pytest.raises(DataError, match="do not vary"):
        channel_statistics(lambda: iter([torch.ones(5, 2)]), "these")


def test_the_map_is_the_mean_of_maps_scaled_by_the_quantiles_of_unseen_good_parts() -> None:
    held, unseen = noise(3, 0), noise(2, 1)
    networks = Given(1.0, 0.01)
    model = EfficientAD(networks, map_quantiles(networks, Tiles(held, stride=1, batch=2)))
    expected = np.zeros((2, 32, 32))
    for factor in networks.factors:
        low, high = np.quantile(held[..., 0].double().numpy() * factor, (0.9, 0.995))
        expected += 0.5 * 0.1 * (unseen[..., 0].numpy() * factor - low) / (high - low)

    np.testing.assert_allclose(model(unseen).numpy(), expected, atol=1e-5)


def test_quantiles_are_of_the_cells_that_count() -> None:
    held = noise(2, 0)
    kept = torch.zeros(2, 32, 32, dtype=torch.bool)
    kept[0, 5:20, 7:9] = True
    found = map_quantiles(Given(1.0), Tiles(held, stride=1, kept=kept))

    np.testing.assert_allclose(found[0], np.quantile(held[0, 5:20, 7:9, 0].numpy(), (0.9, 0.995)))
    with pytest.raises(DataError, match="nothing of the valid area"):
        map_quantiles(Given(1.0), Tiles(held, stride=1, kept=torch.zeros_like(kept)))


@pytest.mark.parametrize("level", [0, 7])
def test_quantiles_that_coincide_divide_by_no_zero_and_keep_the_order(level: int) -> None:
    networks = Given(1.0)
    flat = Tiles(torch.full((2, 8, 8, 3), level, dtype=torch.uint8), stride=1)
    model = EfficientAD(networks, map_quantiles(networks, flat))
    low, middle, high = (float(model(torch.full((1, 8, 8, 3), v, dtype=torch.uint8)).max()) for v in (level, 9, 200))

    assert low == 0
    assert low < middle < high < 1e5


def test_the_constants_are_taken_from_images_that_no_step_sees(
    teacher: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    real = efficientad.efficientad_loss

    def spy(**given: Any) -> Tensor:  # noqa: ANN401 - as it is called
        seen.extend(given["images"])
        return real(**given)

    monkeypatch.setattr(efficientad, "efficientad_loss", spy)
    good, held = noise(6, 0), noise(2, 1)
    data = FitData(fit=Tiles(good, stride=4), validation=Tiles(held, stride=4))
    model = SMALL.fit(teacher, data, FitSettings(seed=0, steps=3))

    assert seen
    unseen = teacher.images(held)
    assert not any(torch.equal(tile, other) for tile in seen for other in unseen)
    with torch.no_grad():
        maps = [part.numpy() for part in model.networks(held)]
    np.testing.assert_allclose(model.start.numpy(), [np.quantile(part, 0.9) for part in maps], rtol=1e-4)
    with pytest.raises(DataError, match="--validation"):
        SMALL.fit(teacher, FitData(fit=Tiles(good, stride=4), validation=None), FitSettings(seed=0, steps=3))


def test_tiles_that_are_parts_switch_the_autoencoder_off(teacher: Features) -> None:
    def fitted(*, whole: bool) -> EfficientAD:
        data = FitData(fit=Tiles(noise(4, 0), 4, whole=whole), validation=Tiles(noise(2, 1), 4, whole=whole))
        return SMALL.fit(teacher, data, FitSettings(seed=0, steps=2))

    assert isinstance(fitted(whole=True).networks.autoencoder, AutoEncoder)
    alone = fitted(whole=False)
    assert alone.networks.autoencoder is None
    assert alone.start.shape == (1,)
    assert alone(noise(1, 2)).shape == (1, 8, 8)


def test_a_fit_does_not_go_on_with_another_teacher_than_it_began_with(
    teacher: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    data = FitData(fit=Tiles(noise(4, 0), 4), validation=Tiles(noise(2, 1), 4))
    settings = FitSettings(seed=0, steps=3, checkpoint=tmp_path / "fit.checkpoint")
    real, calls = efficientad.efficientad_loss, []

    def interrupted(**given: Any) -> Tensor:  # noqa: ANN401 - as it is called
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(**given)

    monkeypatch.setattr(efficientad, "efficientad_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SMALL.fit(teacher, data, settings)
    monkeypatch.setattr(efficientad, "efficientad_loss", real)
    torch.manual_seed(2)
    save_file(pdn.PDN("small", 12).state_dict(), tmp_path / "other.safetensors")
    other = SMALL.features(request(tmp_path / "other.safetensors"))
    with pytest.raises(ConfigError, match="another --teacher"):
        SMALL.fit(other, data, replace(settings, resume=True))
    tiles = noise(1, 5)
    same = SMALL.features(request(tmp_path / "pdn.safetensors"))
    resumed = SMALL.fit(same, data, replace(settings, resume=True))
    whole = SMALL.fit(same, data, FitSettings(seed=0, steps=3))
    assert torch.equal(resumed(tiles), whole(tiles))


def test_training_follows_the_papers_schedule(teacher: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    schedules: list[Schedule] = []
    monkeypatch.setattr(efficientad, "train", lambda *arguments: schedules.append(arguments[3]))
    data = FitData(fit=Tiles(noise(4, 0), 4), validation=Tiles(noise(2, 1), 4))
    SMALL.fit(teacher, data, FitSettings(seed=0))

    found = schedules[0]
    assert (found.steps, found.learning_rate, found.weight_decay) == (70_000, 1e-4, 1e-5)
    assert (found.drop_at, found.drop_by) == ((0.95,), 0.1)


def test_the_penalty_keeps_the_student_down_on_foreign_pictures() -> None:
    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            """What an image's mean is."""
            return torch.full((len(images), 4, 2, 2), float(images.mean()))

    images, foreign = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 3.0)
    loss = efficientad_losses.efficientad_loss(
        teach=lambda shown: torch.full((len(shown), 2, 2, 2), 2.0),
        student=Fixed(),
        autoencoder=None,
        images=images,
        kept=torch.ones(1, 2, 2, dtype=torch.bool),
        foreign=foreign,
        scale=(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)),
        generator=torch.Generator(),
    )

    assert float(loss) == pytest.approx(2.0**2 + 3.0**2)


def test_jitter_moves_brightness_contrast_or_saturation_and_nothing_at_strength_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scale = (torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.2))
    plain = 0.3 + 0.3 * torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = (plain - scale[0]) / scale[1]
    changed = jittered(images, scale, torch.Generator().manual_seed(0)) * scale[1] + scale[0]
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey, grey_after = ((part * luma).sum(dim=1) for part in (plain, changed))
    ratios = (changed / plain).flatten(1)
    brighter = ratios.std(dim=1) < 1e-3
    saturated = ((grey_after - grey).abs().amax(dim=(1, 2)) < 1e-4) & ~brighter
    contrast = ((grey_after - grey).mean(dim=(1, 2)).abs() < 1e-4) & ~saturated & ~brighter

    assert (brighter | saturated | contrast).all()
    assert min(int(kind.sum()) for kind in (brighter, saturated, contrast)) > 8
    assert 0.8 <= float(ratios[brighter].min()) < 0.9
    assert 1.1 < float(ratios[brighter].max()) <= 1.2001
    monkeypatch.setattr(efficientad_losses, "STRENGTH", (1.0, 1.0))
    torch.testing.assert_close(jittered(images, scale, torch.Generator()), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_the_map_covers_the_tile_and_its_border_is_as_its_middle(size: str) -> None:
    network = pdn.PDN(size, 12)
    with torch.no_grad():
        described = network(torch.full((1, 3, 40, 64), 0.7))

    assert described.shape == (1, 12, 10, 16)
    torch.testing.assert_close(described, described[:, :, 5:6, 8:9].expand_as(described), atol=1e-6, rtol=1e-5)


def test_a_halo_of_16_pixels_makes_tiled_and_whole_the_same() -> None:
    network = pdn.PDN("small", 12)
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        whole, tile = network(image), network(image[:, :, 16:80, 16:80])

    torch.testing.assert_close(tile[:, :, 4:12, 4:12], whole[:, :, 8:16, 8:16])


def test_a_cells_middle_is_where_its_map_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.functional, "relu", lambda values: values)
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    pdn.PDN("small", 1)(image)[0, 0, 8, 8].backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().squeeze()

    assert len(rows) == 33
    assert abs(float(rows.float().mean()) - (8 * 4 + 1.5)) <= 0.5


def test_the_autoencoder_has_the_papers_shapes_at_256_pixels() -> None:
    network = AutoEncoder(256, 256, outputs=384, stride=4)

    assert network.bottleneck.kernel_size == (8, 8)
    assert [size[0] for size in network.sizes] == [3, 8, 15, 32, 63, 127]
    assert network.grid == (64, 64)
    with torch.no_grad():
        assert AutoEncoder(96, 160, outputs=12, stride=4)(torch.rand(2, 3, 96, 160)).shape == (2, 12, 24, 40)


def test_dropout_is_drawn_from_the_generator_and_only_while_training() -> None:
    network, images = AutoEncoder(32, 32, outputs=4, stride=4), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        first, again = (network(images, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, network(images))
        assert torch.equal(network(images), network(images))


def spellings(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """As this project names layers, as numbered from one, and as a sequence with gaps."""
    yield state
    yield {
        key.replace("convs.", "conv").replace(key[6], str(int(key[6]) + 1), 1): value for key, value in state.items()
    }
    yield {f"{(0, 3, 6, 8)[int(key[6])]}.{key[8:]}": value for key, value in state.items()}


def test_a_teacher_is_read_from_safetensors_and_pth_by_any_usual_naming(tmp_path: Path) -> None:
    network = pdn.PDN("small", 12).eval()
    tiles = noise(1, 3)
    expected = None
    for index, state in enumerate(spellings(network.state_dict())):
        save_file(state, tmp_path / f"{index}.safetensors")
        torch.save(state, tmp_path / f"{index}.pth")
        for suffix in ("safetensors", "pth"):
            found = SMALL.features(request(tmp_path / f"{index}.{suffix}"))(tiles)[0]
            expected = found if expected is None else expected
            assert torch.equal(found, expected)


class Command:
    """Pickled, it is a command that is carried out where it is unpickled."""

    def __init__(self, ran: Path) -> None:
        """Take the file that the command would make."""
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.ran}",)


def test_a_teacher_that_teaches_nothing_or_holds_code_is_refused_in_a_line(tmp_path: Path) -> None:
    silent = {key: torch.zeros_like(value) for key, value in pdn.PDN("small", 12).state_dict().items()}
    save_file(silent, tmp_path / "silent.safetensors")
    with pytest.raises(ConfigError, match="weights are all 0"):
        SMALL.features(request(tmp_path / "silent.safetensors"))
    torch.save(Command(tmp_path / "ran"), tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match=r"holds more than tensors \(posix.system\)") as caught:
        SMALL.features(request(tmp_path / "evil.pth"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_safetensors_file_is_known_without_its_ending(tmp_path: Path) -> None:
    save_file(pdn.PDN("small", 12).state_dict(), tmp_path / "teacher")
    assert SMALL.features(request(tmp_path / "teacher")).channels == (12,)


def test_without_a_teacher_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takt teacher --backbone"):
        SMALL.features(request(None))
    with pytest.raises(ConfigError, match="no such file"):
        SMALL.features(request(tmp_path / "none.safetensors"))
    save_file(pdn.PDN("medium", 12).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="efficientad_m"):
        SMALL.features(request(tmp_path / "m.safetensors"))
    torch.save({"model": PIXELS}, tmp_path / "objects.pth")
    with pytest.raises(ConfigError, match="holds more than tensors"):
        SMALL.features(request(tmp_path / "objects.pth"))


def test_the_bundle_is_told_of_the_patent_and_of_the_teachers_licence(tmp_path: Path) -> None:
    told = {"licence": "bsd-3-clause", "note": "distilled"}
    save_file(pdn.PDN("small", 12).state_dict(), tmp_path / "pdn.safetensors", metadata={"takt": json.dumps(told)})
    origin = SMALL.features(request(tmp_path / "pdn.safetensors")).origin

    assert "patented" in NOTE
    assert SMALL.note == NOTE
    assert (origin.licence, origin.note) == ("bsd-3-clause", "distilled")
    assert origin.digest is not None


@pytest.mark.slow
@pytest.mark.parametrize("geometry", [{"size": [64, 64]}, {"tile": 64, "halo": 16}])  # 64 + 2 * 16 is the plane's 96
def test_a_draft_tells_of_patent_and_teacher_and_holds_an_autoencoder_for_whole_planes_only(
    geometry: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AutoEncoder] = []

    def autoencoder(*sides: int, **rest: int) -> AutoEncoder:
        made.append(AutoEncoder(*sides, **rest))
        return made[-1]

    monkeypatch.setattr(efficientad, "AutoEncoder", autoencoder)
    save_file(pdn.PDN("small", 12).state_dict(), tmp_path / "pdn.safetensors")
    write_dataset(tmp_path / "flange", seed=1, train=12, test_good=1, per_defect=0, width=96, height=96)
    flags = {"method": "efficientad_s", "teacher": str(tmp_path / "pdn.safetensors"), "steps": 2, "workers": 0}
    fit(make_config(flags | geometry, None), tmp_path / "flange", tmp_path / "flange.draft")

    with Archive(tmp_path / "flange.draft") as archive:
        told = json.loads(archive.read("LICENCES.json"))
        manifest = json.loads(archive.read(DRAFT))
    assert "patented" in told["method"]
    assert told["weights"]["source"] == "pdn.safetensors"
    assert len(manifest["provenance"]["splits"]["validation"]) == 1
    assert bool(made) == ("size" in geometry)
    with pytest.raises(ConfigError, match="--backbone"):
        fit(make_config(flags | {"backbone": "gabor"}, None), tmp_path / "flange", tmp_path / "other.draft")
