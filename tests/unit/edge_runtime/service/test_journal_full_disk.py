"""A full disk under the journal: errors while it lasts, nothing lost or contradicted, and work goes on afterwards."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAD = """
import json, os, sys
from pathlib import Path
from support.journals import Gate, Writing, acceptance, decide, not_in_time, open_journal, page, put_down
from edge_runtime.errors import ConfigError
from edge_runtime.service.operations import Accept, Probe, ReadRecords
folder = Path(sys.argv[1])

def fill():
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            print(error, file=sys.stderr)

def free():
    (folder / "filler").unlink()

def said(outcomes):
    return [outcome.error or getattr(outcome.value, "seq", None) for outcome in outcomes]
"""


def on_small_disk(mount: Path, script: str) -> Any:  # noqa: ANN401 - whatever the script prints as JSON
    """Run Python with a file system of 6 MB at `mount`, in a namespace of its own."""
    mount.mkdir()
    folder = shlex.quote(str(mount))
    run = shlex.join([sys.executable, "-c", HEAD + script, str(mount)])
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", f"mount -t tmpfs -o size=6m tmpfs {folder} || exit 99\n{run}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])},
    )
    assert done.returncode != 99, f"`unshare -rm` and a tmpfs must be permitted: {done.stderr}"
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr  # it was full indeed
    assert list(mount.iterdir()) == []  # all of it happened inside
    return json.loads(done.stdout)


def test_a_full_disk_fails_operations_until_there_is_room_and_leaves_no_hole(tmp_path: Path) -> None:
    said = on_small_disk(
        tmp_path / "disk",
        """
writing = Writing(folder, durable=True)
before = said([writing.do(decide(acceptance("t0")))])
fill()
many = [decide(acceptance(f"full{number}")) for number in range(900)]
writing.submit(*many)
full = said(writing.outcomes(len(many)))
probe = said([writing.do(Probe())])
free()
after = said([writing.do(Probe()), writing.do(decide(acceptance("t1"))), writing.do(many[0])])
left = put_down(folder, "full899")
writing.stop()
journal = open_journal(folder)
records = [(record.seq, record.trigger_id, record.verdict) for record in page(journal).records]
print(json.dumps([before, full, probe, after, left, records]))
""",
    )
    before, full, probe, after, left, records = said
    assert before == [1]
    assert len(full) == 900
    assert all("full" in error for error in full), set(full)
    assert "full" in probe[0]
    assert after == [None, 2, 3]
    assert left is False  # settled by the first commit that went through
    assert records == [[1, "t0", "ACCEPT"], [2, "t1", "ACCEPT"], [3, "full0", "ACCEPT"]]


def test_a_verdict_can_be_disowned_on_a_full_disk_and_does_not_come_back(tmp_path: Path) -> None:
    put_down, started, reasons = on_small_disk(
        tmp_path / "disk",
        """
child = os.fork()
if child == 0:  # commits in spite of being disowned, and dies before it could rewrite
    gate = Gate()
    writing = Writing(folder, clock=gate.clock, durable=True)
    gate.shut()
    late = decide(acceptance("late"))
    writing.submit(late)
    gate.wait_until_reached()
    fill()
    writing.writer.cancel(late, not_in_time(late.acceptance))
    (folder / "filler").open("r+b").truncate((folder / "filler").stat().st_size - 80 * 1024)  # room for this commit
    writing.writer.journal.settle = lambda rewrites: os._exit(7)
    gate.open()
    writing.outcomes(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
down = put_down(folder, "late")
fill()
try:
    open_journal(folder)
    started = "started"
except ConfigError as error:
    started = str(error)
free()
journal = open_journal(folder)
print(json.dumps([down, started, [(record.seq, record.reason) for record in page(journal).records]]))
""",
    )
    assert put_down is True
    assert "free space" in started
    assert reasons == [[1, "JOURNAL"]]
