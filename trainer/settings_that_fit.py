"""Owns which other settings are worth trying where an inspection does not fit its budget, nearest first.

A model of the trial that was made says where to look: the graph's time grows with the pixels that tiles see, all else
with the plane's. Whether a candidate fits is for a trial of its own to say.
"""

import math
from collections.abc import Iterator

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size
from edge_runtime.layout import tile_plan
from edge_runtime.preflight.budget import Budget
from edge_runtime.preflight.trial import Trial
from trainer.config import DEFAULT_SIZE, BuildConfig
from trainer.data.augment import Augmentation
from trainer.geometry import even_core
from trainer.plan import Plan, replanned

CHEAPEST = "patchcore"  # whose graph is a backbone and one search
_ROOM = 0.9  # of the deadline that a candidate should take by the model: it is no better than that
_TRIALS = 2  # of smaller pictures: each takes seconds
_SHRINKS = tuple(0.95**step for step in range(1, 45))  # of a side; down to a tenth


def candidates(plan: Plan, budget: Budget, found: Trial | None) -> Iterator[BuildConfig]:
    """Configurations: other tiles, a smaller picture, and the cheapest method, as far as they may help.

    Args:
        plan: what does not fit.
        budget: what it should fit.
        found: the trial of it; None where memory did not suffice.
    """
    late = found is not None and budget.deadline_ms is not None and found.latency_ms > budget.deadline_ms
    if plan.config.tile is not None:
        yield from (_larger_tiles if late else _smaller_tiles)(plan, budget, found)
    if late or plan.config.tile is None:
        yield from _smaller_pictures(plan, budget, found)
    if plan.method.name != CHEAPEST:
        yield plan.config.model_copy(update={"method": CHEAPEST})


def evenly_tiled(plan: Plan, times: int = 1, *, part: int = 1) -> BuildConfig | None:
    """Tiles that cover the planes with as little beyond them as can be; None where those are the plan's own.

    Args:
        plan: in tiles.
        times: so much wider and higher than the plan's, before they are made to divide the planes.
        part: of so many, as wide and as high as one may be at most.
    """
    planes = [region.plane.size for region in plan.recipe.geometry.regions]
    stride, own = plan.features.input_stride, plan.recipe.tiling.core.size
    most = Size(*(max(stride, times * side // part // stride * stride) for side in own))
    core = even_core(planes, most, stride, square=Augmentation.TURN in plan.config.augment)
    return None if core == own else plan.config.model_copy(update={"tile": tuple(core)})


def seen_share(plan: Plan, other: Plan) -> float:
    """How many pixels go through another plan's graph for one frame, as a share of those that go through this one's."""
    return _seen_px(other) / _seen_px(plan)


def modelled_ms(plan: Plan, found: Trial, other: Plan) -> float:
    """What another plan of the same method would take, by the pixels that it looks at."""
    rest = max(0.0, found.latency_ms - found.batches * found.batch_ms)
    graph, all_else = seen_share(plan, other), _plane_px(other) / _plane_px(plan)
    return found.batches * found.batch_ms * graph + rest * all_else


def _larger_tiles(plan: Plan, budget: Budget, found: Trial | None) -> Iterator[BuildConfig]:
    """The smallest that lose so little to halos and beyond the planes that the model says yes."""
    core = plan.recipe.tiling.core.size
    planes = [region.plane.size for region in plan.recipe.geometry.regions]
    most = max(max(plane.width / core.width, plane.height / core.height) for plane in planes)
    for times in range(1, math.ceil(most) + 1):
        config = evenly_tiled(plan, times)
        if config is not None and _fits(plan, budget, found, config):
            yield config
            return


def _smaller_tiles(plan: Plan, budget: Budget, found: Trial | None) -> Iterator[BuildConfig]:
    """As many, then of a half and of a quarter, for memory."""
    given: list[BuildConfig] = []
    for part in (1, 2, 4):
        config = evenly_tiled(plan, part=part)
        if config is None or config in given:
            continue
        given.append(config)
        if not plan.halo_given and not has_seams(plan):  # the one tile needed none: these do
            config = config.model_copy(update={"halo": None})
        if found is None or budget.deadline_ms is None or _fits(plan, budget, found, config):
            yield config


def _smaller_pictures(plan: Plan, budget: Budget, found: Trial | None) -> Iterator[BuildConfig]:
    """The two largest that the model says yes to."""
    given: list[BuildConfig] = []
    for shrink in _SHRINKS:
        config = _shrunk(plan, shrink)
        if config is not None and config not in given and _fits(plan, budget, found, config):
            yield config
            given.append(config)
            if len(given) == _TRIALS:
                return


def _shrunk(plan: Plan, share: float) -> BuildConfig | None:
    """A smaller `--scale`, or `--size` on the network's grid; None where that is nothing."""
    if plan.config.tile is not None:
        return plan.config.model_copy(update={"scale": round((plan.config.scale or 1.0) * share, 2)})
    stride = plan.features.input_stride
    size = tuple(int(side * share) // stride * stride for side in plan.config.size or DEFAULT_SIZE)
    return plan.config.model_copy(update={"size": size}) if min(size) > 0 else None


def _fits(plan: Plan, budget: Budget, found: Trial | None, config: BuildConfig) -> bool:
    """Whether the model says so; where it knows nothing, or only memory counts, half the pixels are worth a trial."""
    try:
        other = replanned(plan, config)
    except ConfigError:
        return False
    if found is None or budget.deadline_ms is None:
        return 2 * _plane_px(other) <= _plane_px(plan)
    return modelled_ms(plan, found, other) <= _ROOM * budget.deadline_ms


def has_seams(plan: Plan) -> bool:
    """Whether a region takes several tiles."""
    return any(tile_plan(plan.recipe, region).count > 1 for region in plan.recipe.geometry.regions)


def _seen_px(plan: Plan) -> int:
    """Pixels that go through the graph for one frame: whole batches of tiles with their halos."""
    batch = plan.recipe.tiling.batch
    plans = [tile_plan(plan.recipe, region) for region in plan.recipe.geometry.regions]
    return sum(-(-tiles.count // batch) * batch * tiles.input.width * tiles.input.height for tiles in plans)


def _plane_px(plan: Plan) -> int:
    return sum(region.plane.width * region.plane.height for region in plan.recipe.geometry.regions)
