"""A damaged byte is refused: wherever it lies in a bundle, it is never loaded silently."""

import hashlib
import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.store import MANIFEST, check_digests, read_manifest
from edge_runtime.errors import BundleError, DigestMismatchError, ManifestError

Members = dict[str, bytes]
Takt = Callable[..., subprocess.CompletedProcess[str]]


SAMPLE = 160


def vouch(path: Path) -> None:
    """The steps of `load` that read the whole file; engines are opened only after them."""
    with Archive(path) as archive:
        check_digests(archive, MANIFEST, read_manifest(archive).members)


def parts(path: Path) -> dict[str, range]:
    """Where the data of each member, each member's header, the central directory and the end record lie."""
    found = {}
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            start = info.header_offset + 30 + len(info.filename)
            found[f"header of {info.filename}"] = range(info.header_offset, start)
            found[f"data of {info.filename}"] = range(start, start + info.file_size)
        size = path.stat().st_size
        found["directory"] = range(opened.start_dir, size - 22)
        found["end record"] = range(size - 22, size)
    return found


def flip(path: Path, at: int, mask: int) -> None:
    """Flip bits of one byte in place; the same again mends it."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def copied(path: Path, folder: Path) -> Path:
    return Path(shutil.copyfile(path, folder / "damaged.takt"))


def kind_of(place: str) -> type[BundleError]:
    """The error that a flip there has: the manifest by its checksum, members by their digests, the rest by the form."""
    if place == f"data of {MANIFEST}":
        return ManifestError
    return DigestMismatchError if place.startswith("data of ") else BundleError


@pytest.fixture(scope="session")
def tiny_bundle(small_members: Members, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle with a few bytes in each member's place and a shorter manifest: sealed, and small enough to try every byte."""
    manifest = json.loads(small_members[MANIFEST])
    manifest["provenance"]["splits"] = {"fit": [], "validation": [], "calibration": []}
    manifest["provenance"]["config"] = {}
    members = {name: name.encode()[-9:] for name in ("LICENCES.json", "golden/0.png", "report/index.html")}
    manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    path = tmp_path_factory.mktemp("tiny") / "tiny.takt"
    write_archive(path, {MANIFEST: json.dumps(manifest, separators=(",", ":")).encode()} | members)
    return path


def test_the_bundles_of_these_tests_are_whole_before_they_are_damaged(small_bundle: Path, tiny_bundle: Path) -> None:
    vouch(small_bundle)
    vouch(tiny_bundle)


def test_every_byte_of_a_bundle_lies_in_a_part_that_is_tried(small_bundle: Path, tiny_bundle: Path) -> None:
    for path in (small_bundle, tiny_bundle):
        covered = [at for span in parts(path).values() for at in span]
        assert covered == sorted(set(covered)) == list(range(path.stat().st_size))


def _expect(path: Path, place: str, what: str) -> None:
    found = _refusal(path)
    assert type(found) is kind_of(place), f"{what}: {found!r}"
    assert found.exit_code == 3


def _refusal(path: Path) -> BundleError | None:
    try:
        vouch(path)
    except BundleError as error:
        return error
    return None


def test_every_byte_of_every_header_of_a_tiny_bundle_is_guarded(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = copied(tiny_bundle, tmp_path)
    for place, span in parts(tiny_bundle).items():
        if not place.startswith("data of "):
            for at in span:
                for mask in (1 << at % 8, 0xFF):  # each bit of the tiny archive is tried in test_archive.py
                    flip(damaged, at, mask)
                    _expect(damaged, place, f"{place}, byte {at}, mask {mask}")
                    flip(damaged, at, mask)
    vouch(damaged)


def test_every_byte_of_the_data_of_a_tiny_bundle_is_guarded(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = copied(tiny_bundle, tmp_path)
    for place, span in parts(tiny_bundle).items():
        if place.startswith("data of "):
            for at in span:
                flip(damaged, at, 1 << at % 8)
                _expect(damaged, place, f"{place}, byte {at}")
                flip(damaged, at, 1 << at % 8)
    vouch(damaged)


def _sample(path: Path) -> Iterator[tuple[str, int, int]]:
    """Seeded places all over a file: each part has its share, its first and its last byte among them."""
    rng = random.Random(20)
    found = parts(path)
    each = SAMPLE // len(found) + 1
    for place, span in found.items():
        chosen = {span[0], span[-1], *(rng.choice(span) for _ in range(each))}
        yield from ((place, at, rng.randrange(1, 256)) for at in sorted(chosen))


def test_a_flip_anywhere_in_a_real_bundle_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    damaged = copied(small_bundle, tmp_path)
    tried = list(_sample(small_bundle))
    assert len(tried) >= SAMPLE
    for place, at, mask in tried:
        flip(damaged, at, mask)
        _expect(damaged, place, f"{place}, byte {at}, mask {mask}")
        flip(damaged, at, mask)
    vouch(damaged)


@pytest.mark.parametrize(
    "place",
    [
        "header of manifest.json",
        "data of manifest.json",
        "data of artefacts/openvino/graph.bin",
        "data of artefacts/onnxruntime/graph.onnx",
        "data of report/index.html",
        "directory",
        "end record",
    ],
)
def test_a_damaged_bundle_is_not_loaded_and_not_changed(small_bundle: Path, tmp_path: Path, place: str) -> None:
    damaged = copied(small_bundle, tmp_path)
    span = parts(small_bundle)[place]
    flip(damaged, span[len(span) // 2], 0x08)
    data = damaged.read_bytes()
    steps: list[str] = []
    with pytest.raises(BundleError) as caught:
        load(damaged, on_step=steps.append)
    assert type(caught.value) is kind_of(place)
    assert str(damaged) in str(caught.value)
    assert "digests" not in steps
    assert damaged.read_bytes() == data
    assert list(tmp_path.iterdir()) == [damaged]


def test_a_real_bundle_cut_anywhere_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    data = small_bundle.read_bytes()
    rng = random.Random(21)
    cuts = {0, 1, 21, 22, len(data) - 1, len(data) - 22, *(rng.randrange(len(data)) for _ in range(40))}
    damaged = tmp_path / "damaged.takt"
    for cut in cuts:
        damaged.write_bytes(data[:cut])
        with pytest.raises(BundleError):
            Archive(damaged)


def test_takt_run_refuses_a_damaged_bundle_with_exit_code_3_and_prints_no_verdict(
    small_bundle: Path,
    one_image: Path,
    takt: Takt,
    tmp_path: Path,
) -> None:
    damaged = copied(small_bundle, tmp_path)
    span = parts(small_bundle)["data of artefacts/openvino/graph.bin"]
    flip(damaged, span[len(span) // 2], 0x08)
    done = takt("run", damaged, one_image, "--json", "--maps", tmp_path / "maps")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "artefacts/openvino/graph.bin has digest" in done.stderr
    assert list((tmp_path / "maps").iterdir()) == []
