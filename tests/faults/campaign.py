"""Kills every process of a running line at random instants under load, and proves what must hold all the same.

`python tests/faults/campaign.py --kills 20 --seed 1`: so many kills of each kind; exit code 1 where anything is violated.
What must hold says `verify.py`.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.evidence import Evidence, read_journal
from faults.floor import CLIENTS, READERS, Floor
from faults.ledger import Ledger, read_ledger
from faults.summary import Summary, summarise
from faults.verify import verify

KINDS = ("worker", "broker", "camera", "client", "supervisor", "everything")
RATE = 30.0
_RECOVERY_S = 90.0
_STALL_S = 0.15  # a thread that only sleeps and wakes so late: the machine is to blame for what is late now
_NAP_S = 0.02
_SLOW_DISK_S = 0.05  # a commit has 30 ms at most before a deadline
_PROBE_S = 0.05


def run_campaign(folder: Path, stub: Path, *, kills: int, seed: int, rate: float = RATE) -> Summary:
    """One campaign, from the first start to the verdict.

    Args:
        folder: for everything that it leaves behind.
        stub: the bundle of all cameras.
        kills: of each kind.
        seed: of everything random.
        rate: triggers a second, in all.
    """
    floor = Floor(folder, stub, seed=seed, rate=rate)
    with _watching(floor.diary, folder / "probe"):
        try:
            floor.start()
            _strike_all(floor, kills, random.Random(seed))
            floor.finish()
        finally:
            floor.end()
    evidence = read_evidence(folder)
    return summarise(evidence, verify(evidence))


def read_evidence(folder: Path) -> Evidence:
    """What a campaign left in its folder."""
    rows, still_open = read_journal(folder / "service" / "run" / "journal.sqlite")
    return Evidence(
        clients={name: read_ledger(folder / f"{name}.jsonl") for name in CLIENTS},
        readers={name: read_ledger(folder / f"{name}.jsonl") for name in READERS},
        campaign=read_ledger(folder / "campaign.jsonl"),
        rows=rows,
        open_keys=still_open,
    )


def _strike_all(floor: Floor, kills: int, draw: random.Random) -> None:
    """All kills in random order; after a third of them the next one comes before all is well again."""
    plan = [kind for kind in KINDS for _ in range(kills)]
    draw.shuffle(plan)
    calm = True
    time.sleep(draw.uniform(1.0, 2.0))
    for kind in plan:
        floor.look()
        floor.kill(kind, draw, calm=calm)
        calm = draw.random() < 0.65
        if calm and not floor.recover(_RECOVERY_S):
            return
        time.sleep(draw.uniform(1.2, 2.5) if calm else draw.uniform(0.0, 1.0))
    if floor.recover(_RECOVERY_S):
        time.sleep(2.0)


@contextmanager
def _watching(diary: Ledger, probe: Path) -> Iterator[None]:
    """Notes when the machine stood still: its processor, or its disk, which a small file probes."""
    done = threading.Event()

    def write() -> None:
        with probe.open("r+b" if probe.exists() else "w+b") as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())

    def watch(action: Callable[[], None], pause_s: float, longest_s: float) -> None:
        while not done.wait(pause_s):
            before = time.monotonic()
            action()
            if time.monotonic() - before > longest_s:
                diary.put("stall", start=int(before * 1e9))

    threads = [
        threading.Thread(target=watch, args=(lambda: time.sleep(_NAP_S), 0.0, _NAP_S + _STALL_S)),
        threading.Thread(target=watch, args=(write, _PROBE_S, _SLOW_DISK_S)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind: " + ", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE, help="triggers a second, in all")
    parser.add_argument("--stub", type=Path, help="a stub bundle of 96x64 mono8; made where none is given")
    parser.add_argument("--keep", type=Path, help="folder for all that is left behind; else it is removed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="takt-faults-") as temporary:
        folder = given.keep or Path(temporary)
        stub = given.stub or _make_stub(Path(temporary) / "stub.takt")
        summary = run_campaign(folder, stub, kills=given.kills, seed=given.seed, rate=given.rate)
    sys.stdout.write(summary.text)
    return 1 if summary.violations else 0


def _make_stub(path: Path) -> Path:
    from faults.parts import HEIGHT, WIDTH  # noqa: PLC0415

    from edge_runtime.imaging.frames import Size  # noqa: PLC0415 - torch takes seconds
    from trainer.bench.stub import write_stub  # noqa: PLC0415

    return write_stub(path, frame=Size(WIDTH, HEIGHT))


if __name__ == "__main__":
    sys.exit(main())
