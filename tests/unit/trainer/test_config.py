"""Build settings: flags over file over defaults, and every fault as one sentence."""

from pathlib import Path

import pytest

from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError
from trainer.cli import config_of
from trainer.config import BuildConfig, RegionConfig, make_config
from trainer.data.augment import Augmentation


def toml(folder: Path, text: str) -> Path:
    file = folder / "build.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_flags_and_file_the_defaults_stand() -> None:
    assert make_config({}, None) == BuildConfig()
    assert (BuildConfig().method, BuildConfig().backbone, BuildConfig().holdout) == (
        "patchcore",
        None,
        0.2,
    )


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = toml(
        tmp_path, "method = 'padim'\nseed = 5\nsize = [64, 32]\nlayers = ['layer1']\nprecision = ['f32', 'bf16']"
    )
    config = make_config({"seed": 7, "coreset": 0.5}, file)
    assert (config.method, config.seed, config.size, config.coreset) == ("padim", 7, (64, 32), 0.5)
    assert config.layers == ("layer1",)
    assert config.precision == (Precision.F32, Precision.BF16)


@pytest.mark.parametrize(
    ("tile", "core"), [("64", (64, 64)), ("[48, 64]", (48, 64)), ("64x48", (64, 48)), ("64X48", (64, 48))]
)
def test_a_tile_has_one_side_or_two_in_the_file_and_as_a_flag(tmp_path: Path, tile: str, core: tuple[int, int]) -> None:
    if "[" not in tile:
        assert config_of("parts", "--out", "x", "--tile", tile).tile == core
    if "x" not in tile.lower():
        assert make_config({}, toml(tmp_path, f"tile = {tile}")).tile == core


def test_what_was_built_is_built_again_from_its_record() -> None:
    config = make_config({"tile": 64, "halo": 16}, None)
    assert make_config(config.model_dump(mode="json"), None) == config


@pytest.mark.parametrize("tile", ["64x", "x", "64x48x3", "wide", "-64", "6.4"])
def test_a_tile_of_another_form_is_a_fault_of_usage(tile: str) -> None:
    with pytest.raises(ConfigError, match=r"--tile.* is not of the form N or WxH"):
        config_of("parts", "--out", "x", f"--tile={tile}")


def test_regions_of_the_file_find_their_masks_beside_it(tmp_path: Path) -> None:
    text = (
        "[[region]]\nname = 'left'\ncrop = [0, 0, 8, 8]\nvalid_area = 'left.png'\n"
        "[[region]]\nname = 'right'\npolygon = [[8, 0], [15, 0], [15, 7]]\nvalid_area = '/masks/right.png'\n"
    )
    config = make_config({}, toml(tmp_path, text))
    assert config.region == (
        RegionConfig(name="left", crop=(0, 0, 8, 8), valid_area=str(tmp_path / "left.png")),
        RegionConfig(name="right", polygon=((8, 0), (15, 0), (15, 7)), valid_area="/masks/right.png"),
    )


def test_the_whole_frames_mask_is_found_beside_the_file_but_a_flag_is_taken_as_typed(tmp_path: Path) -> None:
    file = toml(tmp_path, "valid_area = 'mask.png'")
    assert make_config({}, file).valid_area == str(tmp_path / "mask.png")
    assert make_config({"valid_area": "typed.png"}, file).valid_area == "typed.png"


def test_a_mask_of_the_foreground_is_found_beside_the_file_and_a_word_is_none(tmp_path: Path) -> None:
    def found(foreground: str) -> str:
        return make_config({}, toml(tmp_path, f"tile = 64\nforeground = '{foreground}'")).foreground

    assert found("mask.png") == str(tmp_path / "mask.png")
    assert (found("otsu"), found("none"), found("/masks/m.png")) == ("otsu", "none", "/masks/m.png")
    assert make_config({"foreground": "typed.png"}, toml(tmp_path, "tile = 64")).foreground == "typed.png"


def test_kinds_of_augmentation_are_a_list_in_the_file(tmp_path: Path) -> None:
    config = make_config({}, toml(tmp_path, "augment = ['light', 'flip_x']"))
    assert config.augment == (Augmentation.LIGHT, Augmentation.FLIP_X)


@pytest.mark.parametrize(("given", "kept"), [(1, 1), (1.0, 1.0), (0.25, 0.25), (4000, 4000)])
def test_a_whole_coreset_is_a_number_of_patches_and_a_fraction_a_share(given: float, kept: float) -> None:
    found = make_config({"coreset": given}, None).coreset
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sede = 1", "sede"),
        ("[[region]]\nname = 'a'\ncolour = 'red'", "region.0.colour"),
        ("[[region]]\ncrop = [0, 0, 1, 1]", "region.0.name"),
        ("[[region]]\nname = 'a b'", "region.0.name"),
        ("region = 3", "region"),
        ("region = ['left']", "region.0"),
        ("seed = '1'", "seed"),
        ("seed = 2024-01-01", "seed"),
        ("seed = -1", "seed"),
        ("holdout = 1.0", "holdout"),
        ("holdout = nan", "holdout"),
        ("size = [64]", "size"),
        ("size = [64, 0]", "size"),
        ("precision = ['f16']", "precision"),
        ("device = 'tpu'", "device"),
        ("coreset = 1.5", "coreset"),
        ("coreset = 0", "coreset"),
        ("scale = 0", "scale"),
        ("limit = 0", "limit"),
        ("seed = ", "cannot be read"),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        make_config({}, file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"size": [64, 64], "tile": 64}, "--size scales the region to one input and --tile"),
        (
            {"augment": ["turn"], "tile": [64, 32]},
            "--augment turn takes square inputs, --tile is 64x32: .* give --tile N",
        ),
        ({"augment": ["turn"], "size": [64, 32]}, "--augment turn takes square inputs, --size is 64x32"),
        ({"tile": [64]}, "tile"),
        ({"tile": [64, 0]}, "tile.1: Input should be greater than or equal to 1"),
        ({"tile": [64, 1.5]}, "tile.1: Input should be a valid integer"),
        ({"tile": "64"}, r"tile: a tile is N pixels wide and high, or \[W, H\]"),
        ({"tile": True}, r"tile: a tile is N pixels wide and high, or \[W, H\]"),
        ({"halo": 32}, "--halo and --scale belong to --tile"),
        ({"size": [64, 64], "scale": 0.5}, "--halo and --scale belong to --tile"),
        ({"region": [{"name": "a"}], "crop": [0, 0, 1, 1]}, "leave --crop and --valid-area out"),
        ({"region": [{"name": "a"}], "valid_area": "m.png"}, "leave --crop and --valid-area out"),
        ({"region": [{"name": "a"}, {"name": "a"}]}, "region names a, a are not unique"),
        ({"precision": ["bf16"]}, "--precision needs f32"),
        ({"precision": ["f32", "f32"]}, "--precision: give each once"),
    ],
)
def test_settings_that_contradict_are_refused(flags: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make_config(flags, None)
    assert "Value error" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_fault_of_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config .*nothere\.toml: cannot be read"):
        make_config({}, tmp_path / "nothere.toml")
