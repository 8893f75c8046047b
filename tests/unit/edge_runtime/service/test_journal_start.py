"""What a start of the journal makes of what it finds on disk."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journals import STATION, Starts, acceptance, decide, not_in_time, one, open_journal, page, restart

from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.service.disowned import SLOT_BYTES, SLOTS, Disowned, Entry, fits
from edge_runtime.service.journal_file import Clock
from edge_runtime.service.operations import Accept, Decide, Key, Stored


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    starts = Starts(tmp_path)
    yield starts
    starts.close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_every_start_has_an_epoch_of_its_own(start: Starts) -> None:
    assert [start().epoch for _ in range(3)] == [1, 2, 3]


def test_a_lost_journal_does_not_bring_an_old_epoch_back(start: Starts, tmp_path: Path) -> None:
    assert [start().epoch for _ in range(2)] == [1, 2]
    start.close()
    (tmp_path / "journal.sqlite").unlink()
    journal = start()
    assert (journal.epoch, journal.newest) == (3, 0)


def test_a_lost_count_of_starts_is_taken_from_the_journal(start: Starts, tmp_path: Path) -> None:
    assert [start().epoch for _ in range(2)] == [1, 2]
    (tmp_path / "epoch").unlink()
    assert start().epoch == 3
    assert (tmp_path / "epoch").read_bytes() == b"3\n"


def test_a_count_of_starts_that_is_no_number_is_refused(start: Starts, tmp_path: Path) -> None:
    start()
    (tmp_path / "epoch").write_bytes(b"\0\0")
    with pytest.raises(ConfigError, match=r"epoch: holds .* expected the number of the last start: write one"):
        start()
    (tmp_path / "epoch").write_bytes(b"41")
    assert start().epoch == 42


# --- what was open ----------------------------------------------------------------------------------------------------


def test_triggers_that_were_open_get_restart_in_the_order_they_came(start: Starts) -> None:
    journal = start()
    opened = [acceptance(name) for name in ("c", "a", "b")]
    journal.apply([*(Accept(acceptance=accepted) for accepted in opened), decide(acceptance("done"))])
    journal = start()
    assert (journal.recovered, journal.unfinished, journal.newest) == (3, 0, 4)
    records = page(journal).records
    assert [record.trigger_id for record in records] == ["done", "c", "a", "b"]
    assert [record.reason for record in records[1:]] == [Reason.RESTART] * 3
    stored = one(journal, Accept(acceptance=opened[0]))
    assert isinstance(stored, Stored)
    assert stored.answer == restart(opened[0]).model_copy(update={"seq": 2})
    assert start().recovered == 0


def test_the_wall_clock_has_no_part_in_the_order(start: Starts) -> None:
    for now_s in (3e9, 1e9, 2e9):
        one(start(clock=Clock(utc_s=lambda now_s=now_s: now_s)), decide(acceptance(f"{now_s:.0f}")))  # type: ignore[misc]
    assert [record.trigger_id for record in page(start()).records] == ["3000000000", "1000000000", "2000000000"]


# --- files that are refused -------------------------------------------------------------------------------------------


def filled(folder: Path) -> Path:
    journal = open_journal(folder)
    journal.apply([decide(acceptance(f"t{number}")) for number in range(50)])
    journal.close()
    return folder / "journal.sqlite"


@pytest.mark.parametrize("share", [0.001, 0.03, 0.5, 0.99])
def test_a_truncated_journal_is_refused_and_kept(tmp_path: Path, share: float) -> None:
    path = filled(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"journal.sqlite: .* move the file and those beside it"):
        open_journal(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [1, 100, 5000, 100_000])
def test_a_file_of_garbage_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(garbage := b"no database " * (size // 12 + 1))
    with pytest.raises(ConfigError, match=r"journal.sqlite: .*not a database.* move the file"):
        open_journal(tmp_path)
    assert path.read_bytes() == garbage


def test_garbage_in_the_middle_of_a_journal_is_found(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    with pytest.raises(ConfigError, match=r"journal.sqlite: .* move the file"):
        open_journal(tmp_path)


def test_a_journal_of_a_newer_release_is_refused_and_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 2")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"journal.sqlite: is a journal of version 2, this release reads version 1"):
        open_journal(tmp_path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE recipes (id)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"journal.sqlite: is a database, but no journal of Takt"):
        open_journal(tmp_path)
    assert path.read_bytes() == before


def test_the_journal_of_another_station_is_refused_and_its_starts_not_counted(start: Starts, tmp_path: Path) -> None:
    one(start(), Accept(acceptance=acceptance("t1")))
    with pytest.raises(ConfigError, match=r"is the journal of station 'press-4', not of 'press-5'"):
        start(station="press-5")
    assert (tmp_path / "epoch").read_bytes() == b"1\n"
    assert start(station=STATION).recovered == 1


def test_a_second_service_in_the_same_folder_is_refused_and_answers_nothing(start: Starts, tmp_path: Path) -> None:
    journal = start()
    one(journal, Accept(acceptance=acceptance("t1")))
    with pytest.raises(ConfigError, match="is in use, another service runs in this run_dir: stop it"):
        open_journal(tmp_path)
    assert (journal.newest, journal.unfinished) == (0, 1)
    assert page(journal).records == ()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"file.*: cannot be used"):
        open_journal(tmp_path / "file")


def test_a_refused_journal_lets_go_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database " * 100)
    for _ in range(2):
        with pytest.raises(ConfigError, match="not a database"):
            open_journal(tmp_path)
    path.unlink()
    open_journal(tmp_path).close()


# --- disowned verdicts ------------------------------------------------------------------------------------------------


def disown(folder: Path, *entries: Entry) -> None:
    file = Disowned.open(folder / "disowned")
    for entry in entries:
        file.add(entry)
    file.close()


def test_a_disowned_verdict_is_rewritten_at_its_place_before_anything_else(start: Starts, tmp_path: Path) -> None:
    journal = start()
    t1, t2, still_open = acceptance("t1"), acceptance("t2"), acceptance("open")
    journal.apply([decide(t1), decide(t2), Accept(acceptance=still_open)])
    start.close()
    disown(tmp_path, Entry(key=t2.key, after=1), Entry(key=still_open.key, after=2))
    journal = start()
    first, second, third = page(journal).records
    assert (first.verdict, first.seq) == (Verdict.ACCEPT, 1)
    assert (second.verdict, second.reason, second.journaled, second.seq) == (Verdict.ERROR, Reason.JOURNAL, False, 2)
    assert (second.score, second.threshold, second.regions, second.trigger_id) == (None, None, (), "t2")
    assert (third.reason, third.seq) == (Reason.RESTART, 3)  # contradicts nothing
    assert (tmp_path / "disowned").read_bytes() == bytes(SLOTS * SLOT_BYTES)


def test_a_verdict_from_before_it_was_disowned_stands(start: Starts, tmp_path: Path) -> None:
    one(start(), decide(acceptance("t1")))
    start.close()
    disown(tmp_path, Entry(key=acceptance("t1").key, after=1))
    assert page(start()).records[0].verdict is Verdict.ACCEPT


def test_disowned_keys_that_never_reached_the_journal_are_forgotten(start: Starts, tmp_path: Path) -> None:
    start()
    start.close()
    disown(tmp_path, Entry(key=acceptance("t1").key, after=0))
    one(start(), decide(acceptance("t1")))
    assert page(start()).records[0].verdict is Verdict.ACCEPT


def test_a_record_that_was_rewritten_before_the_kill_keeps_what_its_client_was_told(
    start: Starts, tmp_path: Path
) -> None:
    accepted = acceptance("t1")
    one(start(), Decide(acceptance=accepted, answer=not_in_time(accepted)))
    start.close()
    disown(tmp_path, Entry(key=accepted.key, after=0))  # the kill came before the entry was removed
    assert [record.detail for record in page(start()).records] == ["not in time"]


def test_the_file_has_its_full_size_on_disk_before_a_key_is_put_down(tmp_path: Path) -> None:
    Disowned.open(tmp_path / "disowned").close()
    made = (tmp_path / "disowned").stat()
    assert made.st_size == SLOTS * SLOT_BYTES
    assert made.st_blocks * 512 >= SLOTS * SLOT_BYTES  # no holes: a full disk takes nothing from it


@pytest.mark.parametrize("keep", range(0, SLOT_BYTES, 37))
def test_a_torn_entry_is_ignored_and_whole_ones_are_read(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "disowned"
    entries = [Entry(key=acceptance(name).key, after=3) for name in ("t1", "t2", "t3")]
    disown(tmp_path, *entries)
    content = bytearray(path.read_bytes())
    at = content.find(b"plct2") // SLOT_BYTES * SLOT_BYTES
    torn = content[at : at + keep].ljust(SLOT_BYTES, b"\xff")
    content[at : at + SLOT_BYTES] = torn
    path.write_bytes(content)
    file = Disowned.open(path)
    assert {entry.key.trigger_id for entry in file.entries()} == {"t1", "t3"}
    file.close()


def test_the_longest_key_of_the_protocol_fits_and_comes_back(tmp_path: Path) -> None:
    key = Key(client="@" + "c" * 64, epoch=2**63 - 1, trigger_id="~" * 128)
    entry = Entry(key=key, after=2**63 - 1)
    assert fits(key)
    disown(tmp_path, entry)
    file = Disowned.open(tmp_path / "disowned")
    assert file.entries() == [entry]
    file.close()


def test_more_keys_than_slots_are_kept_too_and_slots_are_used_again(tmp_path: Path) -> None:
    file = Disowned.open(tmp_path / "disowned")
    entries = [Entry(key=acceptance(f"t{number}").key, after=number) for number in range(SLOTS + 5)]
    slots = [file.add(entry) for entry in entries]
    assert sorted(slots) == list(range(SLOTS + 5))
    assert {entry.after for entry in file.entries()} == set(range(SLOTS + 5))
    file.release(slots[7])
    assert file.add(entries[7]) == slots[7]
    file.reset()
    assert file.entries() == []
    assert (tmp_path / "disowned").stat().st_size == SLOTS * SLOT_BYTES
    file.close()


# --- a killed process -------------------------------------------------------------------------------------------------

COMMIT_ONE_BY_ONE = """
import sys
from pathlib import Path
from support.journals import acceptance, decide, open_journal
from edge_runtime.service.operations import Accept
journal = open_journal(Path(sys.argv[1]), durable=True)
print("open", flush=True)
for number in range(100_000):
    accepted = acceptance(f"e{journal.epoch}-{number}", epoch=journal.epoch)
    journal.apply([Accept(acceptance=accepted)])
    print("queued", accepted.key.trigger_id, flush=True)
    given, = journal.apply([decide(accepted)])
    print("answered", accepted.key.trigger_id, given.seq, flush=True)
"""


def test_what_was_confirmed_survives_a_kill_at_any_instant(start: Starts, tmp_path: Path) -> None:
    """Each round goes on with the files of the round before; nothing confirmed is lost, changed or doubled."""
    queued: list[str] = []
    answered: dict[str, int] = {}
    for lines in (1, 2, 7, 30, 61):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMIT_ONE_BY_ONE, tmp_path],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])},
        )
        assert child.stdout is not None
        said = [child.stdout.readline().split() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        assert child.wait(30) == -signal.SIGKILL
        queued += [line[1] for line in said if line[:1] == ["queued"]]
        answered |= {line[1]: int(line[2]) for line in said if line[:1] == ["answered"]}
    assert len(answered) > 30
    journal = start()
    records = page(journal).records
    assert [record.seq for record in records] == list(range(1, journal.newest + 1))
    assert len({record.trigger_id for record in records}) == len(records)
    by_id = {record.trigger_id: record for record in records}
    assert set(queued) <= set(by_id)
    assert {name: by_id[name].seq for name in answered} == answered
    assert {by_id[name].verdict for name in answered} == {Verdict.ACCEPT}
    assert {record.reason for name, record in by_id.items() if name not in answered} <= {None, Reason.RESTART}
    assert (journal.epoch, journal.unfinished) == (6, 0)
