"""Owns the stub: a really sealed bundle whose answers anybody can work out, for tests and for measuring the rest.

The map is the largest brightness of each cell, the image score so the brightest pixel of the frame; a white pixel gives
NaN. Nothing is fitted: everything after that (export, draft, parity, thresholds, golden frames, self-test) is what any
other bundle goes through.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calibration.layouts import open_dataset
from calibration.perturb import HELD_OUT
from calibration.policies import Policy
from calibration.references import reference_frames
from calibration.samples import DataSet
from calibration.sealing import LICENCES, seal
from edge_runtime.bundle.manifest import DraftManifest, ReferenceSpec, packages
from edge_runtime.bundle.recipe import (
    CropSpec,
    GeometrySpec,
    ImageScoreRule,
    MapPolicySpec,
    ProvenanceSpec,
    Recipe,
    RegionSpec,
    SizeSpec,
    SplitsSpec,
    TilingSpec,
)
from edge_runtime.bundle.store import DRAFT, array_bytes, json_bytes, write
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.bayer import DEMOSAIC_VERSION
from edge_runtime.imaging.frames import PixelFormat, Size, encode_png
from edge_runtime.imaging.resize import RESIZE_VERSION
from edge_runtime.scorer import Scorer
from trainer.export import to_onnx
from trainer.torch_engine import TorchEngine

STRIDE = 8  # plane pixels a cell
REGION = "frame"
LARGEST_CORE = Size(1024, 600)  # divides 4096x3000, and its intermediate maps stay in a CPU's cache
_GRAPH = "graphs/tile.onnx"
_HELD_OUT_FRAMES = 2
_BLOCK = 16  # frame pixels of one brightness: such a frame is quickly compressed
_WIDTH = 64  # channels of the work that is done for nothing


class Brightness(nn.Module):
    """Tiles to the largest brightness of each cell; `forward` is exactly the exported graph."""

    def __init__(self, pixel_format: PixelFormat, *, work: int) -> None:
        """Take the format of the tiles and how many convolutions are computed for nothing."""
        super().__init__()
        self.white = np.iinfo(pixel_format.dtype).max
        self.reduces_integers = pixel_format.dtype == np.uint8  # a quarter of the memory; torch cannot for 16 bits
        layers = [_averaging(pixel_format.channels if index == 0 else _WIDTH, index) for index in range(work)]
        self.ballast = nn.Sequential(*layers)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w) largest brightness, NaN where it is white."""
        batch, height, width, channels = tiles.shape
        rows, columns = height // STRIDE, width // STRIDE
        pixels = tiles if self.reduces_integers else tiles.to(torch.float32)
        tallest = pixels.reshape(batch, rows, STRIDE, width * channels).amax(dim=2).to(torch.float32)
        peak = tallest.reshape(batch, rows, columns, STRIDE * channels).amax(dim=3)
        healthy = torch.where(peak < self.white, peak, float("nan"))
        if not len(self.ballast):
            return healthy
        worked = self.ballast(tiles.to(torch.float32).permute(0, 3, 1, 2) / self.white)
        least = worked.reshape(batch, _WIDTH, rows, STRIDE, columns, STRIDE).amin(dim=(1, 3, 5))
        # positive weights on pixels from 0 and a bias of 1: never below 1, so this adds exactly 0, which no engine knows
        return healthy + torch.clamp(least, max=0.0)


def _averaging(channels: int, seed: int) -> nn.Conv2d:
    """A 3x3 convolution of positive weights that sum to 1, with a bias of 1: deep stacks grow by 1 a layer at most."""
    layer = nn.Conv2d(channels, _WIDTH, kernel_size=3, padding=1).requires_grad_(requires_grad=False)
    drawn = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(seed)) + 0.5
    layer.weight.copy_(drawn / drawn.sum(dim=(1, 2, 3), keepdim=True))
    layer.bias.fill_(1.0)  # type: ignore[union-attr]
    return layer


def write_stub(
    out: Path,
    *,
    frame: Size,
    pixel_format: PixelFormat = PixelFormat.MONO8,
    product: str = "stub",
    threshold: float = 128.0,
    work: int = 0,
    core: Size | None = None,
    sigma: float = 0.0,
) -> Path:
    """Make and seal a stub.

    With the default threshold a frame whose brightest pixel is below 128 is ACCEPT, one with a pixel from 128 to below
    white is REJECT, and one with a white pixel is ERROR, reason NOT_FINITE. Interpolation and smoothing take the edge off a
    bright cell: a pixel that barely rejects is not listed.

    Args:
        out: the bundle to write.
        frame: size of the frames that it inspects, in whole, at full resolution.
        pixel_format: mono8, mono16 or rgb8, rgb16.
        product: what the bundle calls itself.
        threshold: brightness that rejects.
        work: 3x3 convolutions at 64 channels that are computed for nothing, to make an inference slow.
        core: of the tiles; the frame or `LARGEST_CORE`, whichever is smaller, when None.
        sigma: smoothing of the map, in pixels, for what is listed.

    Returns:
        `out`.

    Raises:
        ConfigError: the threshold leaves no room for good frames below it, or the core is no multiple of the stride.
        ExportError: the graph cannot be exported.
        BundleError: the bundle cannot be written.
    """
    white = np.iinfo(pixel_format.dtype).max
    if not STRIDE <= threshold <= white:
        message = f"threshold {threshold:g}: a stub of {pixel_format} takes {STRIDE} to {white}"
        raise ConfigError(message)
    with tempfile.TemporaryDirectory(prefix="takt-stub-") as name:
        folder, draft = Path(name) / "good", Path(name) / "stub.draft"
        _write_frames(folder, frame, pixel_format, threshold)
        dataset = open_dataset(folder)
        recipe = _recipe(dataset, frame, pixel_format, product=product, work=work, core=core, sigma=sigma)
        _write_draft(draft, recipe, Brightness(pixel_format, work=work), dataset)
        policy = Policy(name="manual", arguments=(float(threshold),))
        seal(draft, dataset, out, policy=policy, with_report=False)
    return out


def _write_frames(folder: Path, frame: Size, pixel_format: PixelFormat, threshold: float) -> None:
    """Good frames: blocks of a quarter to half of the threshold, which leaves a painted defect short of white."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows, columns = -(-frame.height // _BLOCK), -(-frame.width // _BLOCK)
    low, high = int(threshold / 4), int(threshold / 2)
    for index in range(_HELD_OUT_FRAMES):
        blocks = draw.integers(low, high, (rows, columns, pixel_format.channels)).astype(pixel_format.dtype)
        pixels = blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[: frame.height, : frame.width]
        (folder / f"{index}.png").write_bytes(encode_png(pixels))


def _recipe(
    dataset: DataSet,
    frame: Size,
    pixel_format: PixelFormat,
    *,
    product: str,
    work: int,
    core: Size | None,
    sigma: float,
) -> Recipe:
    whole = SizeSpec(width=frame.width, height=frame.height)
    if core is None:
        core = Size(*(min(-(-side // STRIDE) * STRIDE, most) for side, most in zip(frame, LARGEST_CORE, strict=True)))
    digests = tuple(sample.digest for sample in dataset.samples)
    return Recipe(
        product=product,
        takt_version=packages().get("takt-inspect", "unknown"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        geometry=GeometrySpec(
            pixel_format=pixel_format,
            bit_depth=8 * pixel_format.dtype.itemsize,
            frame=whole,
            regions=(RegionSpec(name=REGION, crop=CropSpec(x1=0, y1=0, x2=frame.width, y2=frame.height), plane=whole),),
            resize_version=RESIZE_VERSION,
            demosaic_version=DEMOSAIC_VERSION,
        ),
        tiling=TilingSpec(
            core=SizeSpec(width=core.width, height=core.height),
            halo=0,
            stride=STRIDE,
            offset=(STRIDE - 1) / 2,
            batch=1,
            position_bound=False,
            halo_kind="exact",
            seam_error=0.0,
        ),
        map_policy=MapPolicySpec(upsampling="bilinear", sigma=sigma, image_score=ImageScoreRule.MAX_RAW),
        provenance=ProvenanceSpec(
            method="brightness",
            backbone="none",
            dataset=product,
            dataset_fingerprint=dataset.fingerprint,
            splits=SplitsSpec(fit=(), validation=(), calibration=digests),
            seed=0,
            packages=packages(),
            config={"work": work},
            fit_seconds=0.0,
            peak_memory_mb=0.0,
        ),
    )


def _write_draft(path: Path, recipe: Recipe, module: nn.Module, dataset: DataSet) -> None:
    shape = recipe.graph_shape(image_score=False)
    scorer = Scorer(recipe, TorchEngine(module, shape, torch.device("cpu")), valid_areas={})
    references: list[ReferenceSpec] = []
    members = {LICENCES: json_bytes({"weights": {"source": "built in", "licence": "Takt's own: no weights"}})}
    wanted = [(sample, variant) for sample in dataset.samples for variant in HELD_OUT]
    for reference in reference_frames(recipe, scorer.regions, wanted):
        part = scorer.score(reference.frame).regions[0]
        member = f"references/{len(references)}.npy"
        members[member] = array_bytes(part.grid)
        references.append(
            ReferenceSpec(
                digest=reference.sample.digest,
                variant=reference.variant.value,
                pixels=reference.pixels_digest,
                region=part.name,
                score=part.image_score,
                map=member,
            )
        )
    draft = DraftManifest(
        format_version=1,
        **{name: getattr(recipe, name) for name in Recipe.model_fields},
        graphs=(recipe.tile_graph((_GRAPH,)),),
        has_image_score=False,
        references=tuple(references),
        sealable=True,
        members={},
    )
    write(path, draft, members | {_GRAPH: to_onnx(module, shape)}, DRAFT)
