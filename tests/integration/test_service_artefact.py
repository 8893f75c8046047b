"""`line.toml` names the artefact that is run, as `takt qualify` prints it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.line import TAKT, Line, serving

pytestmark = pytest.mark.slow


def camera(small: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": "top", "bundle": str(small.bundle), "source": f"folder:{small.dataset / 'test/good'}"}


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_the_service_runs_the_artefact_that_it_is_told(small: Any, tmp_path: Path, artefact: str) -> None:  # noqa: ANN401
    with serving(tmp_path, camera(small), artefact=artefact) as line:
        status = line.status()
        assert status is not None
        (seen,) = status["cameras"].values() if isinstance(status["cameras"], dict) else status["cameras"]
        assert seen["bundle"]["artefact"] == artefact


def test_an_artefact_that_a_bundle_has_not_is_refused_before_the_start(small: Any, tmp_path: Path) -> None:  # noqa: ANN401
    line = Line(tmp_path, camera(small), artefact="openvino-int8")
    command = [*TAKT, "serve", "--config", str(line.config), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no artefact 'openvino-int8'; it has openvino-f32, onnxruntime-f32" in done.stderr
