"""Owns `takt serve --check-config`: everything that can be known to be wrong before a line depends on it."""

from collections.abc import Iterator
from pathlib import Path

from edge_runtime.bundle.load import load
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.service.config import LineConfig, SourceKind
from edge_runtime.service.run_dir import RunDir
from edge_runtime.service.store import read_facts


def check(config: LineConfig) -> Iterator[str]:
    """Check folders, sources and bundles; what passed, line by line.

    Raises:
        ConfigError: a path of the file does not exist or cannot be written to.
        BundleError: a bundle is not whole, or computes something else on this machine.
        EngineError: an engine cannot run it.
    """
    yield f"station  {config.station} at {config.endpoint}"
    RunDir(config.run_dir).make()
    yield f"run_dir  {config.run_dir} can be written to"
    for camera in config.camera:
        source = camera.parsed_source
        missing = (source.kind is SourceKind.FOLDER and not Path(source.where).is_dir()) or (
            source.kind is SourceKind.VIDEO and not Path(source.where).is_file()
        )
        if missing:
            message = f"camera {camera.name}: source: {source.where} does not exist: correct the path"
            raise ConfigError(message)
        if not camera.bundle.is_file():
            message = f"camera {camera.name}: bundle: {camera.bundle} does not exist: build it, or correct the path"
            raise ConfigError(message)
        early = ", early reject" if camera.early_reject else ""
        yield f"camera   {camera.name}: {source}, {camera.trigger}, {camera.deadline_ms} ms{early}"
    for path in sorted({camera.bundle for camera in config.camera}):
        loaded = load(
            path,
            artefact=config.artefact,
            graph=config.graph,
            threads=config.threads,
            cache_dir=RunDir(config.run_dir).cache,
        )
        _check_file_format(config, path, loaded.manifest.geometry.file_format)
        facts = read_facts(path)
        frame = facts.frame
        yield f"bundle   {path}: {facts.product}, {frame.width}x{frame.height} {frame.pixel_format}, verified and tested here"


def _check_file_format(config: LineConfig, bundle: Path, built_from: PixelFormat | None) -> None:
    """A folder of mosaics that nobody calls so would be inspected as grey pictures."""
    for camera in config.camera:
        silent = camera.parsed_source.kind is SourceKind.FOLDER and camera.pixel_format is None
        if camera.bundle == bundle and silent and built_from is not None and built_from.pattern is not None:
            message = (
                f"camera {camera.name}: pixel_format is missing: {bundle} was built from files of {built_from}, and a folder's "
                f'files cannot tell whether they are: add pixel_format = "{built_from}", or {built_from.canonical} for colour'
            )
            raise ConfigError(message)
