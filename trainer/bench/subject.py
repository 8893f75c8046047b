"""Owns what a measured service inspects: a bundle, folders of frames whose names say the truth, and their `line.toml`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.store import read_manifest
from edge_runtime.clients.results import Inspected
from edge_runtime.imaging.frames import Size, decode_png, encode_png
from edge_runtime.inspector import Inspector
from trainer.bench.stub import write_stub
from trainer.serving import Service, free_endpoint, write_line

FRAME = Size(4096, 3000)
FRAMES = 10  # of one camera, decoded once and then repeated
READY_S = 120.0
_DEFECT = 3  # which of them is defective: one in ten
_BLOCK = 16
_NO_FSYNC = {"TAKT_BENCH_NO_FSYNC": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A bundle and what its cameras see."""

    name: str
    bundle: Path
    folders: tuple[Path, ...]  # of frames, one for each camera
    workers: int
    threads: int | None  # of one inspection; None: all
    deadline_ms: int

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(f"camera-{number}" for number in range(1, len(self.folders) + 1))

    def first(self) -> "Subject":
        """The same with its first camera alone."""
        return replace(self, folders=self.folders[:1], workers=1)

    def start(self, run_dir: Path, *, durable: bool = True) -> Service:
        """Start a service for it; its files and its log go to `run_dir`."""
        run_dir.mkdir(parents=True, exist_ok=True)
        endpoint = free_endpoint()
        station: dict[str, str | int] = {
            "station": "bench",
            "run_dir": str((run_dir / "run").resolve()),
            "endpoint": endpoint,
        }
        station |= {"workers": self.workers} | ({} if self.threads is None else {"threads": self.threads})
        cameras: list[dict[str, str | int]] = [
            {
                "name": name,
                "bundle": str(self.bundle.resolve()),
                "source": f"folder:{folder.resolve()}",
                "deadline_ms": self.deadline_ms,
            }
            for name, folder in zip(self.cameras, self.folders, strict=True)
        ]
        config = write_line(run_dir / "line.toml", station, cameras)
        environment: Mapping[str, str] = {} if durable else _NO_FSYNC
        return Service(config, endpoint, log=run_dir / "log.jsonl", environment=environment)

    @contextmanager
    def serving(self, run_dir: Path, *, durable: bool = True) -> Iterator[Service]:
        """A service that is Ready."""
        with self.start(run_dir, durable=durable) as service:
            service.wait_ready(READY_S)
            yield service


def right(result: Inspected) -> bool:
    """Whether a verdict is the one that the frame's name says."""
    label = result.answer.label
    return label is not None and Path(label).stem.endswith(f"-{result.verdict}")


def stub_subject(folder: Path, cameras: int) -> Subject:
    """The stub at 12 megapixels, one frame in ten defective, and that one at another time on each camera."""
    bundle = write_stub(folder / "stub.takt", frame=FRAME)
    images = [_stub_frame(index) for index in range(FRAMES)]
    folders = []
    for camera in range(cameras):
        place = _fresh(folder / f"frames-{camera + 1}")
        for index in range(FRAMES):
            shown = (index + 3 * camera) % FRAMES
            verdict = "REJECT" if shown == _DEFECT else "ACCEPT"
            (place / f"{index:02d}-{verdict}.png").write_bytes(images[shown])
        folders.append(place)
    workers = min(2, os.cpu_count() or 1)
    return Subject(name="stub", bundle=bundle, folders=tuple(folders), workers=workers, threads=1, deadline_ms=1000)


def bundle_subject(bundle: Path, folder: Path) -> Subject:
    """A bundle with its own golden frames before one camera.

    The truth is what `Inspector` says of each frame in this process, without a service.

    Raises:
        BundleError: it is none.
    """
    inspector = Inspector.open(bundle)
    place = _fresh(folder / f"frames-{bundle.stem}")
    with Archive(bundle) as archive:
        manifest = read_manifest(archive)
        for index, golden in enumerate(manifest.golden):
            png = archive.read(golden.frame)
            verdict = inspector.inspect(decode_png(png, golden.name)).verdict
            (place / f"{index:02d}-{verdict}.png").write_bytes(png)
    origin, frame = manifest.provenance, manifest.geometry.frame.size
    name = f"{origin.method} on {origin.backbone}, {frame}"
    return Subject(name=name, bundle=bundle, folders=(place,), workers=1, threads=None, deadline_ms=5000)


def _stub_frame(index: int) -> bytes:
    """PNG of blocks that are dark enough; the defective one has a bright spot."""
    draw = np.random.default_rng(index)
    blocks = draw.integers(20, 100, (-(-FRAME.height // _BLOCK), -(-FRAME.width // _BLOCK)), dtype=np.uint8)
    pixels = blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[: FRAME.height, : FRAME.width].copy()
    if index == _DEFECT:
        pixels[1500:1560, 2000:2060] = 200
    return encode_png(pixels)


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.png"):
        left.unlink()
    return folder
