"""The published backbones whose weights are not at hand export all the same: parity with random weights, and no bundle of them."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibration.layouts import open_dataset
from calibration.policies import parse_policy
from calibration.sealing import seal
from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.store import DRAFT
from trainer.config import make_config
from trainer.demo.product import write_dataset
from trainer.fitting import fit
from trainer.models import csflow
from trainer.models.registry import METHODS

pytestmark = pytest.mark.slow

Takt = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A method with a backbone that its paper, or a published case of it, takes."""

    method: str
    backbone: str
    side: int = 64
    layers: tuple[str, ...] | None = None
    stride: int  # of the map, the finest layer's


CASES = (
    Published(method="gaussian_ad", backbone="efficientnet_b4", stride=2),
    Published(method="csflow", backbone="tf_efficientnet_b5", side=128, stride=32),
    Published(method="lunar", backbone="convnext_base", layers=("stages_1",), stride=8),
    Published(method="patchcore", backbone="wide_resnet50_2", stride=8),
    Published(method="padim", backbone="wide_resnet50_2", side=32, stride=4),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.method}-{case.backbone}")
def case(request: pytest.FixtureRequest) -> Published:
    found: Published = request.param
    return found


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good parts alone."""
    root = tmp_path_factory.mktemp("unweighted") / "parts"
    write_dataset(root, seed=4, train=6, test_good=0, per_defect=0, width=64, height=64)
    return root


@pytest.fixture(scope="module")
def draft(case: Published, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted with random weights; what is trained takes a step, and CS-Flow's own networks are narrow and few."""
    out = tmp_path_factory.mktemp(case.method) / "part.draft"
    flags = {"method": case.method, "backbone": case.backbone, "weights": "random", "size": [case.side, case.side]}
    flags |= {"workers": 0} | ({"steps": 1} if "steps" in METHODS[case.method].settings else {})
    flags |= {"layers": list(case.layers)} if case.layers else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csflow, "HIDDEN", 64)
        patch.setattr(csflow, "KERNELS", (3, 5))
        fit(make_config(flags, None), parts, out)
    return out


def test_its_onnx_and_its_ir_compute_what_torch_computes(
    case: Published, draft: Path, parts: Path, tmp_path: Path
) -> None:
    """By the gate of sealing itself, on a copy of the draft that hides where its weights come from."""
    disguised = tmp_path / "disguised.draft"
    with Archive(draft) as archive:
        members = {name: archive.read(name) for name in sorted(archive.names)}
    manifest = json.loads(members[DRAFT])
    assert manifest["sealable"] is False
    write_archive(disguised, members | {DRAFT: json.dumps(manifest | {"sealable": True}).encode()})

    sealed = seal(disguised, open_dataset(parts), tmp_path / "part.takt", policy=parse_policy("manual:1e9"))

    assert sealed.manifest.provenance.backbone == case.backbone
    assert sealed.manifest.tiling.stride == case.stride
    assert [artefact.engine for artefact in sealed.manifest.artefacts] == ["openvino", "onnxruntime"]
    for artefact in sealed.manifest.artefacts:
        parity = artefact.parity
        assert parity.kinds["original"] == parity.kinds["painted"] >= 1
        assert parity.map_range > 0
        assert parity.score_range > 0
        assert parity.map_max_abs <= 1e-3 * parity.map_range
        assert parity.score_max_abs <= 1e-3 * parity.score_range


def test_takt_seal_makes_no_bundle_of_it(draft: Path, parts: Path, takt: Takt, tmp_path: Path) -> None:
    done = takt("seal", draft, parts, "--out", tmp_path / "part.takt", "--policy", "manual:1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "random weights" in done.stderr
    assert "cannot be sealed: fit it with real weights" in done.stderr
    assert list(tmp_path.iterdir()) == []
