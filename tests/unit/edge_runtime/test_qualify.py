"""`takt qualify`: which artefact is chosen, what is refused before anything is measured, and what is told."""

import json
from typing import Any

import pytest
from support.toys import make_artefact, make_thresholds

from edge_runtime import qualify as qualifying
from edge_runtime.bundle.manifest import ArtefactSpec
from edge_runtime.commands.qualify import qualify
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError
from edge_runtime.preflight.measure import Measured, percentile
from edge_runtime.preflight.trial import Trial
from edge_runtime.qualify import Found, choose


def artefact(precision: str = "f32", *, flips: int = 0, frames: int = 20) -> ArtefactSpec:
    made = make_artefact({"all": make_thresholds()})
    parity = made.parity.model_copy(update={"frames": frames, "decision_flips": flips, "flip_limit": 1})
    return made.model_copy(update={"name": precision, "precision": Precision(precision), "parity": parity})


def found(ms: float, threads: int, *, of: ArtefactSpec | None = None, excesses: tuple[str, ...] = ()) -> Found:
    return Found(
        artefact=of or artefact(),
        threads=threads,
        predicted=Trial(batches=1, batch_ms=1.0, latency_ms=1.0, memory_mb=1.0),
        measured=Measured(count=1, p50_ms=ms, p99_ms=ms, memory_mb=1.0),
        excesses=excesses,
    )


def test_the_fastest_is_chosen_with_the_fewest_threads_that_are_as_fast() -> None:
    rows = [found(100, 1), found(52, 2), found(50, 4)]
    assert choose(rows) is rows[1]


def test_f32_is_kept_unless_another_precision_is_clearly_faster() -> None:
    plain, near, far = found(100, 1), found(85, 1, of=artefact("bf16")), found(79, 1, of=artefact("bf16"))
    assert choose([plain, near]) is plain
    assert choose([plain, far]) is far


def test_what_does_not_fit_or_was_never_held_against_torch_is_not_chosen() -> None:
    slow = found(100, 1)
    assert choose([slow, found(10, 1, excesses=("takes 10 ms",))]) is slow
    assert choose([slow, found(10, 1, of=artefact("bf16", flips=2))]) is slow
    assert choose([slow, found(10, 1, of=artefact("bf16", frames=0))]) is slow
    assert choose([found(10, 1, excesses=("takes 10 ms",))]) is None


def test_another_precision_is_taken_where_f32_does_not_fit() -> None:
    other = found(95, 1, of=artefact("bf16"))
    assert choose([found(100, 1, excesses=("takes 100 ms",)), other]) is other


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(range(1, 201)), 0.99) == 198


def test_nothing_is_measured_where_no_artefact_is_predicted_to_fit(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(qualifying, "measure", lambda _: pytest.fail("measured"))
    said = r"predicted\): .* takes \d+ MB, --memory-mb is 1: the nearest budget that fits: --deadline-ms \d+ --memory-mb \d+"
    with pytest.raises(ConfigError, match=said):
        qualify([str(stub), "--memory-mb", "1", "--threads", "1"])


@pytest.mark.slow
def test_a_machine_is_qualified_and_told_what_to_write(
    small: Any,  # noqa: ANN401
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--threads", "1", "--count", "2", "--period-ms", "1", "--deadline-ms", "60000"]
    assert qualify([str(small.bundle), *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is True
    assert [row["artefact"] for row in told["measured"]] == ["openvino-f32", "onnxruntime-f32"]
    assert told["chosen"] in told["measured"]
    assert {row["n"] for row in told["measured"]} == {2}
    assert all(0 < row["p50_ms"] <= row["p99_ms"] and row["predicted_ms"] > 0 for row in told["measured"])
