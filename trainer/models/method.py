"""Owns what a method is to the rest of the trainer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features, load_features
from trainer.backbones.features import PixelSpec
from trainer.history import History
from trainer.processes import Processes


@dataclass(frozen=True, slots=True)
class TileBatch:
    """Tiles to train on, with the cells that count.

    `tiles` is (B, H, W, C) of integers on the training device; `kept` is (B, h, w) bool at the features' grid, false
    for cells of the halo, beyond the plane, or outside the valid area. `index` is (B,) int32, which tile of the plan each
    is, regions counted on; None where there is but one.
    """

    tiles: Tensor
    kept: Tensor
    index: Tensor | None = None


class TrainingTiles(Protocol):
    """Tiles of good images: may be iterated again and again, always in the same order."""

    def __iter__(self) -> Iterator[TileBatch]:
        """Batches, the last one perhaps smaller."""

    def shuffled(self, seed: int) -> Iterator[TileBatch]:
        """The same tiles in batches of an order that is drawn from the seed."""

    @property
    def batch(self) -> int:
        """How many tiles a batch has, but perhaps the last one."""

    @property
    def count(self) -> int:
        """How many tiles there are."""

    @property
    def cells(self) -> int:
        """How many cells count, over all tiles."""

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a tile's feature grid."""

    @property
    def places(self) -> int:
        """How many tiles the plan has, all regions together: what `TileBatch.index` counts."""

    @property
    def margin(self) -> int:
        """Cells of the halo on each side of a tile's grid."""

    @property
    def whole(self) -> bool:
        """Whether every tile is a whole plane and shows nothing beyond it."""

    @property
    def views(self) -> int:
        """How many times each tile is seen (as it is, then augmented), one view after the other where not shuffled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSettings:
    """What the user may set about a fit, for all methods."""

    seed: int
    coreset: float | int | None = None  # share below or at 1, or a number of patches
    buffer_bytes: int = 2 * 1024**3  # what a streaming selection may hold
    steps: int | None = None  # of optimisation; the method's own schedule when None
    learning_rate: float | None = None  # at the schedule's begin; the method's own when None
    width: float = 1.0  # share of the paper's channels, for networks that are trained from nothing
    checkpoint: Path | None = None  # where a fit by gradients keeps its state
    identity: Mapping[str, str] = field(
        default_factory=dict
    )  # settings that a checkpoint must share to be gone on from
    resume: bool = False  # go on from the checkpoint
    textures: Path | None = None  # folder of pictures that synthetic anomalies are made of; procedural when None
    history: History = field(default_factory=History)  # written by a fit by gradients
    processes: Processes = field(default_factory=Processes)  # that share a fit by gradients


@dataclass(frozen=True, kw_only=True, slots=True)
class FitData:
    """Good tiles, by share."""

    fit: TrainingTiles
    validation: TrainingTiles | None  # for constants inside the graph and the early stop; None where a method has none


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureRequest:
    """What was asked for as the first half of the graph."""

    backbone: str
    named: bool  # whether the user named the backbone; else it is the common default
    layers: tuple[str, ...] | None  # the method's own when None
    weights: str | None
    weights_dir: Path | None
    teacher: Path | None
    pixels: PixelSpec


def backbone_features(wanted: FeatureRequest, layers: tuple[str, ...]) -> Features:
    """The frozen backbone that was asked for, with the method's layers unless others were.

    Raises:
        ConfigError: no such backbone or layer, or no weights.
    """
    return load_features(
        wanted.backbone,
        wanted.layers or layers,
        weights=wanted.weights,
        pixels=wanted.pixels,
        weights_dir=wanted.weights_dir,
    )


class Method(Protocol):
    """One algorithm: how it is fitted and what the runtime must know of it."""

    @property
    def name(self) -> str:
        """What `--method` calls it."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of a residual network and of gabor that it uses unless told otherwise."""

    @property
    def position_bound(self) -> bool:
        """Whether its statistics belong to places of the plane."""

    @property
    def knows_places(self) -> bool:
        """Whether what is good depends on where it lies in the tile: tiles are not mirrored or turned for it."""

    @property
    def image_score(self) -> ImageScoreRule:
        """Where the image score comes from."""

    @property
    def pooled_windows(self) -> tuple[int, int, int] | None:
        """Sides of the windows that `pooled_max` averages over; None for other rules.

        In planes of one input, in planes of tiles, and wherever the score is taken against a background.
        """

    @property
    def sigma(self) -> float:
        """Gaussian smoothing of the map, in plane pixels."""

    @property
    def settings(self) -> frozenset[str]:
        """Flags that it can use beside those that all methods share."""

    @property
    def validation(self) -> float:
        """Share of the good images that it sets apart for constants inside the graph and the early stop; 0 for none."""

    @property
    def note(self) -> str:
        """What a bundle's LICENCES.json must say of the method itself; empty where nothing."""

    @property
    def no_frame_graph(self) -> str:
        """Why its graph cannot be run on whole frames where it was fitted to tiles; empty where it can."""

    def features(self, wanted: FeatureRequest) -> Features:
        """The first half of the graph.

        Raises:
            ConfigError: it cannot be had.
        """

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:
        """What of the graph looks beyond one cell, before anything is learnt; the halo is chosen by it.

        Its `forward` is tiles (B, H, W, C) -> (B, D, h, w) at the graph's own grid. What will be learnt is drawn, and brought to
        the scale that it will have on a few tiles of good parts.
        """

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """Memory that the fit will need beyond the network's own."""

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> nn.Module:
        """A module of the very shapes that `fit` will give: what is not the features' lies on torch's meta device.

        Its size is known before anything is fitted, and `trainer.preflight` gives it values to measure its speed.

        Raises:
            ConfigError: the tiles are not what it takes.
        """

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> nn.Module:
        """Fit on good images only; the module's `forward` is the exported graph.

        It gives the map, or (map, image score) where `image_score` is `graph`.

        Raises:
            DataError: the images cannot be fitted to, all black for instance.
        """


def added_bytes(module: nn.Module, features: nn.Module) -> int:
    """What a graph holds beside the features' weights: bank, statistics, networks."""
    return state_bytes(module) - state_bytes(features)


def state_bytes(*modules: nn.Module) -> int:
    """What the parameters and buffers of modules take, on the meta device as well as on any other."""
    return sum(values.numel() * values.element_size() for module in modules for values in module.state_dict().values())


def with_contrast(tiles: Iterable[TileBatch]) -> Iterator[TileBatch]:
    """Pass batches on, and refuse data of which every tile is of one colour.

    Raises:
        DataError: at the end, when no tile showed anything.
    """
    showed = False
    for batch in tiles:
        pixels = batch.tiles.to(torch.int32)
        showed = showed or bool((pixels != pixels[:, :1, :1]).any())
        yield batch
    if not showed:
        message = "the good images do not vary: every pixel of each is the same; lens cap on, or lamp off?"
        raise DataError(message)


def check_varies(variance: float, what: str) -> None:
    """Refuse data without any variation: a model of it would reject or accept at random.

    Raises:
        DataError: the variance is 0 or not finite.
    """
    if not variance > 0.0 or variance == float("inf"):
        message = f"the good images do not vary ({what} has variance {variance:g}): all black, or all one image? check the camera"
        raise DataError(message)
