"""What all tests share: where real images are, and that none is skipped where they are at hand."""

import os
from pathlib import Path

import pytest

REAL = ("TAKT_DATA", "TAKT_WEIGHTS")
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
