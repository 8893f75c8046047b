"""What contract tests share: the small bundle taken apart, and changed bundles that are well formed all the same."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.store import MANIFEST

Manifest = dict[str, Any]
Members = dict[str, bytes]


class Reseal(Protocol):
    """Makes a bundle of the small one's members and manifest after a change, with every digest recomputed."""

    def __call__(
        self, change: Callable[[Manifest], object] | None = None, *, members: Mapping[str, bytes | None] | None = None
    ) -> Path:
        """Change the manifest in place, replace members (None takes one out), and write."""


class Small(Protocol):
    """The fixture of that name in tests/conftest.py."""

    dataset: Path
    draft: Path
    bundle: Path


@pytest.fixture(scope="session")
def small_bundle(small: Small) -> Path:
    """A sealed bundle of 96x96 frames with an OpenVINO and an ONNX Runtime artefact; not to be changed."""
    return small.bundle


@pytest.fixture(scope="session")
def small_draft(small: Small) -> Path:
    """The draft that it was sealed from."""
    return small.draft


@pytest.fixture(scope="session")
def small_dataset(small: Small) -> Path:
    """The data set that it was built from."""
    return small.dataset


@pytest.fixture(scope="session")
def small_members(small_bundle: Path) -> Members:
    """Every member of the small bundle, the manifest among them."""
    with Archive(small_bundle) as archive:
        return {name: archive.read(name) for name in sorted(archive.names)}


@pytest.fixture
def reseal(small_members: Members, tmp_path: Path) -> Reseal:
    """See `Reseal`."""

    def made(
        change: Callable[[Manifest], object] | None = None, *, members: Mapping[str, bytes | None] | None = None
    ) -> Path:
        changed = {name: data for name, data in (small_members | (members or {})).items() if data is not None}
        manifest = json.loads(changed.pop(MANIFEST))
        manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in changed.items()}
        if change is not None:
            change(manifest)
        path = tmp_path / "changed.takt"
        write_archive(path, {MANIFEST: json.dumps(manifest).encode()} | changed)
        return path

    return made


@pytest.fixture(scope="session")
def one_image(small_dataset: Path) -> Path:
    """A good part of the small data set."""
    return min((small_dataset / "train" / "good").iterdir())


class Takt(Protocol):
    """Runs the installed command in a process of its own."""

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Exit code, stdout and stderr; whatever the exit code."""


@pytest.fixture(scope="session")
def takt() -> Takt:
    """See `Takt`."""
    command = Path(sys.executable).with_name("takt")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ)
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run
