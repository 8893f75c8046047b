"""One service writes to one folder, and to no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.service.run_dir import RunDir, durable

_HOLD = """
import sys
from pathlib import Path
from edge_runtime.service.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock("service"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_folder_and_those_in_it_are_made_and_nothing_is_left_of_the_probe(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "a" / "run")
    for _ in range(2):
        run_dir.make()
    assert {path.name for path in run_dir.path.iterdir()} == {"bundles", "frames", "cache"}
    assert run_dir.journal.parent == run_dir.bundles.parent == run_dir.frames.parent == run_dir.cache.parent


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="choose another folder"):
        RunDir(tmp_path / "file" / "run").make()


def test_a_second_service_is_refused_and_a_lock_of_another_name_is_not(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    with run_dir.lock("service"), run_dir.lock("broker"):
        with pytest.raises(ConfigError, match="another `takt serve` uses"), run_dir.lock("service", wait_s=0.05):
            pass
        with pytest.raises(ConfigError), run_dir.lock("broker"):
            pass
    with run_dir.lock("service"):
        pass


def test_the_lock_goes_with_the_process_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"locked\n"
            with pytest.raises(ConfigError), RunDir(tmp_path).lock("service"):
                pass
        finally:
            holder.kill()
        holder.wait(60)
    with RunDir(tmp_path).lock("service", wait_s=30.0):
        pass


def test_an_error_inside_lets_go_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunDir(tmp_path).lock("service"):
        raise KeyError
    with RunDir(tmp_path).lock("service"):
        pass


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("0", True), ("", True), ("1", False)])
def test_only_a_benchmark_that_says_so_writes_without_waiting_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, value: str | None, *, expected: bool
) -> None:
    monkeypatch.delenv("TAKT_BENCH_NO_FSYNC", raising=False)
    if value is not None:
        monkeypatch.setitem(os.environ, "TAKT_BENCH_NO_FSYNC", value)
    assert durable() is expected
