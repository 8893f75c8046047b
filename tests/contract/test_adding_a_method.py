"""`docs/adding-a-method.md` tells the truth: its code is taken from the page and goes the whole way to a line's answer."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cv2
import pytest
from support.line import TAKT, serving
from support.method_contract import PROPERTIES
from support.methods import fit as fit_parts
from support.methods import parts
from support.raw import wires
from support.without_torch import WithoutTorch
from torch import nn

from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.sealing import Sealed, seal
from trainer.config import make_config
from trainer.demo.product import write_dataset
from trainer.fitting import fit
from trainer.models.method import Method
from trainer.models.registry import METHODS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-method.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILE, CHECK = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
(REGISTERED,) = re.findall(r"^```text\n {8}(\w+)\(\),\n```$", TEXT, flags=re.MULTILINE)
MODULE = "trainer.models.gaussian"
SIDE = 96


def imported(name: str, code: str, folder: Path) -> ModuleType:
    """A module of a page's code."""
    path = folder / f"{name.rpartition('.')[2]}.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's method, registered by the page's line; its name."""
    with pytest.MonkeyPatch.context() as patch:
        module = imported(MODULE, FILE, tmp_path_factory.mktemp("page"))
        patch.setitem(sys.modules, MODULE, module)
        made = getattr(module, REGISTERED)()
        assert made.name not in METHODS
        patch.setitem(METHODS, made.name, made)
        yield made.name


@pytest.fixture(scope="module")
def fitted(method: str) -> nn.Module:
    return fit_parts(method, parts(range(16)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page") / "parts"
    write_dataset(root, seed=1, train=40, test_good=2, per_defect=0, width=SIDE, height=SIDE)
    return root


@pytest.fixture(scope="module")
def pictures(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good parts that were not fitted to, and the same with a stroke of paint; a name ends with what it deserves."""
    shown = tmp_path_factory.mktemp("pictures")
    for index, path in enumerate(sorted((dataset / "test" / "good").iterdir())):
        pixels = cv2.imread(str(path))
        cv2.imwrite(str(shown / f"{index}-ACCEPT.png"), pixels)
        pixels[40:56, 30:42] = (255, 0, 255)
        cv2.imwrite(str(shown / f"{index}-REJECT.png"), pixels)
    return shown


@pytest.fixture(scope="module")
def sealed(method: str, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    draft = tmp_path_factory.mktemp("line") / "part.draft"
    flags = {"method": method, "backbone": "gabor", "size": [SIDE, SIDE], "holdout": 0.5, "workers": 0}
    fit(make_config(flags, None), dataset, draft)
    policy = parse_policy("conformal:0.1")
    return seal(draft, open_dataset(dataset), draft.with_suffix(".takt"), policy=policy, with_report=False)


def test_the_page_goes_through_every_member_of_the_protocol() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", TEXT, flags=re.MULTILINE)
    assert rows == [name for name in vars(Method) if not name.startswith("_")]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("name", "code"), [("trainer/models/gaussian.py", FILE), ("tests/unit/trainer/test_gaussian.py", CHECK)]
)
def test_the_pages_code_reads_as_all_other_code(name: str, code: str, command: tuple[str, ...]) -> None:
    first_party = ("--config", 'lint.isort.known-first-party=["trainer"]')  # the file is not there to be found
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, *first_party, "--stdin-filename", name, "-"],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", re.findall(r"`((?:tests|trainer)/[\w/]+(?:\.py)?)`", TEXT))
def test_what_the_page_points_to_is_there(path: str) -> None:
    assert (ROOT / path).exists() or path == f"{MODULE.replace('.', '/')}.py"


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_the_pages_method_has_every_property(
    method: str, fitted: nn.Module, holds: Callable[[str, nn.Module], None]
) -> None:
    holds(method, fitted)


def test_the_pages_check_of_the_numbers_passes(method: str, tmp_path: Path) -> None:
    assert method in METHODS
    module = imported("page_check", CHECK, tmp_path)
    (check,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    check()


def test_its_bundle_holds_both_engines_in_parity_and_a_promise(method: str, sealed: Sealed) -> None:
    assert sealed.manifest.provenance.method == method
    assert [artefact.name for artefact in sealed.manifest.artefacts] == ["openvino-f32", "onnxruntime-f32"]
    for artefact in sealed.manifest.artefacts:
        assert artefact.parity.map_max_abs <= 1e-3 * artefact.parity.map_range
        assert artefact.parity.score_max_abs <= 1e-3 * artefact.parity.score_range
        assert artefact.thresholds["frame"].guarantee != "none"


def test_run_and_serve_tell_good_from_bad_with_it_where_no_torch_is(
    sealed: Sealed, pictures: Path, tmp_path: Path
) -> None:
    without_torch = WithoutTorch(tmp_path / "torch")
    done = subprocess.run(
        [*TAKT, "run", sealed.path, pictures, "--json"],
        env=without_torch.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ran = {Path(line["path"]).name: line["verdict"] for line in map(json.loads, done.stdout.splitlines())}
    assert ran == {path.name: path.stem.partition("-")[2] for path in pictures.iterdir()}

    camera = {"name": "top", "bundle": str(sealed.path), "source": f"folder:{pictures}", "deadline_ms": 30_000}
    with serving(tmp_path / "line", camera, env=without_torch.env) as line, wires(line.port) as bench:
        client = bench.client()
        answers = [client.inspect() for _ in ran]
    assert {answer.label: (answer.verdict, answer.reason) for answer in answers} == {
        name: (verdict, None) for name, verdict in ran.items()
    }
    assert without_torch.asked == []
