"""Owns `takt serve --check-config`: everything that can be known to be wrong before a line depends on it."""

from collections.abc import Iterator
from pathlib import Path

from edge_runtime.bundle.load import load
from edge_runtime.errors import ConfigError
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
        yield f"camera   {camera.name}: {source}, {camera.trigger}, {camera.deadline_ms} ms"
    for path in sorted({camera.bundle for camera in config.camera}):
        load(path, artefact=config.artefact, threads=config.threads, cache_dir=RunDir(config.run_dir).cache)
        facts = read_facts(path)
        frame = facts.frame
        yield f"bundle   {path}: {facts.product}, {frame.width}x{frame.height} {frame.pixel_format}, verified and tested here"
