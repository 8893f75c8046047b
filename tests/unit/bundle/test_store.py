"""Members and their digests: arrays are never unpickled, and what is written is what is listed."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.store import MANIFEST, SIGNATURE, array_bytes, array_from, check_digests, json_bytes
from edge_runtime.errors import BundleError, DigestMismatchError

_touched: list[str] = []


def touch(name: str) -> str:
    """What a pickle in these tests would call; a call shows that something was unpickled."""
    _touched.append(name)
    return name


class Payload:
    """An object whose pickle calls `touch`, as a hostile one would call what it likes."""

    def __reduce__(self) -> tuple[object, ...]:
        return (touch, ("unpickled",))


def _npy(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz(*, hostile: bool) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.asarray([Payload()], dtype=object) if hostile else np.zeros(3))
    return buffer.getvalue()


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


NOT_ARRAYS = {
    "pickled objects in an array": _npy([Payload()]),
    "a bare pickle": pickle.dumps(Payload()),
    "an archive of arrays": _npz(hostile=False),
    "an archive of pickled objects": _npz(hostile=True),
    "the start of an archive": b"PK\x03\x04aaa",
    "nothing": b"",
    "text": b"[1, 2]",
    "a header alone": b"\x93NUMPY",
    "a header cut short": array_bytes(np.zeros((2, 2), np.float32))[:40],
    "data cut short": array_bytes(np.zeros((2, 2), np.float32))[:-1],
    "a shape of petabytes": _header("(1000000, 1000000, 1000)"),
    "a negative shape": _header("(-1,)"),
    "a shape that overflows": _header("(9223372036854775807, 9223372036854775807)"),
    "a header that is code": _header("__import__('os').getpid()"),
    "an open bracket": _header("(((((("),
    "an open string": _header("'''"),
    "objects by their type": _header("(1,)", "'|O'") + pickle.dumps(Payload()),
    "a type that is none": _header("(1,)", "'spam'"),
    "a version from the future": b"\x93NUMPY\x09\x00" + array_bytes(np.zeros(1))[8:],
}


@pytest.mark.parametrize("data", NOT_ARRAYS.values(), ids=NOT_ARRAYS)
def test_a_member_that_is_not_a_plain_array_is_refused_and_never_unpickled(data: bytes) -> None:
    _touched.clear()
    with pytest.raises(BundleError, match=r"member golden/0\.npy is not an array"):
        array_from(data, "golden/0.npy")
    assert _touched == []


def test_the_hostile_pickles_of_these_tests_would_show_if_they_were_read() -> None:
    _touched.clear()
    np.load(io.BytesIO(NOT_ARRAYS["pickled objects in an array"]), allow_pickle=True)
    assert _touched == ["unpickled"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 3)])
def test_an_array_comes_back_as_it_was(dtype: type, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    found = array_from(array_bytes(values), "a")
    assert (found.dtype, found.shape) == (values.dtype, values.shape)
    assert found.tobytes() == values.tobytes()


def test_arrays_of_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        array_bytes(np.asarray([Payload()], dtype=object))


def test_json_members_have_sorted_keys_and_no_nan() -> None:
    assert json_bytes({"b": 1, "a": [0.5]}) == b'{\n "a": [\n  0.5\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"a": float("nan")})


def _written(path: Path, members: dict[str, bytes]) -> dict[str, str]:
    write_archive(path, {MANIFEST: b"{}"} | members)
    return {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}


def test_members_that_are_what_was_sealed_pass(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"a": b"1", "b": b"2"})
    with Archive(tmp_path / "x.takt") as archive:
        check_digests(archive, MANIFEST, listed)


def test_a_signature_needs_no_digest_since_it_signs_the_manifest(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"a": b"1", SIGNATURE: b"s"})
    with Archive(tmp_path / "x.takt") as archive:
        check_digests(archive, MANIFEST, {"a": listed["a"]})


def test_a_member_that_is_not_listed_is_named(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"a": b"1", "evil": b"2"})
    with (
        Archive(tmp_path / "x.takt") as archive,
        pytest.raises(BundleError, match=r"members \['evil'\] are not in the manifest"),
    ):
        check_digests(archive, MANIFEST, {"a": listed["a"]})


def test_a_member_that_is_missing_is_named(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"a": b"1"})
    with (
        Archive(tmp_path / "x.takt") as archive,
        pytest.raises(BundleError, match=r"members \['gone'\] are not in the file"),
    ):
        check_digests(archive, MANIFEST, listed | {"gone": listed["a"]})


def test_a_member_with_other_bytes_is_named_with_both_digests(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"a": b"1"})
    sealed = hashlib.sha256(b"2").hexdigest()
    with Archive(tmp_path / "x.takt") as archive, pytest.raises(DigestMismatchError) as caught:
        check_digests(archive, MANIFEST, {"a": sealed})
    assert f"member a has digest {listed['a'][:12]}, sealed was {sealed[:12]}" in str(caught.value)


def test_the_order_of_members_in_the_file_changes_no_verdict_on_them(tmp_path: Path) -> None:
    listed = _written(tmp_path / "x.takt", {"b": b"2", "a": b"1"})
    with Archive(tmp_path / "x.takt") as archive:
        check_digests(archive, MANIFEST, json.loads(json.dumps(listed, sort_keys=True)))
