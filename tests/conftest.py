"""What all tests share: where real images are, and that none is skipped where they are at hand."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

REAL = ("TAKT_DATA", "TAKT_WEIGHTS")
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes of two threads each are slower on two cores than two of one
    os.environ.setdefault("OMP_NUM_THREADS", "1")
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With real images and weights at hand there is no reason to skip: a skipped test shows nothing."""
    if _skipped and all(os.environ.get(name) for name in REAL) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\n{len(_skipped)} test(s) were skipped although {' and '.join(REAL)} are set: {_skipped}")  # noqa: T201


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image sets; skips where there is none."""
    return _folder("TAKT_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of real weights; skips where there is none."""
    return _folder("TAKT_WEIGHTS")


def _folder(name: str) -> Path:
    if not os.environ.get(name):
        pytest.skip(f"needs real files: set {name} to their folder")
    return Path(os.environ[name])


@dataclass(frozen=True, slots=True)
class Small:
    """A small generated data set with the draft and the bundle made of it, built once a run."""

    dataset: Path
    draft: Path
    bundle: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """PatchCore on `gabor` over 96x96 frames of the generated part: seconds to make, real in every step."""
    from calibration.layouts import open_dataset  # noqa: PLC0415 - only tests that need it pay for torch
    from calibration.sealing import seal  # noqa: PLC0415
    from trainer.config import make_config  # noqa: PLC0415
    from trainer.demo.product import write_dataset  # noqa: PLC0415
    from trainer.fitting import fit  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("small")
    dataset, draft, bundle = folder / "flange", folder / "flange.draft", folder / "flange.takt"
    write_dataset(dataset, seed=1, train=24, test_good=6, per_defect=1, width=96, height=96)
    flags = {"backbone": "gabor", "size": [96, 96], "coreset": 200, "holdout": 0.4, "workers": 0}
    fit(make_config(flags, None), dataset, draft)
    seal(draft, open_dataset(dataset), bundle)
    return Small(dataset=dataset, draft=draft, bundle=bundle)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle of 96x64 mono8 frames: ACCEPT below 128, REJECT from 128, ERROR with a pixel of 255."""
    from edge_runtime.imaging.frames import Size  # noqa: PLC0415
    from trainer.bench.stub import write_stub  # noqa: PLC0415

    return write_stub(tmp_path_factory.mktemp("stub") / "stub.takt", frame=Size(96, 64))
