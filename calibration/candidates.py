"""Owns the candidates: an engine and a precision with the draft's graphs in its own format, ready to score."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from calibration.draft import Draft
from edge_runtime.bundle.recipe import GraphRole, GraphSpec
from edge_runtime.engines import EngineName, Precision, TileGraph, open_engine
from edge_runtime.scorer import Scorer

_WEIGHTS = "artefacts/openvino/graph.bin"

_Files: TypeAlias = dict[GraphRole, dict[str, bytes]]  # of each graph, by member name


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An artefact before it has thresholds."""

    name: str
    engine: EngineName
    precision: Precision
    graphs: tuple[GraphSpec, ...]
    files: dict[str, bytes]  # by member name, of all graphs
    scorers: dict[GraphRole, Scorer]

    @property
    def scorer(self) -> Scorer:
        """That of the tile graph, whose scores thresholds come from."""
        return self.scorers[GraphRole.TILE]


def make_candidates(draft: Draft, precisions: Sequence[Precision], threads: int | None) -> list[Candidate]:
    """OpenVINO in every precision, then ONNX Runtime in f32.

    Raises:
        EngineError: an engine does not take a graph.
    """
    from edge_runtime.engines.openvino import to_ir  # noqa: PLC0415 - `takt fit` comes by here and needs no OpenVINO

    ir: _Files = {}
    onnx: _Files = {}
    for role, data in draft.graphs.items():
        name = "graph" if role is GraphRole.TILE else "frame"
        xml, weights = to_ir(data)
        shared = ir.get(GraphRole.TILE, {}).get(_WEIGHTS) == weights  # then one copy serves both
        ir[role] = {
            f"artefacts/openvino/{name}.xml": xml,
            _WEIGHTS if shared else f"artefacts/openvino/{name}.bin": weights,
        }
        onnx[role] = {f"artefacts/onnxruntime/{name}.onnx": data}
    wanted = [(EngineName.OPENVINO, precision, ir) for precision in precisions]
    wanted.append((EngineName.ONNXRUNTIME, Precision.F32, onnx))
    return [_candidate(draft, engine, precision, files, threads) for engine, precision, files in wanted]


def _candidate(draft: Draft, engine: EngineName, precision: Precision, files: _Files, threads: int | None) -> Candidate:
    graphs, scorers = [], {}
    for drafted in draft.manifest.graphs:
        own = files[drafted.role]
        spec = drafted.model_copy(update={"files": tuple(own)})
        recipe = draft.manifest.seen_by(spec)
        graph = TileGraph(
            engine=engine,
            precision=precision,
            shape=recipe.graph_shape(image_score=draft.manifest.has_image_score),
            files=tuple(own.values()),
            digest=hashlib.sha256(b"".join(own.values())).hexdigest(),
        )
        graphs.append(spec)
        scorers[spec.role] = Scorer(
            recipe,
            open_engine(graph, threads=threads),
            valid_areas=draft.valid_areas,
            backgrounds=draft.backgrounds,
        )
    return Candidate(
        name=f"{engine}-{precision}",
        engine=engine,
        precision=precision,
        graphs=tuple(graphs),
        files={name: data for own in files.values() for name, data in own.items()},
        scorers=scorers,
    )
