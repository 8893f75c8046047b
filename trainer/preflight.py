"""Owns what is known before a fit of the inspections that will follow: their time and memory, and what would fit a budget.

The graph is made of a stand-in of the very shapes, exported, and tried in a process of its own; see
`edge_runtime.preflight`.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle.archive import write_archive
from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.engines import EngineName, Precision
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.layout import tile_plan
from edge_runtime.preflight.budget import Budget, Cost
from edge_runtime.preflight.child import trial
from edge_runtime.preflight.trial import Trial, TrialOrder
from trainer.config import BuildConfig, as_typed
from trainer.export import to_onnx
from trainer.models.method import FitData, FitSettings
from trainer.needs import check_graph
from trainer.plan import Plan, replanned
from trainer.settings_that_fit import candidates, evenly_tiled, has_seams, seen_share
from trainer.stand_in import made_real

_GRAPH = "artefacts/{engine}/graph.{suffix}"
_WORTH_SAYING = 0.1  # of the pixels that a graph sees
_LOG = logging.getLogger("takt")


@dataclass(frozen=True, slots=True)
class Preflight:
    """How plans are tried."""

    engine: EngineName
    settings: FitSettings
    data: Callable[[Plan], FitData]  # of a plan, in batches of any size

    def foresee(self, plan: Plan) -> Trial | None:
        """Try what a plan will lead to; None where the memory that is free does not suffice.

        Raises:
            ConfigError: no bundle can hold the graph, or the tiles are not what the method takes.
            ExportError: torch cannot export it.
            EngineError: the engine cannot run it.
        """
        with tempfile.TemporaryDirectory(prefix="takt-preflight-") as folder:
            return trial(self.order(plan, Path(folder) / "stand-in.zip"))

    def order(self, plan: Plan, archive: Path) -> TrialOrder:
        """Write what will be in the bundle to an archive, with a stand-in's graphs; what is to be tried of it.

        Raises:
            ConfigError: no bundle can hold the graph, or the tiles are not what the method takes.
            ExportError: torch cannot export it.
        """
        graphs = 2 if plan.config.frame_graph else 1
        check_graph(plan.method, plan.features, self.data(plan), self.settings, graphs=graphs)
        members = plan.members | self._graphs(plan)
        write_archive(archive, members)
        return TrialOrder(
            archive=str(archive),
            recipe=plan.recipe,
            engine=self.engine,
            precision=Precision.F32,
            files=tuple(name for name in members if f"/{self.engine}/" in name),
            has_image_score=plan.method.image_score is ImageScoreRule.GRAPH,
        )

    def _graphs(self, plan: Plan) -> dict[str, bytes]:
        """The graphs of a stand-in: as large as those of the bundle will be, and as many; only the tile graph is tried."""
        shape = plan.recipe.graph_shape(image_score=plan.method.image_score is ImageScoreRule.GRAPH)
        module = made_real(plan.method.stand_in(plan.features, self.data(plan), self.settings))
        onnx = to_onnx(module, shape)
        plan.features.to(plan.device)  # the export brought them to the CPU
        found = {_GRAPH.format(engine=EngineName.ONNXRUNTIME, suffix="onnx"): onnx}
        if plan.config.frame_graph:
            found["frame.bin"] = onnx
        if self.engine is EngineName.ONNXRUNTIME:  # a draft's maker has no OpenVINO: its graph's weights are as large
            return found | {"other.bin": onnx}
        from edge_runtime.engines.openvino import to_ir  # noqa: PLC0415 - not for `takt fit`

        xml, weights = to_ir(onnx)
        files = {
            _GRAPH.format(engine=self.engine, suffix=suffix): data for suffix, data in (("xml", xml), ("bin", weights))
        }
        return found | files


def check_inspection(plan: Plan, preflight: Preflight) -> None:
    """Say what an inspection will take, and refuse what exceeds the budget or the machine's memory.

    Nothing is tried where each region is one tile and nobody said what it may take: that costs seconds.

    Raises:
        ConfigError: it does not fit; the message has the numbers and the nearest setting that does.
    """
    budget = Budget(deadline_ms=plan.config.deadline_ms, memory_mb=plan.config.memory_mb)
    if not budget.given and not has_seams(plan):
        return
    found = preflight.foresee(plan)
    excesses = _excesses(budget, found)
    if not excesses and found is not None:
        _LOG.info(
            "%s: %s: an inspection takes about %s here, with %s",
            plan.method.name,
            seen(plan),
            found.cost,
            preflight.engine,
        )
        _tell_uneven(plan)
        return
    nearest = _nearest(plan, preflight, budget, found)
    message = (
        f"--method {plan.method.name}: {seen(plan)}: an inspection {' and '.join(excesses)} "
        f"(predicted, with {preflight.engine} on this machine): {nearest}"
    )
    raise ConfigError(message)


def _tell_uneven(plan: Plan) -> None:
    """Name the core that divides the planes, where the last tiles see so far beyond them that it matters."""
    even = evenly_tiled(plan)
    if even is None:
        return
    saved = 1 - seen_share(plan, replanned(plan, even))
    if saved >= _WORTH_SAYING:
        _LOG.info(
            "the last tiles of a row or column reach beyond the plane: %s takes as many, and %.0f %% fewer pixels go through the graph",
            _flags(plan, even),
            100 * saved,
        )


def tiles(plan: Plan) -> int:
    """Of all regions."""
    return sum(tile_plan(plan.recipe, region).count for region in plan.recipe.geometry.regions)


def seen(plan: Plan) -> str:
    """How a frame is looked at, as lines and errors say it."""
    frame, core, halo = plan.recipe.geometry.frame.size, plan.recipe.tiling.core.size, plan.recipe.tiling.halo
    planes = " and ".join(str(region.plane.size) for region in plan.recipe.geometry.regions)
    scaled = "" if planes == str(frame) else f" as {planes}"
    around = f" with a halo of {halo}" if halo else ""
    return f"a frame of {frame}{scaled} in {tiles(plan)} tile(s) of {core}{around}"


def _excesses(budget: Budget, found: Trial | None) -> tuple[str, ...]:
    return ("takes more memory than this machine has free",) if found is None else budget.excesses(found.cost)


def _nearest(plan: Plan, preflight: Preflight, budget: Budget, found: Trial | None) -> str:
    """The first of the candidates that is predicted to fit, as a sentence; each one is tried."""
    tried = []
    for config in candidates(plan, budget, found):
        changed = _flags(plan, config)
        _LOG.info("does not fit; trying %s", changed)
        tried.append(changed)
        try:
            other = replanned(plan, config)
            other.check_frame_graph()
            cost = _cost(preflight.foresee(other))
        except (ConfigError, DataError):
            continue  # what the method cannot do, or leaves it no tile, is no setting to name
        if cost is not None and not budget.excesses(cost):
            return f"the nearest setting that fits: {changed} (predicted {cost})"
    looked = f"nothing near fits, tried: {'; '.join(tried)}" if tried else "no smaller setting is left to try"
    return f"{looked}: raise the budget, or take another --method"


def _flags(plan: Plan, config: BuildConfig) -> str:
    """What is to be typed to get from a plan to another configuration; its halo, too, else another one would be measured."""
    halo = f" --halo {config.halo}" if config.halo is not None and not plan.halo_given and has_seams(plan) else ""
    return changes(plan.config, config) + halo


def _cost(found: Trial | None) -> Cost | None:
    return None if found is None else found.cost


def changes(before: BuildConfig, after: BuildConfig) -> str:
    """Flags that lead from one configuration to another."""
    found = []
    for name in BuildConfig.model_fields:
        value = getattr(after, name)
        if value is not None and value != getattr(before, name):
            found.append(f"--{name.replace('_', '-')} {as_typed(value)}")
    return " ".join(found)
