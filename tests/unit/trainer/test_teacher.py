from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edge_runtime.bundle.training import parse_training
from edge_runtime.errors import ConfigError
from trainer import teacher, training
from trainer.backbones import load_features
from trainer.backbones.features import PixelSpec
from trainer.cli_teacher import teacher as command
from trainer.data.textures import DrawnTextures, PictureTextures, texture_source
from trainer.models import pdn
from trainer.models.patchcore import embed
from trainer.teacher import TeacherSettings, distil, pdn_images, some_grey, target

PIXELS = PixelSpec(channels=3, bit_depth=8)
SETTINGS = TeacherSettings(backbone="gabor", steps=6, batch=2, workers=0)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdn, "LAYERS", {"small": ((8, 4), (8, 4), (8, 3), (0, 4))})
    monkeypatch.setattr(teacher, "SIDE", 64)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of several sizes and depths, some in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(6):
        drawn = (255 * DrawnTextures().draw(rng, 40 + 10 * index, 70)).astype(np.uint8)
        deep = drawn.astype(np.uint16) * 257
        where = folder / "more" if index % 2 else folder
        cv2.imwrite(str(where / f"{index}.png"), (drawn, drawn[:, :, 0], deep)[index % 3])
    return folder


def test_a_teacher_learns_is_written_and_can_be_loaded(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "pdn_small.safetensors"
    settings = TeacherSettings(backbone="gabor", steps=60, learning_rate=3e-3, batch=3, workers=1)
    losses = distil(settings, pictures, out)
    features = pdn.load_teacher(out, "small", PIXELS)

    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
    assert features(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))[0].shape == (1, 384, 8, 8)
    assert "distilled in 60 steps from gabor" in features.origin.note
    assert features.origin.licence.startswith("Takt's own")
    assert not list(tmp_path.glob("*.checkpoint"))
    record = parse_training((tmp_path / "pdn_small.training.json").read_bytes(), "pdn_small")
    assert list(record.loss) == losses


def test_a_distillation_that_was_broken_off_and_resumed_gives_the_same_teacher(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    distil(SETTINGS, pictures, whole)
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    calls = 0

    def interrupted(tiles: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return some_grey(tiles, generator)

    monkeypatch.setattr(teacher, "some_grey", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(SETTINGS, pictures, broken)
    assert not broken.exists()
    losses = distil(SETTINGS, pictures, broken, resume=True)

    assert len(losses) == 2
    assert broken.read_bytes() == whole.read_bytes()
    told, expected = (path.with_suffix(".training.json").read_bytes() for path in (broken, whole))
    assert told == expected


def test_the_target_is_patchcores_description_brought_to_384_channels() -> None:
    tiles = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    backbone = load_features("gabor", teacher.LAYERS, weights=None, pixels=PIXELS, weights_dir=None)
    found = target(backbone, tiles)
    joined = embed(backbone(tiles))

    assert found.shape == (2, 384, 8, 8)
    for row, column in ((0, 0), (3, 5)):
        expected = functional.adaptive_avg_pool1d(joined[:, :, row, column], 384)
        torch.testing.assert_close(found[:, :, row, column], expected)


def test_a_backbone_of_384_channels_is_taken_as_it_is(real_weights: Path) -> None:
    tiles = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    backbone = load_features("resnet18.tv_in1k", teacher.LAYERS, weights=None, pixels=PIXELS, weights_dir=real_weights)

    torch.testing.assert_close(target(backbone, tiles), embed(backbone(tiles)))


def test_the_network_sees_the_mean_of_four_pixels_normalised() -> None:
    tiles = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    expected = (tiles[0, 2:4, 6:8, 1].double().mean() / 255 - 0.456) / 0.224

    assert float(pdn_images(tiles)[0, 1, 1, 3]) == pytest.approx(float(expected), rel=1e-5)


def test_one_picture_in_ten_is_grey() -> None:
    tiles = torch.randint(0, 256, (2000, 2, 2, 3), dtype=torch.uint8)
    shown = some_grey(tiles, torch.Generator().manual_seed(0))
    grey = (shown == shown[..., :1]).all(dim=3).flatten(1).all(dim=1)

    assert 0.07 < float(grey.float().mean()) < 0.13
    assert torch.equal(shown[~grey], tiles[~grey])


def test_what_cannot_be_met_is_refused_before_any_work(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="safetensors"):
        distil(SETTINGS, pictures, tmp_path / "pdn.pth")
    with pytest.raises(ConfigError, match="is no folder"):
        distil(SETTINGS, tmp_path / "nowhere", tmp_path / "pdn.safetensors")
    with pytest.raises(ConfigError, match="teaches nothing"):
        distil(TeacherSettings(backbone="gabor", weights="random"), pictures, tmp_path / "pdn.safetensors")
    with pytest.raises(ConfigError, match="does not exist"):
        distil(SETTINGS, pictures, tmp_path / "pdn.safetensors", resume=True)


def test_the_command_says_what_to_do_next(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pdn.safetensors"
    flags = ["--backbone", "gabor", "--images", str(pictures), "--out", str(out), "--steps", "1", "--device", "cpu"]

    assert command(flags) == 0
    assert f"--method efficientad_s --teacher {out}" in capsys.readouterr().out
    assert command([*flags, "--json"]) == 0
    assert '"steps": 1' in capsys.readouterr().out


def test_textures_of_a_folder_are_its_pictures_and_drawn_ones_are_seeded_and_various(pictures: Path) -> None:
    assert isinstance(texture_source(pictures), PictureTextures)
    assert isinstance(texture_source(None), DrawnTextures)
    for source in (texture_source(pictures), texture_source(None)):
        first, again = (
            [source.draw(rng, 24, 32) for _ in range(8)] for rng in (np.random.default_rng(3), np.random.default_rng(3))
        )
        for one, other in zip(first, again, strict=True):
            assert one.shape == (24, 32, 3)
            assert one.dtype == np.float32
            assert 0 <= float(one.min()) <= float(one.max()) <= 1
            np.testing.assert_array_equal(one, other)
        assert len({float(texture.mean()) for texture in first}) >= 4
