"""The table of `takt bench preflight`: how each method looks at a frame, and that both columns are real."""

import pytest

from edge_runtime.cli import main
from edge_runtime.imaging.frames import Size
from trainer.bench.preflight import Comparison, bench_preflight, flags


def test_methods_that_take_no_tiles_get_one_input_of_that_size() -> None:
    assert flags("patchcore", 128) == ("--method", "patchcore", "--holdout", "0", "--tile", "128")
    assert flags("csflow", 128)[-2:] == ("--size", "128x128")
    assert flags("fastflow", 128)[4:6] == ("--steps", "3")


@pytest.mark.slow
def test_a_row_has_predictions_measurements_and_their_ratios_and_what_fails_is_said() -> None:
    comparison = Comparison(
        methods=("patchcore", "efficientad_s"),
        tiles=(32,),
        frames=(Size(96, 64),),
        runs=1,
        flags=("--backbone", "gabor", "--halo", "0", "--workers", "0"),
    )
    lines = list(bench_preflight(comparison))
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:3] == ["patchcore", "96x64", "6 of 32"]
    predicted_ms, measured_ms, ratio, predicted_mb, measured_mb, memory_ratio = map(float, cells[3:])
    assert ratio == pytest.approx(predicted_ms / measured_ms, rel=0.02, abs=0.01)
    assert memory_ratio == pytest.approx(predicted_mb / measured_mb, rel=0.02, abs=0.01)
    assert 20 < measured_mb < 2000
    assert any(line.startswith("- efficientad_s, 96x64, 32: ") for line in lines)


def test_a_frame_that_is_no_size_is_a_fault_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "preflight", "--frames", "640"]) == 2
    assert "'640' is not of the form WxH" in capsys.readouterr().err
