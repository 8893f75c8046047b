"""The tables of `takt bench methods`: what is measured, what is kept, and how it is shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.cli import main
from edge_runtime.errors import TaktError
from trainer.bench import measured, methods
from trainer.bench.measured import Kept, Measured, Order
from trainer.bench.methods import Plan, bench_methods

ASKED: list[Order] = []


def result(score: float, *, masks: bool = True) -> Measured:
    return Measured(
        image_auroc=score,
        pixel_auroc=score if masks else None,
        pixel_ap=0.5 if masks else None,
        aupro=0.25 if masks else None,
        fit_s=12.0,
        fit_mb=900.0,
        bundle_mb=24.0,
        latency_ms={"f32": 16.0, "bf16": 9.0},
        run_mb=800.0,
    )


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    """Two sets and three methods, of which one cannot be measured."""

    def measure(order: Order) -> Measured:
        ASKED.append(order)
        if order.method == "efficientad_s":
            message = "no teacher"
            raise TaktError(message)
        return result(0.9 + 0.05 * order.seed, masks=order.dataset.name != "cubes")

    ASKED.clear()
    monkeypatch.setattr(measured, "measure", measure)
    return Plan(
        data=tmp_path,
        sets=("cookies", "cubes"),
        methods=("patchcore", "draem", "efficientad_s"),
        seeds=2,
        precisions=("f32", "bf16"),
        steps={},
        full=False,
        teacher=None,
        textures=None,
        keep=tmp_path / "kept.jsonl",
        only_kept=False,
    )


def test_every_figure_has_a_table_and_what_cannot_be_measured_is_said(plan: Plan) -> None:
    lines = list(bench_methods(plan))
    assert lines[:5] == [
        "| image AUROC | cookies | cubes | mean |",
        "|---|---|---|---|",
        "| patchcore | 0.925 ± 0.035 | 0.925 ± 0.035 | 0.925 |",
        "| draem | 0.925 ± 0.035 | 0.925 ± 0.035 | 0.925 |",
        "| efficientad_s | - | - | - |",
    ]
    assert "| patchcore | 0.500 ± 0.000 | - | 0.500 |" in lines  # no masks in cubes
    assert "| patchcore | in one pass | 12 | 900 | 24 | 16 | 9 | 800 |" in lines
    reduced = " ".join(f"{flag} {value}" for flag, value in methods.REDUCED["draem"].items())
    assert f"| draem | {reduced} | 12 | 900 | 24 | 16 | 9 | 800 |" in lines
    assert lines[-2:] == ["- efficientad_s on cookies: no teacher", "- efficientad_s on cubes: no teacher"]


def test_results_are_kept_and_not_measured_again(plan: Plan) -> None:
    first = list(bench_methods(plan))
    before = len(ASKED)
    assert list(bench_methods(plan)) == first
    assert {order.method for order in ASKED[before:]} == {"efficientad_s"}


def test_what_is_kept_is_shown_without_measuring(plan: Plan) -> None:
    list(bench_methods(replace(plan, methods=("patchcore",), sets=("cookies",))))
    before = len(ASKED)
    lines = list(bench_methods(replace(plan, only_kept=True)))
    assert len(ASKED) == before
    assert "| patchcore | 0.925 ± 0.035 | - | 0.925 |" in lines
    assert "| draem | - | - | - |" in lines


def test_a_file_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"order": "x"}\n')
    with pytest.raises(TaktError, match=r"notes\.txt: holds no results"):
        Kept(path)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"full": True}, ()),
        ({"steps": {"draem": 7}, "full": True}, ("--steps", "7")),
        ({"textures": Path("/t"), "full": True}, ("--textures", "/t")),
    ],
)
def test_an_order_says_how_a_method_is_fitted(plan: Plan, changes: dict[str, object], flags: tuple[str, ...]) -> None:
    assert methods.order(replace(plan, **changes), "draem", "cubes", 0).flags == flags  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_method_is_measured_in_processes_of_its_own(small: Any) -> None:  # noqa: ANN401
    flags = ("--backbone", "gabor", "--size", "96x96", "--coreset", "100", "--workers", "0")
    order = Order(dataset=small.dataset, method="patchcore", seed=0, precisions=("f32",), flags=flags)
    found = measured.measure(order)
    assert found.image_auroc is not None
    assert found.image_auroc > 0.5
    assert set(found.latency_ms) == {"f32"}
    assert min(found.fit_s, found.latency_ms["f32"], found.bundle_mb) > 0
    assert 50 < found.run_mb < found.fit_mb  # the one has no torch

    with pytest.raises(TaktError, match=r"takt fit .* ended with 2: .*no_such"):
        measured.measure(Order(dataset=small.dataset, method="no_such", seed=0, precisions=("f32",)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "nothing"), "--method nothing"),
        (("--steps", "draem"), "METHOD=N"),
        (("--steps", "nothing=3"), "--method nothing"),
        (("--precision", "f16"), "--precision f16"),
    ],
)
def test_wrong_usage_is_said(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "methods", "--data", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
