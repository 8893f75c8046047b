"""The table of `takt bench scales`: which ways of looking are measured, and how they are shown."""

from pathlib import Path
from typing import Any

import pytest

from edge_runtime.cli import main
from edge_runtime.errors import DataError, TaktError
from trainer.bench import measured
from trainer.bench.measured import Measured, Order
from trainer.bench.scales import Study, bench_scales, ways


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """Every order that was measured; PaDiM cannot be."""
    orders: list[Order] = []

    def measure(order: Order) -> Measured:
        orders.append(order)
        if order.method == "padim":
            message = "statistics of 9 GB"
            raise TaktError(message)
        tiled = "--tile" in order.flags
        return Measured(
            image_auroc=0.9 if tiled else 0.8,
            pixel_auroc=None,
            pixel_ap=0.25 + 0.05 * order.seed,
            aupro=0.5,
            fit_s=1.0,
            fit_mb=900.0,
            bundle_mb=24.0,
            latency_ms={"f32": 40.0 if tiled else 10.0 + 2 * order.seed},
            run_mb=800.0,
        )

    monkeypatch.setattr(measured, "measure", measure)
    return orders


def study(dataset: Path, **changes: Any) -> Study:  # noqa: ANN401
    settings: dict[str, Any] = {
        "dataset": dataset,
        "methods": ("patchcore", "padim"),
        "scales": (1.0, 0.5),
        "tile": 128,
        "squashed": (256, 256),
        "seeds": 2,
        "flags": ("--coreset", "100"),
        "keep": None,
        "only_kept": False,
    }
    return Study(**settings | changes)


def test_a_frame_is_squashed_once_and_tiled_at_every_scale(tmp_path: Path) -> None:
    assert ways(study(tmp_path)) == {
        "squashed to 256x256": ("--size", "256x256"),
        "scale 1, tiles of 128": ("--tile", "128", "--scale", "1"),
        "scale 0.5, tiles of 128": ("--tile", "128", "--scale", "0.5"),
    }


def test_every_way_has_a_row_with_the_means_over_seeds_and_what_fails_is_said(small: Any, asked: list[Order]) -> None:  # noqa: ANN401
    lines = list(bench_scales(study(small.dataset)))
    assert lines[2:6] == [
        "| patchcore | squashed to 256x256 | 0.800 ± 0.000 | - | 0.275 ± 0.035 | 0.500 ± 0.000 | 11 | 24 |",
        "| patchcore | scale 1, tiles of 128 | 0.900 ± 0.000 | - | 0.275 ± 0.035 | 0.500 ± 0.000 | 40 | 24 |",
        "| patchcore | scale 0.5, tiles of 128 | 0.900 ± 0.000 | - | 0.275 ± 0.035 | 0.500 ± 0.000 | 40 | 24 |",
        "",
    ]
    assert lines[6] == "- padim, squashed to 256x256: statistics of 9 GB"
    assert all(order.flags[-2:] == ("--coreset", "100") for order in asked)


def test_what_was_kept_is_shown_without_measuring(small: Any, asked: list[Order], tmp_path: Path) -> None:  # noqa: ANN401
    keep = tmp_path / "kept.jsonl"
    list(bench_scales(study(small.dataset, keep=keep, methods=("patchcore",), scales=(1.0,))))
    asked.clear()
    lines = list(bench_scales(study(small.dataset, keep=keep, only_kept=True)))
    assert not asked
    assert len([line for line in lines if line.startswith("| patchcore")]) == 2


def test_a_data_set_that_is_not_there_is_refused_before_anything_is_measured(
    asked: list[Order], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        list(bench_scales(study(tmp_path / "nowhere")))
    assert not asked


@pytest.mark.parametrize("text", ["0", "1,x", "", "5"])
def test_scales_that_are_none_are_a_usage_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scales", str(tmp_path), "--scales", text]) == 2
    assert "no list of scales" in capsys.readouterr().err
