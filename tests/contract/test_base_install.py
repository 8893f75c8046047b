"""The base install: what a factory PC gets is small, quick to answer, inspects, and says what it lacks."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL_ENOUGH_MB = 550
LEFT_OUT = (".venv", ".git", "demo", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh virtual environment with the base install and nothing else."""
    folder = tmp_path_factory.mktemp("base")
    uv = Path(sys.executable).with_name("uv")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for command in (
        [uv, "venv", "--python", sys.executable, folder / "venv"],
        [uv, "pip", "install", "--python", folder / "venv" / "bin" / "python", "-c", "constraints.txt", "."],
    ):
        done = subprocess.run(
            command, cwd=folder / "source", env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "source")  # what runs is what was installed
    return folder / "venv"


def packages(venv: Path) -> Path:
    return next((venv / "lib").glob("python*")) / "site-packages"


def takt(venv: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(venv), "TMPDIR": str(venv)}
    return subprocess.run(
        [venv / "bin" / "takt", *arguments],
        cwd=venv,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_nothing_that_only_a_workstation_needs_is_installed(installed: Path) -> None:
    found = {path.name.partition("-")[0].lower() for path in packages(installed).iterdir()}
    assert {"edge_runtime", "calibration", "openvino", "onnxruntime", "numpy", "cv2", "pydantic"} <= found
    unwanted = {"torch", "torchvision", "timm", "scipy", "matplotlib", "jinja2", "onnx", "sklearn", "pandas", "nvidia"}
    assert found & unwanted == set()


def test_the_install_is_small(installed: Path) -> None:
    size = sum(path.lstat().st_size for path in packages(installed).rglob("*") if path.is_file())
    assert size / 1e6 < SMALL_ENOUGH_MB


def test_help_imports_nothing_that_takes_time(installed: Path) -> None:
    """Half a second is the promise; a clock would only tell how busy this machine is, the imports tell why."""
    script = (
        "import sys; from edge_runtime.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [installed / "bin" / "python", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert "usage: takt COMMAND" in done.stdout
    slow = {"numpy", "cv2", "openvino", "onnxruntime", "pydantic", "tqdm", "edge_runtime.inspector", "calibration"}
    assert slow & set(re.findall(r"'([^']+)'", done.stderr)) == set()


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_it_inspects(installed: Path, small_bundle: Path, one_image: Path, artefact: str) -> None:
    done = takt(installed, "run", small_bundle, one_image, "--json", "--artefact", artefact)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["path"], found["verdict"], found["artefact"]) == (str(one_image), "ACCEPT", artefact)


def test_it_verifies_and_calibrates_without_torch(
    installed: Path, small_bundle: Path, small_dataset: Path, tmp_path: Path
) -> None:
    made = takt(installed, "calibrate", small_bundle, small_dataset, "--out", tmp_path / "new.takt", "--json")
    assert made.returncode == 0, made.stderr
    checked = takt(installed, "bundle", "verify", tmp_path / "new.takt", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["bundle"] == json.loads(made.stdout)["bundle"]


@pytest.mark.parametrize("command", ["build", "fit"])
def test_a_command_of_the_workstation_names_the_extra_that_brings_it(
    installed: Path, tmp_path: Path, command: str
) -> None:
    done = takt(installed, command, tmp_path, "--out", tmp_path / "y")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert f"takt {command}: needs " in done.stderr
    assert "takt-inspect[trainer]" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_build_without_a_data_set_still_names_the_extra(installed: Path) -> None:
    done = takt(installed, "build", "x", "--out", "y")
    assert done.returncode == 2, done.stderr
    assert "takt-inspect[trainer]" in done.stderr
    assert not (installed / "y").exists()
