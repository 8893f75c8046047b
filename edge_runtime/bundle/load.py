"""Owns the way from a file on disk to a scorer that may be trusted: numbered steps, each with its own error.

Nothing of a bundle is used before the step that vouches for it:

    1. directory    the archive's form                       BundleError
    2. version      the manifest is JSON of a known format   ManifestError, UnsupportedFormatError
    3. schema       the manifest is what the schema demands  ManifestError
    4. signature    where the site demands one               SignatureError
    5. digests      every member is what was sealed          DigestMismatchError
    6. graphs       inputs and outputs keep the contract     EngineError
    7. geometry     regions fit the frame, and the camera    ConfigError
    8. self-test    golden frames come out as sealed         SelfTestError
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import ArtefactSpec, Manifest
from edge_runtime.bundle.recipe import GraphRole, GraphSpec, Recipe
from edge_runtime.bundle.selftest import self_test
from edge_runtime.bundle.store import MANIFEST, SIGNATURE, array_from, check_digests, read_manifest
from edge_runtime.engines import Engine, TileGraph, open_engine
from edge_runtime.errors import BundleError, ConfigError, DataError, ManifestError, SignatureError
from edge_runtime.imaging.background import Background
from edge_runtime.imaging.frames import Size, decode_png
from edge_runtime.layout import tile_plan
from edge_runtime.scorer import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedBundle:
    """A bundle that passed every step, with the scorer of one artefact."""

    path: Path
    digest: str  # SHA-256 of the manifest's bytes
    manifest: Manifest
    artefact: ArtefactSpec
    graph: GraphRole
    scorer: Scorer


def load(
    path: Path,
    *,
    artefact: str | None = None,
    graph: GraphRole = GraphRole.TILE,
    threads: int | None = None,
    cache_dir: Path | None = None,
    require_signature: bool = False,
    camera: Size | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> LoadedBundle:
    """Verify a sealed bundle and make its scorer; the steps are those of the module's docstring.

    Args:
        path: the bundle.
        artefact: which artefact to run; the bundle's default when None.
        graph: which of its graphs: on tiles, or on the whole frame at once.
        threads: CPU threads of one inference; all when None.
        cache_dir: folder for compiled models; nothing is written when None.
        require_signature: the site accepts signed bundles only.
        camera: the size of the frames that the camera gives, where it is known.
        on_step: called with each step's name when it has passed.

    Raises:
        BundleError: or one of its kinds, as the steps say.
        EngineError: a graph cannot be loaded or breaks the contract.
        ConfigError: no such artefact, or the geometry does not fit the camera.
    """
    with Archive(path) as archive:
        on_step("directory")
        manifest = read_manifest(archive)
        with archive.view(MANIFEST) as view:
            digest = hashlib.sha256(view).hexdigest()
        on_step("version")
        on_step("schema")
        _check_signature(archive, required=require_signature)
        on_step("signature")
        check_digests(archive, MANIFEST, manifest.members)
        on_step("digests")
        spec = _choose(manifest, artefact, path)
        scorer = open_scorer(archive, manifest, spec, graph, threads=threads, cache_dir=cache_dir, on_step=on_step)
        _check_camera(manifest, camera, path)
        on_step("geometry")
        self_test(archive, manifest, spec, graph, scorer)
        on_step("self-test")
    return LoadedBundle(path=path, digest=digest, manifest=manifest, artefact=spec, graph=graph, scorer=scorer)


def open_scorer(
    archive: Archive,
    manifest: Manifest,
    spec: ArtefactSpec,
    role: GraphRole,
    *,
    threads: int | None,
    cache_dir: Path | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Scorer:
    """The scorer of one graph of an artefact.

    Raises:
        ConfigError: the artefact has no such graph.
        ManifestError: the graph's files are not among the sealed members.
        EngineError: the graph cannot be loaded or breaks the contract.
    """
    graph = spec.graph(role)
    if graph is None:
        message = f"{archive.path}: artefact {spec.name} has no {role} graph: take its tiles, or build the bundle with --frame-graph"
        raise ConfigError(message)
    engine = open_artefact(archive, manifest, spec, graph, threads=threads, cache_dir=cache_dir)
    on_step("graphs")
    return Scorer(
        manifest.seen_by(graph),
        engine,
        valid_areas=read_valid_areas(archive, manifest),
        backgrounds=read_backgrounds(archive, manifest),
    )


def open_artefact(
    archive: Archive,
    manifest: Manifest,
    spec: ArtefactSpec,
    chosen: GraphSpec,
    *,
    threads: int | None,
    cache_dir: Path | None,
) -> Engine:
    """Compile one of an artefact's graphs.

    Raises:
        ManifestError: the graph's files are not among the sealed members.
        EngineError: the graph cannot be loaded or breaks the contract.
    """
    unsealed = sorted(set(chosen.files) - set(manifest.members))
    if unsealed:
        message = f"{archive.path}: artefact {spec.name} names files {unsealed}, which are no sealed members: rebuild the bundle"
        raise ManifestError(message)
    with ExitStack() as views:  # weights may be large: the engine makes the one copy that it keeps
        graph = TileGraph(
            engine=spec.engine,
            precision=spec.precision,
            shape=manifest.seen_by(chosen).graph_shape(image_score=manifest.has_image_score),
            files=tuple(views.enter_context(archive.view(name)) for name in chosen.files),
            digest=hashlib.sha256("".join(manifest.members[name] for name in chosen.files).encode()).hexdigest(),
        )
        return open_engine(graph, threads=threads, cache_dir=cache_dir)


def read_valid_areas(archive: Archive, recipe: Recipe) -> dict[str, NDArray[np.bool_]]:
    """The masks that regions name, (frame height, frame width), true where valid.

    Raises:
        BundleError: a mask is missing or is no grey image.
    """
    names = {region.valid_area for region in recipe.geometry.regions if region.valid_area is not None}
    return {name: _valid_area(archive, name) for name in names}


def read_backgrounds(archive: Archive, recipe: Recipe) -> dict[str, Background]:
    """Every region's background; empty where the recipe has none.

    Raises:
        BundleError: one is missing, is not of its region's grid, or has a spread that divides by nothing.
    """
    spec = recipe.map_policy.background
    if spec is None:
        return {}
    found: dict[str, Background] = {}
    for region in recipe.geometry.regions:
        member = spec.members[region.name]
        values = array_from(archive.read(member), member)
        grid = tile_plan(recipe, region).grid
        whole = values.shape == (2, grid.height, grid.width) and bool(np.isfinite(values).all())
        if not whole or not bool((values[1] > 0).all()):
            message = (
                f"{archive.path}: background {member} has shape {values.shape}, expected finite values of shape "
                f"(2, {grid.height}, {grid.width}) with spreads above 0: rebuild the bundle"
            )
            raise BundleError(message)
        found[region.name] = Background(values[0], values[1])
    return found


def _valid_area(archive: Archive, name: str) -> NDArray[np.bool_]:
    try:
        frame = decode_png(archive.read(name), name)
    except DataError as error:
        message = f"{archive.path}: valid-area mask {error}"
        raise BundleError(message) from error
    if frame.format.channels != 1:
        message = f"{archive.path}: valid-area mask {name} is {frame.format}, expected grey: rebuild the bundle"
        raise BundleError(message)
    return np.asarray(frame.pixels > 0)


def _check_signature(archive: Archive, *, required: bool) -> None:
    # signatures are not made by this release: a member of that name is not trusted, and a site that demands one gets none
    if required or SIGNATURE in archive.names:
        found = "has a signature, which this release cannot check" if SIGNATURE in archive.names else "is not signed"
        message = f"{archive.path}: {found}: load it where no signature is demanded, or use a release that signs"
        raise SignatureError(message)


def _choose(manifest: Manifest, artefact: str | None, path: Path) -> ArtefactSpec:
    try:
        return manifest.artefact(artefact)
    except KeyError as error:
        names = ", ".join(spec.name for spec in manifest.artefacts)
        message = f"{path}: has no artefact {artefact!r}; it has {names}"
        raise ConfigError(message) from error


def _check_camera(manifest: Manifest, camera: Size | None, path: Path) -> None:
    if camera is not None and camera != manifest.geometry.frame.size:
        message = f"{path}: inspects frames of {manifest.geometry.frame.size}, the camera gives {camera}: set the camera's mode"
        raise ConfigError(message)
