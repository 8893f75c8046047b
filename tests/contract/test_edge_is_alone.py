"""The edge needs no torch and no network: imports and inspections in processes where both are out of reach."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_TORCH = """
import importlib, json, pkgutil, sys
from pathlib import Path

BLOCKED = {"torch", "torchvision", "timm", "trainer"}
asked = []

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            asked.append(name)
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import calibration, edge_runtime

imported = []
for package in (edge_runtime, calibration):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        imported.append(module.name)
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in BLOCKED)
inspectors = [edge_runtime.Inspector.open(sys.argv[1], artefact=name) for name in sys.argv[3:]]
verdicts = [inspector.inspect_file(Path(sys.argv[2])).verdict for inspector in inspectors]
after = sorted(name for name in sys.modules if name.partition(".")[0] in BLOCKED)
print(json.dumps({"imported": imported, "loaded": loaded + after, "asked": asked, "verdicts": verdicts}))
"""

WITHOUT_NETWORK = """
import json, os, sys
from pathlib import Path

log = os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def refuse(event, arguments):
    # forked children inherit this: what they try stands in the same file
    if event.startswith(("socket.", "urllib.")) or event in {"os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen"}:
        os.write(log, f"{event} {arguments}\\n".encode())
        raise OSError(101, f"blocked: {event}")

sys.addaudithook(refuse)
import socket

def unreachable(*_):
    raise OSError(101, "Network is unreachable")

socket.socket.connect = socket.socket.connect_ex = unreachable
from edge_runtime import Inspector

inspector = Inspector.open(sys.argv[1], artefact=sys.argv[3])
inspection = inspector.inspect_file(Path(sys.argv[2]))
print(json.dumps({"verdict": inspection.verdict, "score": inspection.score}))
"""


def alone(code: str, *arguments: str | Path, home: Path) -> dict[str, object]:
    """Run code in a new process with nothing of this one's environment; its only line of output, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "MPLCONFIGDIR": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_no_module_of_runtime_and_calibration_asks_for_torch_or_the_trainer(
    small_bundle: Path, one_image: Path, tmp_path: Path
) -> None:
    found = alone(WITHOUT_TORCH, small_bundle, one_image, "openvino-f32", "onnxruntime-f32", home=tmp_path)
    imported = found["imported"]
    assert isinstance(imported, list)
    assert {"edge_runtime.engines.openvino", "edge_runtime.commands.run", "calibration.sealing"} <= set(imported)
    assert found["loaded"] == []
    assert found["asked"] == []  # nor is it tried and forgiven
    assert found["verdicts"] == ["ACCEPT", "ACCEPT"]


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_an_inspection_neither_needs_nor_tries_a_socket_or_another_process(
    small_bundle: Path, one_image: Path, tmp_path: Path, artefact: str
) -> None:
    """Covers OpenVINO's telemetry, which would report from a process that it forks when it is imported."""
    home = tmp_path / "home"
    home.mkdir()
    tried = tmp_path / "tried"
    found = alone(WITHOUT_NETWORK, small_bundle, one_image, artefact, tried, home=home)
    assert found["verdict"] == "ACCEPT"
    assert tried.read_text() == ""
    assert list(home.rglob("*")) == []


def test_the_hook_of_these_tests_sees_and_refuses_a_socket(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    code = (
        WITHOUT_NETWORK.partition("from edge_runtime")[0]
        + "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept OSError as error:\n    print(json.dumps({'error': str(error)}))\n"
    )
    tried = tmp_path / "tried"
    found = alone(code, "", "", "", tried, home=tmp_path)
    assert "blocked" in str(found["error"]) or "unreachable" in str(found["error"])
    assert "socket." in tried.read_text()


def test_both_engines_telemetry_is_off_as_soon_as_the_engines_package_is_there(tmp_path: Path) -> None:
    code = (
        "import json, os, sys, edge_runtime.engines\n"
        "import openvino.tools.ovc.telemetry_utils as used\n"
        "print(json.dumps({'ort': os.environ.get('ORT_DISABLE_TELEMETRY'), 'openvino': used.tm.__name__}))"
    )
    found = alone(code, home=tmp_path)
    assert found == {"ort": "1", "openvino": "openvino.tools.ovc.telemetry_stub"}
