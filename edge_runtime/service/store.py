"""Owns the bundles that the service keeps for itself: what was staged stays as it was, whatever happens to the file."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.store import MANIFEST, read_manifest
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import FrameSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleFacts:
    """What the broker must know of a bundle."""

    path: Path
    digest: str
    product: str
    frame: FrameSpec

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {
            "path": str(self.path),
            "digest": self.digest,
            "product": self.product,
            "frame": self.frame.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "BundleFacts":
        """From a pipe."""
        frame = FrameSpec(
            width=value["frame"]["width"],
            height=value["frame"]["height"],
            pixel_format=PixelFormat(value["frame"]["pixel_format"]),
        )
        return cls(path=Path(value["path"]), digest=value["digest"], product=value["product"], frame=frame)


def read_facts(path: Path) -> BundleFacts:
    """Read a bundle's manifest; the workers verify all the rest before they are ready.

    Raises:
        BundleError: it is no sealed bundle that this release reads.
    """
    with Archive(path) as archive:
        manifest = read_manifest(archive)
        digest = hashlib.sha256(archive.read(MANIFEST)).hexdigest()
    geometry = manifest.geometry
    frame = FrameSpec(width=geometry.frame.width, height=geometry.frame.height, pixel_format=geometry.pixel_format)
    return BundleFacts(path=path, digest=digest, product=manifest.product, frame=frame)


def adopt(path: Path, folder: Path) -> BundleFacts:
    """Keep a copy of a bundle under its digest; a second name of the file would change when the file is written over.

    Args:
        path: the bundle.
        folder: where the service keeps bundles.

    Raises:
        BundleError: it is no sealed bundle that this release reads, or it was replaced meanwhile.
        ConfigError: there is no room for the copy.
    """
    facts = read_facts(path)
    kept = stored(folder, facts.digest)
    if not _same(path, kept):
        temporary = kept.with_suffix(".tmp")
        try:
            _copy(path, temporary)
            if read_facts(temporary).digest != facts.digest:
                message = f"{path}: was replaced while it was copied: try again"
                raise BundleError(message)
            temporary.replace(kept)
        except OSError as error:
            message = f"{kept}: the bundle cannot be kept there ({error.strerror}): free space in run_dir"
            raise ConfigError(message) from error
        finally:
            temporary.unlink(missing_ok=True)
    return BundleFacts(path=kept, digest=facts.digest, product=facts.product, frame=facts.frame)


def stored(folder: Path, digest: str) -> Path:
    """Where a bundle of a digest is kept."""
    return folder / f"{digest}.takt"


def recall(folder: Path, digest: str) -> BundleFacts | None:
    """A bundle that was kept, or None where it is no longer there or no longer itself."""
    path = stored(folder, digest)
    try:
        facts = read_facts(path)
    except BundleError:
        return None
    return facts if facts.digest == digest else None


def forget(folder: Path, keep: set[str]) -> None:
    """Remove bundles that nobody names any more."""
    for path in (*folder.glob("*.takt"), *folder.glob("*.tmp")):
        if path.stem not in keep or path.suffix == ".tmp":
            path.unlink(missing_ok=True)


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _same(path: Path, kept: Path) -> bool:
    """Whether a kept bundle still is this file, byte for byte as far as size and digest of the manifest tell."""
    if not kept.exists() or kept.stat().st_size != path.stat().st_size:
        return False
    found = recall(kept.parent, kept.stem)
    return found is not None
