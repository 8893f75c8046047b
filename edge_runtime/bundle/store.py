"""Owns reading and writing of the two files: members, digests, and the manifest that lists them.

A member's digest stands in the manifest; the manifest's own bytes are guarded by the archive's checksum, and their
SHA-256 names the bundle.
"""

import hashlib
import io
import json
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.manifest import FORMAT_VERSION, DraftManifest, Manifest, dump
from edge_runtime.bundle.recipe import Strict
from edge_runtime.errors import BundleError, ConfigError, DigestMismatchError, ManifestError, UnsupportedFormatError

MANIFEST = "manifest.json"
DRAFT = "draft.json"
SIGNATURE = "signature"

_Schema = TypeVar("_Schema", Manifest, DraftManifest)


def read_manifest(archive: Archive) -> Manifest:
    """The manifest of a sealed bundle.

    Raises:
        BundleError: the file is a draft, or no bundle at all.
        ManifestError: damaged, or not of the schema.
        UnsupportedFormatError: of another format version.
    """
    if DRAFT in archive.names and MANIFEST not in archive.names:
        message = f"{archive.path}: is a draft, which has no thresholds yet: run `takt seal` on it first"
        raise BundleError(message)
    return _read(archive, MANIFEST, Manifest)


def read_draft_manifest(archive: Archive) -> DraftManifest:
    """The manifest of a draft; only calibration opens drafts.

    Raises:
        BundleError: the file is a sealed bundle, or no draft at all.
        ManifestError: damaged, or not of the schema.
        UnsupportedFormatError: of another format version.
    """
    if MANIFEST in archive.names:
        message = f"{archive.path}: is sealed already; `takt calibrate` makes a new bundle with other thresholds"
        raise BundleError(message)
    return _read(archive, DRAFT, DraftManifest)


def _read(archive: Archive, name: str, schema: type[_Schema]) -> _Schema:
    data = archive.read(name)
    if not archive.checksum_fits(name):
        message = f"{archive.path}: {name} is damaged: copy the file again"
        raise ManifestError(message)
    _check_version(archive.path, name, data)
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        message = f"{archive.path}: {name}: {where}: {first['msg']} ({error.error_count()} faults): rebuild the bundle"
        raise ManifestError(message) from error


def _check_version(path: Path, name: str, data: bytes) -> None:
    try:
        head = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        message = f"{path}: {name} is not JSON, or not plainly so ({error}): rebuild the bundle"
        raise ManifestError(message) from error
    found = head.get("format_version") if isinstance(head, dict) else None
    if type(found) is not int or found != FORMAT_VERSION:  # true and 1.0 equal 1 in Python
        message = (
            f"{path}: format version {found}, this release reads {FORMAT_VERSION}: "
            "rebuild the bundle with this release, or run the release that made it"
        )
        raise UnsupportedFormatError(message)


def _no_constant(name: str) -> NoReturn:
    """Refuse what Python reads and JSON has not, also where the schema leaves the values open."""
    message = f"{name} is no JSON number"
    raise ValueError(message)


def check_digests(archive: Archive, name: str, members: Mapping[str, str]) -> None:
    """Hash every member and compare with the manifest, in both directions.

    Args:
        archive: the file.
        name: the manifest's own member name.
        members: digest by member name.

    Raises:
        BundleError: a member is missing or not listed.
        DigestMismatchError: a member's bytes are not those that were sealed.
    """
    listed, present = set(members), set(archive.names) - {name, SIGNATURE}
    if listed != present:
        extra, missing = sorted(present - listed), sorted(listed - present)
        message = f"{archive.path}: members {extra} are not in the manifest, members {missing} are not in the file"
        raise BundleError(message)
    for member, expected in members.items():
        with archive.view(member) as view:
            found = hashlib.sha256(view).hexdigest()
        if found != expected:
            message = f"{archive.path}: member {member} has digest {found[:12]}, sealed was {expected[:12]}: copy the file again"
            raise DigestMismatchError(message)


def check_writable(out: Path) -> None:
    """Refuse an output that cannot be written, before hours of work.

    Raises:
        ConfigError: its folder does not exist or cannot be written to, or it is a folder.
    """
    if out.is_dir():
        message = f"--out {out}: is a folder, expected a file name"
        raise ConfigError(message)
    probe = out.with_name(f".{out.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"--out {out}: the folder cannot be written to ({error.strerror}): choose another, or create it"
        raise ConfigError(message) from error


def write(path: Path, manifest: Strict, members: Mapping[str, bytes], name: str) -> str:
    """Write manifest and members; returns the manifest's SHA-256, the bundle digest.

    Args:
        path: the file to make.
        manifest: with an empty `members`, which is filled in here.
        members: bytes by member name.
        name: `MANIFEST` or `DRAFT`.

    Raises:
        BundleError: the file cannot be written; nothing is left behind.
    """
    digests = {member: hashlib.sha256(data).hexdigest() for member, data in sorted(members.items())}
    head = dump(manifest.model_copy(update={"members": digests}))
    write_archive(path, {name: head} | {member: members[member] for member in digests})
    return hashlib.sha256(head).hexdigest()


def array_bytes(values: NDArray[Any]) -> bytes:
    """An array as a .npy member."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def array_from(data: bytes, name: str) -> NDArray[Any]:
    """The array of a .npy member; never unpickles.

    Raises:
        BundleError: the bytes are not an array.
    """
    try:
        # not np.load: it would also open zip files, and asks the first bytes what the member is
        loaded: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, tokenize.TokenError) as error:
        message = f"member {name} is not an array: rebuild the bundle"
        raise BundleError(message) from error
    return loaded


def json_bytes(value: object) -> bytes:
    """A JSON member: sorted keys, one newline at the end, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
