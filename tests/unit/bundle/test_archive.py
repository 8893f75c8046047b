"""The archive: one sequence of bytes is a bundle, and every other one is refused."""

import hashlib
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge_runtime.bundle import archive as archive_module
from edge_runtime.bundle.archive import MAX_MEMBERS, MAX_NAME, Archive, write_archive
from edge_runtime.errors import BundleError

TINY = {"manifest.json": b'{"a": 1}\n', "golden/0.png": bytes(range(64)), "LICENCES.json": b""}
TINY_SHA256 = "aa99def779326b5d1d1d656ad1fe63dfde544082d6c51e5d8dfb1913d823a54b"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One member as its two headers state it; `replace` makes a header lie."""

    name: bytes
    data: bytes
    offset: int | None = None  # what the central directory says; where it lies when None
    crc: int | None = None
    size: int | None = None
    method: int = 0
    flags: int = 0
    time: int = 0
    date: int = 0x21
    version: int = 20
    local_extra: bytes = b""
    extra: bytes = b""
    comment: bytes = b""
    attributes: int = 0
    gap: bytes = b""  # lies before the member

    @property
    def common(self) -> tuple[int, ...]:
        """What both headers hold, from the version needed to the length of the name."""
        size = len(self.data) if self.size is None else self.size
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return self.version, self.flags, self.method, self.time, self.date, crc, size, size, len(self.name)


def zipped(
    entries: list[Entry],
    *,
    listed: list[Entry] | None = None,
    comment: bytes = b"",
    before: bytes = b"",
    after: bytes = b"",
    count: int | None = None,
) -> bytes:
    """A zip file written by the book (APPNOTE 4.3), apart from our own writer.

    `listed` is the central directory where it differs, `before` lies in front of it, `after` at its end, `count` is what the end says.
    """
    body, offsets = b"", []
    for entry in entries:
        body += entry.gap
        offsets.append(len(body))
        body += struct.pack("<IHHHHHIIIHH", 0x04034B50, *entry.common, len(entry.local_extra))
        body += entry.name + entry.local_extra + entry.data
    body += before
    directory = b""
    for number, entry in enumerate(entries if listed is None else listed):
        offset = entry.offset if entry.offset is not None else offsets[number]
        tail = (len(entry.extra), len(entry.comment), 0, 0, entry.attributes, offset)
        directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *entry.common, *tail)
        directory += entry.name + entry.extra + entry.comment
    directory += after
    total = len(entries if listed is None else listed) if count is None else count
    return (
        body
        + directory
        + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, total, total, len(directory), len(body), len(comment))
        + comment
    )


def entries_of(members: dict[str, bytes]) -> list[Entry]:
    return [Entry(name=name.encode(), data=data) for name, data in members.items()]


def first(**changes: object) -> bytes:
    """The tiny archive with its first member's headers changed."""
    entries = entries_of(TINY)
    return zipped([replace(entries[0], **changes), *entries[1:]])


def refusal(path: Path, data: bytes) -> str:
    """Write bytes, expect that they are refused, and give the message."""
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Archive(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data
    return str(caught.value)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.takt"
    write_archive(path, TINY)
    return path


def test_the_canonical_bytes_are_pinned(tiny: Path) -> None:
    data = tiny.read_bytes()
    assert data == zipped(entries_of(TINY))
    assert hashlib.sha256(data).hexdigest() == TINY_SHA256


def test_what_was_written_is_read_back(tiny: Path) -> None:
    with Archive(tiny) as archive:
        assert archive.names == set(TINY)
        for name, data in TINY.items():
            assert archive.read(name) == data
            assert archive.checksum_fits(name)


def test_a_member_that_is_not_there_is_a_bundle_error(tiny: Path) -> None:
    with Archive(tiny) as archive, pytest.raises(BundleError, match="has no member 'signature'"):
        archive.view("signature")


def test_any_zip_tool_opens_it(tiny: Path) -> None:
    with zipfile.ZipFile(tiny) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == list(TINY)
        assert {name: opened.read(name) for name in opened.namelist()} == TINY


def test_nothing_but_the_final_file_remains(tiny: Path) -> None:
    assert list(tiny.parent.iterdir()) == [tiny]


def test_writing_again_replaces_the_whole_file(tiny: Path) -> None:
    write_archive(tiny, {"a": b"1"})
    with Archive(tiny) as archive:
        assert archive.names == {"a"}
    assert list(tiny.parent.iterdir()) == [tiny]


def test_a_reader_keeps_the_file_that_it_opened_while_another_is_written(tiny: Path) -> None:
    with Archive(tiny) as archive:
        write_archive(tiny, {"manifest.json": b"other"})
        assert archive.read("manifest.json") == TINY["manifest.json"]


BAD_NAMES = [
    "",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a/..",
    "./a",
    "a/./b",
    "a\\b",
    "C:/a",
    "a//b",
    "a/",
    ".hidden",
    "a/.hidden",
    "a b",
    "a\n",
    "a\0b",
    "é",
    "n" * (MAX_NAME + 1),
    "n" * 70_000,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:12]))
def test_a_name_that_is_no_plain_relative_path_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="not a plain relative path"):
        write_archive(tmp_path / "x.takt", {"a": b"1", name: b"2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if len(name) < 2**16], ids=lambda name: ascii(name[:12]))
def test_a_name_that_is_no_plain_relative_path_is_not_read(tmp_path: Path, name: str) -> None:
    refusal(tmp_path / "x.takt", zipped([Entry(name=b"a", data=b"1"), Entry(name=name.encode(), data=b"2")]))


def test_names_that_differ_in_case_only_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the same name"):
        write_archive(tmp_path / "x.takt", {"a/B": b"1", "A/b": b"2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [(b"a", b"a"), (b"a", b"b", b"a"), (b"a/b", b"A/B")])
def test_two_members_of_one_name_are_not_read(tmp_path: Path, names: tuple[bytes, ...]) -> None:
    entries = [Entry(name=name, data=bytes([number])) for number, name in enumerate(names)]
    assert "two members have the" in refusal(tmp_path / "x.takt", zipped(entries))


def test_an_archive_without_members_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="0 members"):
        write_archive(tmp_path / "x.takt", {})
    assert list(tmp_path.iterdir()) == []
    assert "0 members" in refusal(tmp_path / "x.takt", zipped([]))


def test_more_members_than_the_limit_are_neither_written_nor_read(tmp_path: Path) -> None:
    members = {f"m{number}": b"" for number in range(MAX_MEMBERS + 1)}
    with pytest.raises(BundleError, match="expected 1 to"):
        write_archive(tmp_path / "x.takt", members)
    assert list(tmp_path.iterdir()) == []
    assert "expected 1 to" in refusal(tmp_path / "x.takt", zipped(entries_of(members)))
    write_archive(tmp_path / "y.takt", dict(list(members.items())[:MAX_MEMBERS]))
    with Archive(tmp_path / "y.takt") as archive:
        assert len(archive.names) == MAX_MEMBERS


def test_what_the_writer_makes_at_the_size_limit_the_reader_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = tmp_path / "x.takt", len(zipped(entries_of(TINY)))
    monkeypatch.setattr(archive_module, "MAX_BYTES", size)  # 4 GB are too much to write here
    write_archive(path, TINY)
    with Archive(path) as archive:
        assert archive.names == set(TINY)
    before = path.read_bytes()
    monkeypatch.setattr(archive_module, "MAX_BYTES", size - 1)
    with pytest.raises(BundleError, match="more than"):
        write_archive(path, TINY)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BundleError, match="expected"):
        Archive(path)


def _second_directory() -> bytes:
    inner = zipped(entries_of({"manifest.json": b"evil"}))
    return inner + zipped(entries_of(TINY))


def _hidden_directory() -> bytes:
    entries = entries_of(TINY)
    return zipped(entries, before=zipped(entries)[sum(30 + len(e.name) + len(e.data) for e in entries) :])


def _overlapping() -> bytes:
    """The second member lies inside the first one's data, headers and all."""
    inner = Entry(name=b"b", data=b"2", offset=31)
    outer = Entry(name=b"a", data=zipped([inner])[:32])
    return zipped([outer], listed=[outer, inner])


def _reordered() -> bytes:
    one, two = Entry(name=b"a", data=b"1"), Entry(name=b"b", data=b"2")
    return zipped([one, two], listed=[replace(two, offset=32), replace(one, offset=0)])


TRICKS = {
    "gap before the first member": lambda: first(gap=b"\0"),
    "gap between members": lambda: zipped([entries_of(TINY)[0], replace(entries_of(TINY)[1], gap=b"PK")]),
    "gap before the directory": lambda: zipped(entries_of(TINY), before=b"\0"),
    "trailing byte": lambda: zipped(entries_of(TINY)) + b"\0",
    "trailing archive": lambda: zipped(entries_of(TINY)) + zipped(entries_of({"manifest.json": b"evil"})),
    "archive in front": _second_directory,
    "second directory before the first": _hidden_directory,
    "loose bytes at the end of the directory": lambda: zipped(entries_of(TINY), after=bytes(10)),
    "archive comment": lambda: zipped(entries_of(TINY), comment=b"hello"),
    "member comment": lambda: first(comment=b"c"),
    "extra field in the directory": lambda: first(extra=b"UT\x01\x00\x00"),
    "extra field at the member": lambda: first(local_extra=b"UT\x01\x00\x00"),
    "extra field at both": lambda: first(extra=b"UT\x01\x00\x00", local_extra=b"UT\x01\x00\x00"),
    "another time": lambda: first(time=1),
    "another date": lambda: first(date=0x5555),
    "another version": lambda: first(version=45),
    "encrypted flag": lambda: first(flags=1),
    "data descriptor flag": lambda: first(flags=8),
    "unix mode of a link": lambda: first(attributes=0o120777 << 16),
    "method deflate": lambda: first(method=8, data=zlib.compress(TINY["manifest.json"])[2:-4]),
    "overlapping members": _overlapping,
    "offset one too far": lambda: first(offset=1),
    "offset beyond the file": lambda: first(offset=10**9),
    "both members at one offset": lambda: zipped([Entry(name=b"a", data=b"1"), Entry(name=b"b", data=b"1", offset=0)]),
    "size one too small": lambda: first(size=len(TINY["manifest.json"]) - 1),
    "size one too large": lambda: first(size=len(TINY["manifest.json"]) + 1),
    "size beyond the file": lambda: first(size=2**32 - 1),
    "size of the last member into the directory": lambda: zipped([Entry(name=b"a", data=b"1", size=20)]),
    "one member more in the end record": lambda: zipped(entries_of(TINY), count=4),
    "one member less in the end record": lambda: zipped(entries_of(TINY), count=2),
    "zip64 count": lambda: zipped(entries_of(TINY), count=0xFFFF),
    "members in another order than the directory": _reordered,
}


@pytest.mark.parametrize("make", TRICKS.values(), ids=TRICKS)
def test_no_zip_trick_is_read(tmp_path: Path, make: Callable[[], bytes]) -> None:
    refusal(tmp_path / "x.takt", make())


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_a_zip_tool_wrote_anew_is_not_read(tiny: Path, compression: int) -> None:
    anew = tiny.with_name("anew.takt")
    with zipfile.ZipFile(anew, "w", compression) as opened:
        for name, data in TINY.items():
            opened.writestr(name, data)
    refusal(anew, anew.read_bytes())


def test_an_archive_to_which_a_zip_tool_added_a_member_is_not_read(tiny: Path) -> None:
    with zipfile.ZipFile(tiny, "a") as opened:
        opened.writestr("golden/1.png", b"x")
    refusal(tiny, tiny.read_bytes())


def test_an_archive_cut_at_any_length_is_not_read(tiny: Path) -> None:
    data = tiny.read_bytes()
    for length in range(len(data)):
        refusal(tiny, data[:length])


def test_an_archive_without_its_first_bytes_is_not_read(tiny: Path) -> None:
    data = tiny.read_bytes()
    for start in range(1, len(data)):
        refusal(tiny, data[start:])


def test_a_flip_of_any_bit_outside_the_data_is_refused_at_once(tiny: Path) -> None:
    data = tiny.read_bytes()
    members = {at for start, stop in _data_spans(tiny) for at in range(start, stop)}
    with tiny.open("r+b", buffering=0) as file:
        for at in set(range(len(data))) - members:
            for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
                os.pwrite(file.fileno(), bytes([data[at] ^ mask]), at)
                with pytest.raises(BundleError):
                    Archive(tiny)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert tiny.read_bytes() == data
    Archive(tiny).close()


def test_a_flip_of_any_byte_of_a_member_shows_in_its_checksum_and_nowhere_else(tiny: Path) -> None:
    data = tiny.read_bytes()
    for (start, stop), name in zip(_data_spans(tiny), TINY, strict=True):
        for at in range(start, stop):
            tiny.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            with Archive(tiny) as archive:
                assert {member for member in TINY if not archive.checksum_fits(member)} == {name}


def _data_spans(path: Path) -> list[tuple[int, int]]:
    with zipfile.ZipFile(path) as opened:
        return [
            (
                info.header_offset + 30 + len(info.filename),
                info.header_offset + 30 + len(info.filename) + info.file_size,
            )
            for info in opened.infolist()
        ]


def test_no_sequence_of_bytes_is_more_than_refused(tmp_path: Path) -> None:
    """Seeded fuzz around the real form: spliced, repeated and random bytes, each refused with a BundleError."""
    rng = random.Random(0)
    data = zipped(entries_of(TINY))
    for _ in range(500):
        one, two = sorted(rng.sample(range(len(data) + 1), 2))
        noise = rng.randbytes(rng.randrange(40))
        spliced = rng.choice([data[:one] + noise + data[two:], noise + data[one:], data[:two] + data[one:]])
        if spliced != data:
            refusal(tmp_path / "x.takt", spliced)


def _not_files(folder: Path) -> Iterator[Path]:
    yield folder / "missing.takt"
    yield folder
    (folder / "file").write_bytes(b"x")
    yield folder / "file" / "below.takt"
    yield folder / ("n" * 300)


def test_a_path_that_is_no_file_is_a_bundle_error_that_names_it(tmp_path: Path) -> None:
    for path in _not_files(tmp_path):
        with pytest.raises(BundleError, match="cannot be opened") as caught:
            Archive(path)
        assert str(path) in str(caught.value)


def test_a_path_below_a_file_is_refused_as_an_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    _refused_output(tmp_path / "file" / "x.takt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_folder_that_does_not_exist_is_refused_as_an_output(tmp_path: Path) -> None:
    _refused_output(tmp_path / "missing" / "x.takt")
    assert list(tmp_path.iterdir()) == []


def test_a_name_longer_than_the_file_system_takes_is_refused_as_an_output(tmp_path: Path) -> None:
    _refused_output(tmp_path / ("n" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_refused_as_an_output_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    _refused_output(tmp_path / "folder")
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


def test_a_fault_between_members_leaves_the_older_file_and_nothing_else(tiny: Path) -> None:
    class Torn(dict[str, bytes]):
        """Members of which the last cannot be had, as if a read of them failed."""

        def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
            yield "a", b"1"
            raise OSError(5, os.strerror(5))

    before = tiny.read_bytes()
    with pytest.raises(BundleError, match="cannot be written"):
        write_archive(tiny, Torn(a=b"1"))
    assert tiny.read_bytes() == before
    assert list(tiny.parent.iterdir()) == [tiny]


def _refused_output(path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be written \(.+\): free space or choose another folder") as caught:
        write_archive(path, TINY)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3
