"""A full disk: on a real file system without room, the write is refused, explained, and leaves what was there."""

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TAKT = Path(sys.executable).with_name("takt")
WRITE = """
import sys
from pathlib import Path
from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.errors import BundleError

try:
    write_archive(Path(sys.argv[1]), {"manifest.json": b"{}", "graph.bin": bytes(int(sys.argv[2]))})
except BundleError as error:
    sys.stderr.write(str(error))
    sys.exit(error.exit_code)
"""


def on_small_disk(
    mount: Path, size: str, command: list[str | Path], *, before: str = "true"
) -> subprocess.CompletedProcess[str]:
    """Run a command with a file system of that size at `mount`, in a namespace of its own.

    The output ends with what lies there afterwards: a line of SHA-256 and path for every file.
    """
    mount.mkdir()
    folder = shlex.quote(str(mount))
    script = (
        f"mount -t tmpfs -o size={size} tmpfs {folder} || exit 99\n{before} || exit 98\n"
        f"{shlex.join(map(str, command))}\ncode=$?\necho '== left =='\nfind {folder} -type f -exec sha256sum {{}} +\nexit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, check=False, timeout=200
    )
    assert "== left ==" in done.stdout, (
        f"no small file system could be made, so that nothing was shown: `unshare -rm` and a tmpfs must be permitted "
        f"(exit code {done.returncode}): {done.stderr}"
    )
    assert list(mount.iterdir()) == []  # all of it happened inside
    return done


def left(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """SHA-256 by path of what lay on the small disk at the end."""
    lines = done.stdout.partition("== left ==\n")[2].splitlines()
    return {line[66:]: line[:64] for line in lines}


def test_a_bundle_that_fits_is_written(tmp_path: Path) -> None:
    """Shows that the other tests here fail for want of room."""
    path = tmp_path / "disk" / "x.takt"
    done = on_small_disk(path.parent, "300k", [sys.executable, "-c", WRITE, path, "100000"])
    assert done.returncode == 0, done.stderr
    assert list(left(done)) == [str(path)]


@pytest.mark.parametrize("size", ["400000", "307000", "8000000"])
def test_a_bundle_that_does_not_fit_leaves_nothing(tmp_path: Path, size: str) -> None:
    path = tmp_path / "disk" / "x.takt"
    done = on_small_disk(path.parent, "300k", [sys.executable, "-c", WRITE, path, size])
    assert done.returncode == 3
    assert done.stderr == (f"{path}: cannot be written (No space left on device): free space or choose another folder")
    assert left(done) == {}


def test_an_older_bundle_survives_a_newer_one_that_does_not_fit(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk" / "x.takt"
    before = shlex.join(["cp", str(small_bundle), str(path)])
    done = on_small_disk(path.parent, "1000k", [sys.executable, "-c", WRITE, path, "700000"], before=before)
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert left(done) == {str(path): hashlib.sha256(small_bundle.read_bytes()).hexdigest()}


def test_takt_calibrate_onto_a_full_disk_keeps_the_older_bundle(
    small_bundle: Path, small_dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "disk" / "x.takt"
    before = shlex.join(["cp", str(small_bundle), str(path)])
    command = [TAKT, "calibrate", path, small_dataset, "--out", path]
    done = on_small_disk(path.parent, "1000k", command, before=before)
    assert done.returncode == 3, done.stderr
    assert done.stdout.partition("== left")[0] == ""  # nothing says that it was sealed
    assert f"takt calibrate: {path}: cannot be written (No space left on device): free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(done) == {str(path): hashlib.sha256(small_bundle.read_bytes()).hexdigest()}


@pytest.mark.slow
def test_takt_seal_onto_a_full_disk_leaves_nothing(small_draft: Path, small_dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk" / "x.takt"
    done = on_small_disk(path.parent, "300k", [TAKT, "seal", small_draft, small_dataset, "--out", path, "--json"])
    assert done.returncode == 3, done.stderr
    assert done.stdout.partition("== left")[0] == ""
    assert f"takt seal: {path}: cannot be written (No space left on device): free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(done) == {}


def test_takt_calibrate_into_a_place_that_cannot_be_written_is_refused(
    small_bundle: Path, small_dataset: Path, tmp_path: Path
) -> None:
    """Other such places are in the archive's own tests."""
    where = "file/x.takt"
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    done = subprocess.run(
        [TAKT, "calibrate", small_bundle, small_dataset, "--out", tmp_path / where],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr  # found before any work, so it is a fault of usage
    assert done.stdout == ""
    assert f"takt calibrate: --out {tmp_path / where}: the folder cannot be written to" in done.stderr
    assert "choose another, or create it" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"
