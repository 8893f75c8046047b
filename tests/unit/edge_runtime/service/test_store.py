"""What the service keeps of a bundle stays as it was, whatever happens to the file."""

import shutil
from pathlib import Path

import pytest
from support.headers import FRAME

from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.service.store import BundleFacts, adopt, forget, read_facts, recall, stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundles"
    made.mkdir()
    return made


@pytest.fixture
def bundle(tmp_path: Path, stub: Path) -> Path:
    return Path(shutil.copyfile(stub, tmp_path / "part.takt"))


def test_a_bundle_is_kept_under_its_digest(folder: Path, bundle: Path) -> None:
    facts = adopt(bundle, folder)
    assert facts.path == stored(folder, facts.digest)
    assert facts.path.read_bytes() == bundle.read_bytes()
    assert facts.frame == FRAME
    assert recall(folder, facts.digest) == facts
    assert [path.name for path in folder.iterdir()] == [f"{facts.digest}.takt"]


def test_what_is_kept_survives_that_the_file_is_written_over_in_place(folder: Path, bundle: Path) -> None:
    """As `cp new.takt part.takt` does."""
    facts = adopt(bundle, folder)
    before = bundle.read_bytes()
    with bundle.open("r+b") as file:
        file.truncate(0)
        file.write(b"another bundle")
    assert facts.path.read_bytes() == before


def test_what_is_kept_already_is_not_copied_again(folder: Path, bundle: Path) -> None:
    kept = adopt(bundle, folder).path
    before = kept.stat()
    assert adopt(bundle, folder).path == kept
    assert adopt(kept, folder).path == kept
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_kept_bundle_that_was_damaged_is_replaced(folder: Path, bundle: Path) -> None:
    kept = adopt(bundle, folder).path
    kept.write_bytes(b"rotten")
    assert recall(folder, kept.stem) is None
    assert adopt(bundle, folder).path.read_bytes() == bundle.read_bytes()


def test_what_is_no_bundle_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "no.takt"
    other.write_bytes(b"PK no")
    with pytest.raises(BundleError):
        adopt(other, folder)
    with pytest.raises(BundleError):
        adopt(tmp_path / "missing.takt", folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be kept there"):
        adopt(bundle, tmp_path / "missing")


def test_what_nobody_names_is_removed_and_so_are_broken_copies(folder: Path, bundle: Path) -> None:
    facts = adopt(bundle, folder)
    shutil.copyfile(bundle, stored(folder, "0" * 64))
    stored(folder, facts.digest).with_suffix(".tmp").write_bytes(b"half")
    (folder / "note.txt").write_text("mine")
    forget(folder, {facts.digest})
    assert {path.name for path in folder.iterdir()} == {f"{facts.digest}.takt", "note.txt"}


def test_a_bundle_under_the_name_of_another_is_not_recalled(folder: Path, bundle: Path) -> None:
    shutil.copyfile(bundle, stored(folder, "0" * 64))
    assert recall(folder, "0" * 64) is None
    assert recall(folder, "1" * 64) is None


def test_facts_pass_through_a_pipe_unchanged(bundle: Path) -> None:
    facts = read_facts(bundle)
    assert BundleFacts.from_json(facts.as_json()) == facts
