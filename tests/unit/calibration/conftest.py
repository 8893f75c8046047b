"""Bundles and data sets that calibration's tests share, each made once a run."""

import shutil
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pytest

from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.samples import DataSet
from calibration.sealing import Sealed, seal
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.store import read_manifest
from edge_runtime.inspector import Inspector
from trainer.config import make_config
from trainer.demo.product import write_dataset
from trainer.fitting import fit

FLAGS: dict[str, Any] = {"backbone": "gabor", "size": [96, 96], "coreset": 200, "holdout": 0.4, "workers": 0}


class SmallSet(Protocol):
    """What the fixture `small` of all tests gives."""

    dataset: Path
    draft: Path
    bundle: Path


@pytest.fixture(scope="session")
def bundle(small: SmallSet) -> Path:
    """The small bundle's file."""
    return small.bundle


@pytest.fixture(scope="session")
def draft(small: SmallSet) -> Path:
    """The small draft's file."""
    return small.draft


@pytest.fixture(scope="session")
def opened(small: SmallSet) -> DataSet:
    """The small data set."""
    return open_dataset(small.dataset)


@pytest.fixture(scope="session")
def inspector(small: SmallSet) -> Inspector:
    """The small bundle."""
    return Inspector.open(small.bundle)


@pytest.fixture(scope="session")
def manifest(small: SmallSet) -> Manifest:
    """The small bundle's manifest."""
    with Archive(small.bundle) as archive:
        return read_manifest(archive)


@pytest.fixture
def copied(small: SmallSet, tmp_path: Path) -> Path:
    """The small data set, to be changed."""
    return Path(shutil.copytree(small.dataset, tmp_path / "copied"))


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 good images that the small bundle has not seen."""
    folder = tmp_path_factory.mktemp("fresh")
    write_dataset(folder / "set", seed=7, train=20, test_good=1, per_defect=0, width=96, height=96)
    return Path(shutil.move(folder / "set/train/good", folder / "good images"))


@pytest.fixture(scope="session")
def borrowed(small: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A bundle that half of the test tree set the thresholds of, with policy f1."""
    folder = tmp_path_factory.mktemp("borrowed")
    config = make_config(FLAGS | {"calibration_split": 0.5}, None)
    dataset = fit(config, small.dataset, folder / "part.draft")
    return seal(folder / "part.draft", dataset, folder / "part.takt", policy=parse_policy("f1"))


@pytest.fixture(scope="session")
def two_regions(small: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A bundle of a box with a mask on the left and a triangle on the right, by way of build.toml."""
    folder = tmp_path_factory.mktemp("regions")
    mask = np.zeros((96, 96), np.uint8)
    mask[24:72, :36] = 255
    (folder / "left.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    (folder / "build.toml").write_text(
        "size = [48, 48]\n"
        "[[region]]\nname = 'left'\ncrop = [0, 16, 40, 80]\nvalid_area = 'left.png'\n"
        "[[region]]\nname = 'right'\npolygon = [[56, 8], [88, 8], [88, 80]]\n"
    )
    flags = {key: value for key, value in FLAGS.items() if key != "size"}
    dataset = fit(make_config(flags, folder / "build.toml"), small.dataset, folder / "part.draft")
    return seal(folder / "part.draft", dataset, folder / "part.takt")
