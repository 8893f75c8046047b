"""Owns laying a tiled bundle's model on frames of another size: another camera, the same scale of the same parts."""

from edge_runtime.bundle.manifest import ArtefactSpec, Manifest
from edge_runtime.bundle.recipe import CropSpec, GraphRole, RegionSpec, SizeSpec
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size
from edge_runtime.layout import tile_plan


def on_frames_of(manifest: Manifest, frame: Size) -> Manifest:
    """The manifest with the geometry of another frame size; thresholds and golden frames are still those of the old one.

    Raises:
        ConfigError: the model looks at frames as one input, or knows places of the old frame.
    """
    region = _only_region(manifest)
    tiling, plane = manifest.tiling, region.plane.size
    if tiling.position_bound:
        message = f"--frame: {manifest.provenance.method} keeps statistics for every place of {region.crop.size}: build it from frames of {frame}"
        raise ConfigError(message)
    if tile_plan(manifest, region).count == 1:  # it has no halo: tiles of a larger frame would not meet
        message = (
            f"--frame: the bundle sees a frame of {region.crop.size} as one input of {tiling.core.size}: build with a --tile that "
            f"cuts it into several, or from frames of {frame}"
        )
        raise ConfigError(message)
    if manifest.map_policy.background is not None:
        message = (
            "--frame: the image score is taken against what is usual at every place of "
            f"{region.crop.size}: build with --background off, or from frames of {frame}"
        )
        raise ConfigError(message)
    width = max(1, round(frame.width * plane.width / region.crop.size.width))
    height = max(1, round(frame.height * plane.height / region.crop.size.height))
    size = SizeSpec(width=frame.width, height=frame.height)
    crop = CropSpec(x1=0, y1=0, x2=frame.width, y2=frame.height)
    renewed = region.model_copy(update={"crop": crop, "plane": SizeSpec(width=width, height=height)})
    geometry = manifest.geometry.model_copy(update={"frame": size, "regions": (renewed,)})
    artefacts = tuple(_on_tiles(spec) for spec in manifest.artefacts)
    return manifest.model_copy(update={"geometry": geometry, "artefacts": artefacts})


def of_old_frames(manifest: Manifest) -> set[str]:
    """Members that are of no use for frames of another size: golden frames and graphs of the whole frame."""
    found = {golden.frame for golden in manifest.golden}
    found |= {expected.map for golden in manifest.golden for expected in golden.expected}
    for spec in manifest.artefacts:
        whole = spec.graph(GraphRole.FRAME)
        found |= set() if whole is None else set(whole.files)
        found |= set() if spec.frame is None else {spec.frame.parity_scores}
    return found


def _on_tiles(spec: ArtefactSpec) -> ArtefactSpec:
    """Without a graph of the whole old frame; the plan has other tiles now, which calibration puts in order."""
    thresholds = {name: found.model_copy(update={"tile_order": ()}) for name, found in spec.thresholds.items()}
    graphs = tuple(graph for graph in spec.graphs if graph.role is GraphRole.TILE)
    return spec.model_copy(update={"thresholds": thresholds, "graphs": graphs, "frame": None})


def _only_region(manifest: Manifest) -> RegionSpec:
    region, *more = manifest.geometry.regions
    whole = region.crop.size == manifest.geometry.frame.size and region.polygon is None and region.valid_area is None
    if more or not whole:
        names = ", ".join(spec.name for spec in manifest.geometry.regions)
        message = f"--frame: the bundle inspects regions of its own frame ({names}), which lie nowhere on another: build it from such frames"
        raise ConfigError(message)
    return region
