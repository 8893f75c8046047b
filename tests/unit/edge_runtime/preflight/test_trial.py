"""A trial runs some batches, does all else once, and says what the whole would take."""

import numpy as np
import pytest
from support.toys import BrightnessEngine, SickEngine, make_recipe

from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.recipe import Recipe
from edge_runtime.bundle.store import read_manifest
from edge_runtime.errors import BundleError, EngineError
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.preflight import child
from edge_runtime.preflight.trial import SampledEngine, TrialOrder, run_trial
from edge_runtime.scorer import Scorer

FRAME = Size(256, 128)  # 64 tiles of 32x16 in 16 batches of 4


def test_the_first_batches_of_a_frame_are_run_and_the_last_answer_stands_for_all_others() -> None:
    recipe = make_recipe(frame=FRAME)
    engine = BrightnessEngine(recipe)
    sampled = SampledEngine(engine)
    scorer = Scorer(recipe, sampled, valid_areas={})
    frame = Frame(np.full((FRAME.height, FRAME.width), 7, dtype=np.uint8), PixelFormat.MONO8)

    for batches in (3, 2):
        before = engine.runs
        sampled.begin(batches)
        (part,) = scorer.score(frame).regions
        assert engine.runs - before == batches
        assert (sampled.calls, len(sampled.spent_ms)) == (16, batches)
        assert (part.grid == 7).all()


def test_a_graph_that_gives_no_numbers_spares_the_scorer_no_work() -> None:
    recipe = make_recipe(frame=FRAME)
    sampled = SampledEngine(SickEngine(recipe))
    sampled.begin(1)
    sampled.tiles[:] = 255
    assert (sampled.run().map == 0).all()


def order(bundle: object, **changes: object) -> TrialOrder:
    with Archive(bundle) as archive:  # type: ignore[arg-type]
        manifest = read_manifest(archive)
    artefact = manifest.artefacts[-1]
    known = {
        "archive": str(bundle),
        "recipe": Recipe(**{name: getattr(manifest, name) for name in Recipe.model_fields}),
        "engine": artefact.engine,
        "precision": artefact.precision,
        "files": artefact.graphs[0].files,
        "has_image_score": manifest.has_image_score,
        "threads": 1,
    }
    return TrialOrder(**(known | changes))  # type: ignore[arg-type]


def test_a_process_of_its_own_tells_batches_time_and_memory(stub: object) -> None:
    found = child.trial(order(stub))
    assert found is not None
    assert found.batches == 1
    assert 0 < found.batch_ms <= found.latency_ms
    assert 20 < found.memory_mb < 2000  # an interpreter with an engine, and not this one with torch


def test_what_fails_in_the_process_is_raised_here_with_its_own_name(stub: object, tmp_path: object) -> None:
    with pytest.raises(BundleError, match="nothing-there"):
        child.trial(order(stub, archive=f"{tmp_path}/nothing-there.takt"))
    with pytest.raises(EngineError, match="1 file"):
        run_trial(order(stub, files=("manifest.json", "manifest.json")))
