"""What `takt serve` refuses to start with: said in one sentence, with the exit code of its kind, before anything is changed."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.line import TAKT, Line, free_port, serving, until

Spoil = Callable[[Line, Path], None]


def refused(line: Line, code: int, *says: str, check: bool | None = None) -> None:
    """Both `takt serve` and its `--check-config` end with a code and say what is wrong; or one of them."""
    for flags in [flag for flag in ([], ["--check-config"]) if check is None or bool(flag) is check]:
        done = subprocess.run(
            [*TAKT, "serve", "--config", str(line.config), *flags],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        for word in says:
            assert word in done.stderr, (flags, done.stderr)


def given(stub: Path) -> dict[str, Any]:
    """A camera whose frames come with the trigger."""
    return {"name": "given", "bundle": str(stub), "source": "client"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.9", "line.example.com", "[::]"])  # noqa: S104 - it is refused
def test_an_address_that_others_could_reach_is_refused(stub: Path, tmp_path: Path, host: str) -> None:
    line = Line(tmp_path, given(stub), endpoint=f"tcp://{host}:5550")
    refused(line, 2, "endpoint", "loopback")
    assert not line.run_dir.exists()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"endpoint": "ipc://x"}, "is no address"),
        ({"endpoint": "tcp://127.0.0.1:65535"}, "no room"),
        ({"wokers": 2}, "wokers: no such key"),
        ({"workers": 0}, "workers"),
        ({"workers": "2"}, "workers"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(
    stub: Path, tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    refused(Line(tmp_path, given(stub), **keys), 2, "line.toml", says)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"source": "folder:/nowhere"}, "/nowhere does not exist"),
        ({"source": "magic"}, "camera.0.source"),
        ({"bundel": "x"}, "camera.0.bundel: no such key"),
        ({"name": "a b"}, "camera.0.name"),
        ({"trigger": "hardware"}, "trigger"),
        ({"deadline_ms": 0}, "camera.0.deadline_ms"),
        ({"bundle": "nowhere.takt"}, "nowhere.takt does not exist"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_by_its_setting(
    stub: Path, tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    """A folder that is missing may come later, so only the check minds."""
    line = Line(tmp_path, {**given(stub), **keys})
    refused(line, 2, says, check=True if "folder" in keys.get("source", "") else None)


def test_a_file_that_is_none_is_refused(tmp_path: Path, stub: Path) -> None:
    line = Line(tmp_path, given(stub))
    line.config.write_text("station = ", encoding="utf-8")
    refused(line, 2, "line.toml", "is not TOML")
    line.config.unlink()
    refused(line, 2, "line.toml", "cannot be read")


def test_two_cameras_of_a_name_are_refused(stub: Path, tmp_path: Path) -> None:
    refused(Line(tmp_path, given(stub), given(stub)), 2, "not unique")


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_bundle_that_is_damaged_is_refused_as_a_bundle(stub: Path, tmp_path: Path, damage: bytes | None) -> None:
    bundle = tmp_path / "damaged.takt"
    whole = stub.read_bytes()
    bundle.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    refused(Line(tmp_path, given(bundle)), 3, "damaged.takt")


def test_a_line_that_can_be_served_passes_the_check(stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, given(stub))
    command = [*TAKT, "serve", "--config", str(line.config), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "given" in done.stdout
    assert "verified and tested here" in done.stdout


def test_a_second_service_on_the_same_folder_is_refused_and_the_first_one_goes_on(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, given(stub)) as line:
        other = Line(tmp_path / "other", given(stub), run_dir=str(line.run_dir), port=free_port())
        refused(other, 2, "another `takt serve` uses", str(line.run_dir), check=False)
        assert (line.status() or {})["ready"]


def test_a_port_that_is_taken_is_refused(stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, given(stub))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", line.port + 2))
        taken.listen()
        refused(line, 2, str(line.port + 2), "another service uses it", check=False)


def test_a_run_dir_that_cannot_be_written_to_is_refused(stub: Path, tmp_path: Path) -> None:
    """A file where the folder should be: root may write everywhere else."""
    line = Line(tmp_path, given(stub))
    line.run_dir.write_text("in the way", encoding="utf-8")
    refused(line, 2, "run_dir", "choose another folder")
    assert line.run_dir.read_text() == "in the way"


def test_a_run_dir_on_a_read_only_disk_is_refused(stub: Path, tmp_path: Path) -> None:
    line = Line(tmp_path, given(stub))
    line.run_dir.mkdir()
    serve = " ".join([*TAKT, "serve", "--config", str(line.config)])
    script = f"mount -t tmpfs -o ro tmpfs {line.run_dir} || exit 99; exec {serve}"
    command = ["unshare", "-rm", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert "choose another folder" in done.stderr


def spoil_with(content: bytes) -> Spoil:
    """Replace the journal."""

    def spoil(line: Line, _: Path) -> None:
        (line.run_dir / "journal.sqlite").write_bytes(content)

    return spoil


def spoil_inside(line: Line, _: Path) -> None:
    """Damage the journal's pages."""
    path = line.run_dir / "journal.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def spoil_epoch(line: Line, _: Path) -> None:
    """Make the count of starts unreadable."""
    (line.run_dir / "epoch").write_text("many", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_with(b"garbage" * 1000), "journal.sqlite"),
        (spoil_inside, "journal.sqlite"),
        (spoil_epoch, "epoch"),
    ],
    ids=["no journal", "damaged journal", "no epoch"],
)
def test_a_journal_that_cannot_be_trusted_is_refused_with_what_to_do(
    stub: Path, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    with serving(tmp_path, given(stub)) as line:
        assert line.stop() == 0
        for left in ("journal.sqlite-wal", "journal.sqlite-shm"):
            (line.run_dir / left).unlink(missing_ok=True)
        spoil(line, tmp_path)
        found = (line.run_dir / "journal.sqlite").read_bytes()
        refused(line, 2, says, check=False)
        assert (line.run_dir / "journal.sqlite").read_bytes() == found


def test_a_journal_that_was_lost_reuses_no_epoch(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, given(stub)) as line:
        assert line.stop() == 0
        for left in line.run_dir.glob("journal.sqlite*"):
            left.unlink()
        line.start()
        assert (line.status() or {})["epoch"] == 2


def test_a_service_without_its_bundle_file_still_serves_what_it_kept(stub: Path, tmp_path: Path) -> None:
    """The file may vanish while it runs: workers and brokers that start anew use the kept one."""
    bundle = tmp_path / "part.takt"
    shutil.copyfile(stub, bundle)
    with serving(tmp_path, given(bundle)) as line:
        bundle.unlink()
        for kind in ("worker", "broker"):
            pid = line.kill(kind, signal.SIGKILL)
            until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "it to be gone")  # noqa: PTH110 - a process
            line.wait_ready()


def test_what_it_says_before_it_serves_is_one_line_of_json_each(stub: Path, tmp_path: Path) -> None:
    with serving(tmp_path, given(stub)) as line:
        assert line.stop() == 0
        lines = line.log.read_text().splitlines()
        assert all(json.loads(text)["event"] for text in lines)
