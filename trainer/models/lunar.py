"""LUNAR: a small network judges each patch by its distances to the nearest good patches.

Goodge et al., AAAI 2022, arXiv:2112.05355; on patches of a backbone's layers, averaged over 3x3 neighbours.

The index holds good patches only, never the negatives that the network is trained with: a negative in the index would
have a first distance of 0, and the label would leak.

Departures. The index is a seeded draw of the good patches and not all of them: it is in the graph. No k-centre coreset,
which would even out the densities that the distances tell of. Uniform negatives fill the cube of the scaled channels,
widened by epsilon; the authors' code draws them around its corner at 0, where no patch lies. A training patch, and a negative made from it, is measured
against the patches of other tiles: with those of its own it would lie nearer than any patch of a new part can. Channels
that hardly vary are scaled by a tenth of the typical range at least, or mere noise would decide. The state kept is that
of the lowest validation loss and not of the highest validation AUROC, which is 1.0 before the network has learnt anything
where uniform negatives lie far out.

Where it fails. The network knows a patch's distances and not how sparse the good patches around it are. Where good ones
are of two kinds, dense ones (a plain background) and sparse ones (a lively part), negatives made from the dense kind lie
nearer to the index than good patches of the sparse kind do: the score then falls where distances grow. A fit says so.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import DataError
from trainer.backbones import Features
from trainer.models.lunar_index import NEIGHBOURS, ROWS, GoodPatches, LabelledDistances, labelled
from trainer.models.method import (
    FeatureRequest,
    FitData,
    FitSettings,
    TileBatch,
    TrainingTiles,
    added_bytes,
    backbone_features,
    with_contrast,
)
from trainer.models.neighbours import grouped, nearest_distances
from trainer.models.patchcore import Embedded, embed
from trainer.training import Schedule, train

_LOG = logging.getLogger("takt")

HIDDEN = 256
DEFAULT_BANK = 10_000  # good patches in the index, unless the user asks for another number
MAX_BANK = 20_000
_TRAINED = 4_096  # patches to train on, of the index, and as many negatives
_GROUPS = 10  # of patches, from near to far
_FALL = 0.01  # of a score from 0 to 1: less is noise
_SCHEDULE = Schedule(steps=200, learning_rate=1e-3, weight_decay=0.1, check_every=1, patience=200)


class DistanceNetwork(nn.Module):
    """Distances to the k nearest good patches -> how anomalous a patch is, as a logit."""

    def __init__(self, neighbours: int, seed: int) -> None:
        """Draw the first weights from a seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(neighbours, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.Tanh(),
                nn.Linear(HIDDEN, 1),
            )

    def forward(self, distances: Tensor) -> Tensor:
        """(N, k), nearest first -> (N,)."""
        logits: Tensor = self.layers(distances)
        return logits.squeeze(1)


class LUNAR(nn.Module):
    """Tiles to raw anomaly maps; `forward` is exactly the exported graph."""

    lowest: Tensor
    scale: Tensor
    centre: Tensor
    bank: Tensor
    halves: Tensor

    def __init__(
        self,
        features: Features,
        network: DistanceNetwork,
        *,
        lowest: Tensor,
        scale: Tensor,
        centre: Tensor,
        searched: tuple[Tensor, Tensor],
    ) -> None:
        """Take the trained network and the index that it was trained with, as `GoodPatches` has it."""
        super().__init__()
        self.features = features
        self.network = network.requires_grad_(requires_grad=False)
        self.register_buffer("lowest", lowest)
        self.register_buffer("scale", scale)
        self.register_buffer("centre", centre)
        bank, halves = searched
        self.register_buffer("bank", bank)
        self.register_buffer("halves", halves)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, H, W, C) integers -> (B, h, w) probability of an anomaly."""
        patches = embed(self.features(tiles))  # (B, D, h, w)
        batch, channels, height, width = patches.shape
        flat = patches.permute(0, 2, 3, 1).reshape(-1, channels)
        centred = (flat - self.lowest) * self.scale - self.centre
        distances = nearest_distances(centred, self.bank, self.halves, NEIGHBOURS)
        scores: Tensor = self.network(distances).sigmoid()
        return scores.reshape(batch, height, width)


def draw(features: Features, tiles: TrainingTiles, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A seeded draw of the cells that count: patches (N, D) and the number of each one's tile (N,), the same for all its views.

    Raises:
        DataError: every tile is of one colour, or no cell counts.
    """
    order = torch.randperm(tiles.cells, generator=torch.Generator().manual_seed(seed))
    wanted = order[:count].sort().values
    patches, owners = [], []
    seen = first = 0
    for batch in with_contrast(tiles):
        found = embed(features(batch.tiles)).permute(0, 2, 3, 1)[batch.kept]
        numbers = torch.arange(first, first + len(batch.tiles), device=found.device)
        numbers = (numbers // tiles.views).view(-1, 1, 1).expand_as(batch.kept)[batch.kept]
        here = (wanted[(wanted >= seen) & (wanted < seen + len(found))] - seen).to(found.device)
        patches.append(found[here])
        owners.append(numbers[here])
        seen, first = seen + len(found), first + len(batch.tiles)
    if not seen:
        message = "LUNAR found no patch to fit to: the valid area leaves nothing"
        raise DataError(message)
    return torch.cat(patches), torch.cat(owners)


def bank_size(patches: int, coreset: float | None) -> int:
    """Patches in the index: 10,000 at most, or what the user asks for, a share or a number, and 20,000 at most."""
    if coreset is None:
        return min(patches, DEFAULT_BANK)
    wanted = round(coreset * patches) if isinstance(coreset, float) else coreset
    return max(1, min(wanted, patches, MAX_BANK))


def warn_where_it_falls(network: nn.Module, learnt: LabelledDistances) -> None:
    """Say it if, as far from the index as good patches lie, the score falls again where distances grow."""
    first = learnt.distances[:, 0]
    inside = learnt.distances[first <= first[~learnt.negative].max()]
    ordered = inside[inside[:, 0].argsort()]
    with torch.no_grad():
        scores = [float(network(group).sigmoid().mean()) for group in ordered.tensor_split(_GROUPS) if len(group)]
    if scores[-1] < max(scores) - _FALL:
        _LOG.warning(
            "lunar: the score falls where distances grow: %.2f for the tenth of the patches that lies farthest from good "
            "ones, %.2f for a nearer tenth. Good patches of these parts are dense in places and sparse in others, which "
            "this method cannot tell from anomalies: compare it with --method patchcore",
            scores[-1],
            max(scores),
        )


@dataclass(frozen=True, slots=True)
class LUNARMethod:
    """LUNAR as the trainer's registry knows it."""

    name: str = "lunar"
    layers: tuple[str, ...] = ("layer2", "layer3")
    position_bound: bool = False
    knows_places: bool = False
    image_score: ImageScoreRule = ImageScoreRule.MAX_SMOOTHED
    pooled_windows: tuple[int, int, int] | None = None
    sigma: float = 4.0
    settings: frozenset[str] = frozenset({"backbone", "layers", "weights", "coreset", "steps", "learning_rate"})
    validation: float = 0.1
    note: str = ""
    no_frame_graph: str = ""

    def features(self, wanted: FeatureRequest) -> Features:
        """The backbone."""
        return backbone_features(wanted, self.layers)

    def seen(self, features: Features, tiles: Tensor) -> nn.Module:  # noqa: ARG002 - as the Protocol has it
        """Features averaged over their neighbours."""
        return Embedded(features)

    def predict_bytes(self, features: Features, data: FitData, settings: FitSettings) -> int:
        """The index as drawn, scaled and in the graph, one block of distances, and the draw's order."""
        patch = 4 * sum(features.channels)
        bank = bank_size(data.fit.cells, settings.coreset)
        block = ROWS * (2 * 4 * bank + 2 * NEIGHBOURS * patch) + 4 * _TRAINED * patch
        trained = 3 * 2 * 2 * _TRAINED * HIDDEN * 4
        held = added_bytes(self.stand_in(features, data, settings), features)
        return 3 * bank * patch + block + trained + 8 * data.fit.cells + held

    def stand_in(self, features: Features, data: FitData, settings: FitSettings) -> LUNAR:
        """The features with the network and an index of as many patches."""
        rows, channels = bank_size(data.fit.cells, settings.coreset), sum(features.channels)
        with torch.device("meta"):
            return LUNAR(
                features,
                DistanceNetwork(NEIGHBOURS, settings.seed),
                lowest=torch.empty(channels),
                scale=torch.empty(channels),
                centre=torch.empty(channels),
                searched=grouped(torch.empty(rows, channels)),
            )

    def fit(self, features: Features, data: FitData, settings: FitSettings) -> LUNAR:
        """Draw the index, then train the network on distances to it."""
        device = features.mean.device
        generator = torch.Generator(device).manual_seed(settings.seed)
        with torch.no_grad():
            index = GoodPatches(*draw(features, data.fit, bank_size(data.fit.cells, settings.coreset), settings.seed))
            chosen = torch.randperm(len(index.bank), generator=generator, device=device)[:_TRAINED]
            good = labelled(index, index.bank[chosen], index.owners[chosen], generator)
            held_out = None
            if data.validation is not None:
                patches, _ = draw(features, data.validation, _TRAINED, settings.seed)
                held_out = labelled(index, index.place(patches), None, generator)
        network = DistanceNetwork(NEIGHBOURS, settings.seed).to(device)

        def loss(batch: TileBatch, _: torch.Generator) -> Tensor:
            # a sum, of which a process that sees some of the rows gives their share: gradients are averaged by rows
            return LabelledDistances(batch.tiles, batch.kept).loss(network) * (good.batch / len(batch.tiles))

        train(
            network,
            good,
            loss,
            _SCHEDULE,
            settings,
            validate=None if held_out is None else lambda: float(held_out.loss(network)),
        )
        warn_where_it_falls(network, good)
        return LUNAR(
            features, network, lowest=index.lowest, scale=index.scale, centre=index.centre, searched=index.searched
        )
