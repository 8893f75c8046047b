"""The command `takt` as a user types it, and bundles that it made."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pytest

from edge_runtime.cli import main
from trainer.demo.product import write_dataset

TAKT = Path(sys.executable).parent / "takt"


class SmallSet(Protocol):
    """What the fixture `small` of all tests gives."""

    dataset: Path
    draft: Path
    bundle: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object of stdout."""
        (line,) = self.out.splitlines()
        value: dict[str, Any] = json.loads(line)
        return value

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Takt = Callable[..., Ran]


@pytest.fixture(scope="session")
def takt() -> Takt:
    """Runs `takt` in a process of its own, offline."""

    def run(*arguments: object, without: str | None = None) -> Ran:
        environment = {name: value for name, value in os.environ.items() if name != without}
        done = subprocess.run(
            [TAKT, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=environment | {"HF_HUB_OFFLINE": "1"},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def takt_here(capfd: pytest.CaptureFixture[str]) -> Iterator[Takt]:
    """Runs the same command in this process, where torch is imported already; an exception would be a traceback."""
    log = logging.getLogger("takt")
    before = (log.handlers[:], log.level, log.propagate)

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    yield run
    log.handlers[:], log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(scope="session")
def takt_build() -> Callable[..., None]:
    """Runs `takt build` in this process, for what several tests share; its output goes where the test's goes."""

    def run(*arguments: object) -> None:
        log = logging.getLogger("takt")
        before = (log.handlers[:], log.level, log.propagate)
        try:
            assert main(["build", *map(str, arguments)]) == 0
        finally:
            log.handlers[:], log.propagate = before[0], before[2]
            log.setLevel(before[1])

    return run


@pytest.fixture(scope="session")
def bundle(small: SmallSet) -> Path:
    """The small bundle's file."""
    return small.bundle


@pytest.fixture(scope="session")
def draft(small: SmallSet) -> Path:
    """The small draft's file."""
    return small.draft


@pytest.fixture(scope="session")
def dataset(small: SmallSet) -> Path:
    """The small data set."""
    return small.dataset


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Ten good parts of 64x64 to train on, two good and three scratched ones to test, with masks; to be spoiled."""
    root = tmp_path / "parts"
    write_dataset(root, seed=5, train=10, test_good=2, per_defect=0, width=64, height=64)
    scratched, masks = root / "test/scratch", root / "ground_truth/scratch"
    scratched.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index in range(3):
        pixels = cv2.imread(str(root / "test/good/000.png"))
        pixels[10 + index : 30, 20:24] = 255
        cv2.imwrite(str(scratched / f"{index}.png"), pixels)
        mask = np.zeros((64, 64), np.uint8)
        mask[10 + index : 30, 20:24] = 255
        cv2.imwrite(str(masks / f"{index}_mask.png"), mask)
    return root


@pytest.fixture(scope="session")
def strict_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub with another threshold: REJECT from 64."""
    from edge_runtime.imaging.frames import Size  # noqa: PLC0415 - only tests that need it pay for torch
    from trainer.bench.stub import write_stub  # noqa: PLC0415

    out = tmp_path_factory.mktemp("stub") / "strict.takt"
    return write_stub(out, frame=Size(96, 64), threshold=64.0, product="strict")


@pytest.fixture(scope="session")
def large_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub for frames of 128x96."""
    from edge_runtime.imaging.frames import Size  # noqa: PLC0415
    from trainer.bench.stub import write_stub  # noqa: PLC0415

    return write_stub(tmp_path_factory.mktemp("stub") / "large.takt", frame=Size(128, 96), product="large")
