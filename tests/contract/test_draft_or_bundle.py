"""A draft is not a bundle and a bundle is not a draft: each command says so, and which one is meant."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.draft import open_draft
from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.store import DRAFT
from edge_runtime.errors import BundleError, ManifestError

Takt = Callable[..., subprocess.CompletedProcess[str]]


def test_a_draft_is_not_loaded(small_draft: Path) -> None:
    before, steps = small_draft.read_bytes(), []
    with pytest.raises(BundleError, match=r"is a draft.* run `takt seal`") as caught:
        load(small_draft, on_step=steps.append)
    assert caught.value.exit_code == 3
    assert steps == ["directory"]
    assert small_draft.read_bytes() == before


def test_a_sealed_bundle_is_not_opened_as_a_draft(small_bundle: Path) -> None:
    before = small_bundle.read_bytes()
    with pytest.raises(BundleError, match="is sealed already; `takt calibrate`") as caught:
        open_draft(small_bundle)
    assert caught.value.exit_code == 3
    assert small_bundle.read_bytes() == before


def test_a_draft_whose_score_is_a_graphs_that_gives_none_is_refused(small_draft: Path, tmp_path: Path) -> None:
    with Archive(small_draft) as archive:
        members = {name: archive.read(name) for name in sorted(archive.names)}
    manifest = json.loads(members[DRAFT])
    manifest["map_policy"] |= {"image_score": "graph", "pooled_cells": None}
    path = tmp_path / "changed.draft"
    write_archive(path, members | {DRAFT: json.dumps(manifest).encode()})
    with pytest.raises(ManifestError, match="has_image_score is false"):
        open_draft(path)


@pytest.mark.parametrize("command", [("run",), ("bundle", "show"), ("bundle", "verify")], ids=" ".join)
def test_no_command_of_the_runtime_takes_a_draft(
    small_draft: Path,
    one_image: Path,
    takt: Takt,
    command: tuple[str, ...],
) -> None:
    done = takt(*command, small_draft, *([one_image] if command == ("run",) else []), "--json")
    assert done.returncode == 3
    assert done.stdout == ""
    assert f"{small_draft}: is a draft" in done.stderr
    assert "run `takt seal`" in done.stderr


def test_takt_seal_takes_no_sealed_bundle_and_writes_none(
    small_bundle: Path, small_dataset: Path, takt: Takt, tmp_path: Path
) -> None:
    done = takt("seal", small_bundle, small_dataset, "--out", tmp_path / "new.takt")
    assert done.returncode == 3
    assert done.stdout == ""
    assert f"{small_bundle}: is sealed already" in done.stderr
    assert "`takt calibrate`" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"no archive", bytes(100_000)], ids=["nothing", "text", "zeros"])
def test_takt_run_takes_nothing_else_either(one_image: Path, takt: Takt, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.takt"
    path.write_bytes(data)
    done = takt("run", path, one_image)
    assert (done.returncode, done.stdout) == (3, "")
    assert str(path) in done.stderr
