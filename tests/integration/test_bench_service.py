"""The measurements of a service, on the small stub: what they count is what happened."""

import re
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.imaging.frames import encode_png
from trainer.bench.load import load
from trainer.bench.overhead import overhead
from trainer.bench.subject import Subject, bundle_subject


def frames(folder: Path, **brightness: int) -> Path:
    """One image for each name `verdict_number`, of one brightness, named `number-VERDICT.png`."""
    folder.mkdir()
    for name, value in brightness.items():
        verdict, _, number = name.partition("_")
        (folder / f"{number}-{verdict}.png").write_bytes(encode_png(np.full((64, 96), value, np.uint8)))
    return folder


@pytest.fixture
def honest(stub: Path, tmp_path: Path) -> Subject:
    folder = frames(tmp_path / "honest", ACCEPT_0=60, REJECT_1=200)
    return Subject(name="small", bundle=stub, folders=(folder,), workers=1, threads=1, deadline_ms=5000)


def test_load_counts_a_verdict_that_is_not_the_frames_own_as_missed(
    stub: Path, tmp_path: Path, honest: Subject
) -> None:
    lying = frames(tmp_path / "lying", ACCEPT_0=200, REJECT_1=60)
    folders = (*honest.folders, lying)
    both = Subject(name="both", bundle=stub, folders=folders, workers=1, threads=1, deadline_ms=5000)
    lines = list(load(both, tmp_path / "load", seconds=1))
    got, asked = (int(number) for number in re.findall(r"\d+", lines[0])[:2])
    assert asked == 20
    assert got <= 10  # whatever this machine is busy with, the camera that lies can get none
    missed = {kind: int(count) for count, kind in re.findall(r"(\d+) ([^,]+?)(?=[,.])", lines[1])}
    assert sum(missed.values()) == asked - got
    assert 0 < missed.get("wrong ACCEPT", 0) <= 5
    assert 0 < missed.get("wrong REJECT", 0) <= 5
    rows = [line for line in lines if line.startswith(("| all", "| broker", "| camera", "| worker", "| supervisor"))]
    assert [row.split("|")[1].strip() for row in rows] == [
        "all processes",
        "supervisor (1)",
        "broker (1)",
        "camera (2)",
        "worker (1)",
    ]


def test_the_parts_of_a_trigger_add_up_to_its_share(tmp_path: Path, honest: Subject) -> None:
    lines = list(overhead(honest, tmp_path / "overhead", seconds=0.5, durable=True))
    assert lines[0] == "5 of 5 triggers got their true verdict."
    largest = {row.split("|")[1].strip(): float(row.split("|")[5]) for row in lines if row.endswith("| 5 |")}
    parts = [value for name, value in largest.items() if name.startswith(("frame", "queue", "way", "journal"))]
    share = next(value for name, value in largest.items() if "Takt's share" in name)
    assert len(parts) == 4
    assert max(parts) - 0.01 <= share <= sum(parts) + 0.05


def test_a_bundles_own_frames_are_named_by_what_it_says_of_them_without_a_service(stub: Path, tmp_path: Path) -> None:
    subject = bundle_subject(stub, tmp_path)
    lines = list(overhead(subject, tmp_path / "overhead", seconds=0.2, durable=False))
    assert lines[0] == "2 of 2 triggers got their true verdict."
