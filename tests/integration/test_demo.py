"""`takt demo`, small: from generated parts to verdicts of a running service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TAKT = (sys.executable, "-m", "edge_runtime.cli")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_goes_from_images_to_verdicts_of_a_service_and_leaves_a_line_that_can_be_served(
    tmp_path: Path,
) -> None:
    out = tmp_path / "demo"
    command = [*TAKT, "demo", "--out", str(out), "--train", "30", "--parts", "2", "--backbone", "gabor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["parts"] == 14
    assert sum(count for _, count in result["found"].values()) + result["good"] == 14
    assert result["errors"] == result["service"]["errors"] == 0
    assert result["service"]["unlike_run"] == 0
    assert result["service"]["exit_code"] == 0
    assert result["latency_ms"]["total"]["n"] == 14
    stopped = [json.loads(line)["event"] for line in (out / "service.jsonl").read_text(encoding="utf-8").splitlines()]
    assert stopped[-1] == "stopped"
    checked = subprocess.run(
        [*TAKT, "serve", "--config", result["service"]["config"], "--check-config"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
