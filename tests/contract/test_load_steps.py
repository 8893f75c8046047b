"""Loading: each numbered step refuses its own kind of fault, before anything of a later step is used."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from edge_runtime.bundle.archive import Archive, write_archive
from edge_runtime.bundle.load import load
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.bundle.store import DRAFT, MANIFEST, SIGNATURE, array_bytes, array_from
from edge_runtime.engines.openvino import to_ir
from edge_runtime.errors import (
    BundleError,
    ConfigError,
    DigestMismatchError,
    EngineError,
    ManifestError,
    SelfTestError,
    SignatureError,
    TaktError,
    UnsupportedFormatError,
)
from edge_runtime.imaging.frames import Size

Reseal = Callable[..., Path]  # the fixtures of conftest.py
Members = dict[str, bytes]
Takt = Callable[..., subprocess.CompletedProcess[str]]


ONNX = "artefacts/onnxruntime/graph.onnx"
XML, BIN = "artefacts/openvino/graph.xml", "artefacts/openvino/graph.bin"
GOLDEN_MAP = "golden/0-openvino-f32-frame.npy"
GOLDEN_FRAME = "golden/0.png"
STEPS = ["directory", "version", "schema", "signature", "digests", "graphs", "geometry", "self-test"]
DIGESTED = STEPS[: STEPS.index("digests") + 1]
COMPILED = STEPS[: STEPS.index("graphs") + 1]
READ = STEPS[: STEPS.index("schema") + 1]
LAID_OUT = STEPS[: STEPS.index("geometry") + 1]


def refused(path: Path, kind: type[TaktError], passed: list[str], **options: object) -> str:
    """Expect exactly this kind of error after exactly these steps and an untouched file; give the message."""
    before, steps = path.read_bytes(), []
    with pytest.raises(TaktError) as caught:
        load(path, on_step=steps.append, **options)
    assert type(caught.value) is kind, caught.value
    assert steps == passed
    assert path.read_bytes() == before
    return str(caught.value)


def test_a_sealed_bundle_passes_every_step_in_order(small_bundle: Path) -> None:
    steps: list[str] = []
    loaded = load(small_bundle, on_step=steps.append, camera=Size(96, 96))
    assert steps == STEPS
    assert loaded.artefact.name == "openvino-f32"


def test_a_bundle_that_was_only_sealed_again_passes_every_step(reseal: Reseal) -> None:
    """Shows that the other tests here fail for their change, not for how they write it."""
    assert load(reseal()).artefact.name == "openvino-f32"


# 1. directory


@pytest.mark.parametrize("data", [b"", b"x", b"\x89PNG\r\n" + bytes(5000), b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused_before_any_step(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.takt"
    path.write_bytes(data)
    assert str(path) in refused(path, BundleError, [])


def test_a_file_that_is_not_there_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        load(tmp_path / "x.takt")


def test_an_archive_without_a_manifest_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.takt", {"a": b"1"})
    assert "has no member 'manifest.json'" in refused(tmp_path / "x.takt", BundleError, ["directory"])


# 2. version, 3. schema


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe\x00", b"PK", b"[" * 200_000, b'{"a":' * 100_000, b'{"format_version": 1, "x": NaN}'],
    ids=["nothing", "cut", "no text", "zip", "nested arrays", "nested objects", "NaN"],
)
def test_a_manifest_that_is_not_json_is_a_manifest_error(small_members: Members, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.takt"
    write_archive(path, small_members | {MANIFEST: data})
    assert "manifest.json is not JSON" in refused(path, ManifestError, ["directory"])


@pytest.mark.parametrize("version", [0, 2, 99, -1, "1", True, 1.0, None, [1]], ids=repr)
def test_another_format_version_is_unsupported_whatever_else_is_in_it(reseal: Reseal, version: object) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest.update(format_version=version, field_of_the_future={"nobody": "knows"})

    message = refused(reseal(change), UnsupportedFormatError, ["directory"])
    assert f"format version {version}, this release reads 1" in message


def test_a_manifest_without_a_version_or_that_is_no_object_is_unsupported(
    reseal: Reseal,
    small_members: Members,
    tmp_path: Path,
) -> None:
    refused(reseal(lambda manifest: manifest.pop("format_version")), UnsupportedFormatError, ["directory"])
    write_archive(tmp_path / "x.takt", small_members | {MANIFEST: b"[1]"})
    refused(tmp_path / "x.takt", UnsupportedFormatError, ["directory"])


def list_alike(manifest: dict[str, Any]) -> None:
    """Let the listed graphs say what the tiling says."""
    tiling = manifest["tiling"]
    sides = {side: tiling["core"][side] + 2 * tiling["halo"] for side in ("height", "width")}
    for artefact in manifest["artefacts"]:
        artefact["graphs"][0].update(batch=tiling["batch"], **sides)


def evidence(manifest: dict[str, Any]) -> dict[str, Any]:
    """Evidence for a frame graph that there is none of."""
    artefact = manifest["artefacts"][0]
    return {"parity": artefact["parity"], "parity_scores": artefact["parity_scores"], "latency_ms": 1.0}


def add_frame_graph(manifest: dict[str, Any], **other: int) -> None:
    """List the tile graph, which sees the whole plane, as a frame graph too."""
    artefact = manifest["artefacts"][0]
    artefact["graphs"].append(artefact["graphs"][0] | {"role": "frame"} | other)
    artefact["frame"] = evidence(manifest)


SCHEMA_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda m: m.update(colour="red"), "colour"),
    "unknown field deep down": (lambda m: m["geometry"]["regions"][0]["crop"].update(z=1), "geometry.regions.0.crop.z"),
    "missing field": (lambda m: m.pop("tiling"), "tiling"),
    "text for a number": (lambda m: m["tiling"].update(halo="0"), "tiling.halo"),
    "fraction for a count": (lambda m: m["tiling"].update(halo=0.5), "tiling.halo"),
    "whole fraction for a count": (lambda m: m["tiling"].update(batch=1.0), "tiling.batch"),
    "number for a truth": (lambda m: m.update(has_image_score=0), "has_image_score"),
    "truth for a number": (lambda m: m["tiling"].update(stride=True), "tiling.stride"),
    "negative size": (lambda m: m["geometry"]["frame"].update(width=-96), "geometry.frame.width"),
    "infinity": (lambda m: m["map_policy"].update(sigma=10**400), "map_policy.sigma"),
    "null threshold": (lambda m: m["artefacts"][0]["thresholds"]["frame"].update(reject=None), "reject"),
    "unknown engine": (lambda m: m["artefacts"][0].update(engine="tensorrt"), "artefacts.0.engine"),
    "unknown precision": (lambda m: m["artefacts"][0].update(precision="int4"), "artefacts.0.precision"),
    "unknown image-score rule": (lambda m: m["map_policy"].update(image_score="mean"), "map_policy.image_score"),
    "score of a graph that gives none": (
        lambda m: m["map_policy"].update(image_score="graph", pooled_cells=None),
        "has_image_score is false",
    ),
    "background of a graph's score": (
        lambda m: (
            m.update(has_image_score=True),
            m["map_policy"].update(
                image_score="graph",
                pooled_cells=None,
                background={"frames": 20, "gain": 1.2, "members": {"frame": "background/frame.npy"}},
            ),
        ),
        "no map to standardise",
    ),
    "background of another region": (
        lambda m: m["map_policy"].update(
            background={"frames": 20, "gain": 1.2, "members": {"lid": "background/lid.npy"}}
        ),
        "given for ['lid'], regions are ['frame']",
    ),
    "score of a graph for many tiles": (
        lambda m: (
            m.update(has_image_score=True),
            m["map_policy"].update(image_score="graph", pooled_cells=None),
            m["tiling"]["core"].update(width=48),
        ),
        "several tiles of 48x96",
    ),
    "no artefact": (lambda m: m.update(artefacts=[]), "artefacts"),
    "no golden frame": (lambda m: m.update(golden=[]), "golden"),
    "no tolerance": (lambda m: m.update(golden_tolerance=0), "golden_tolerance"),
    "digest that is none": (lambda m: m["members"].update({ONNX: "xyz"}), "members"),
    "camera order of colours": (lambda m: m["geometry"].update(pixel_format="bgr8"), "pixel_format"),
    "another depth than the format's": (
        lambda m: m["geometry"].update(pixel_format="rgb12"),
        "bit_depth 8: rgb12 has 12",
    ),
    "files that do not become frames": (
        lambda m: m["geometry"].update(file_format="bayerrg12"),
        "file_format bayerrg12",
    ),
    "negative smallest area": (
        lambda m: m["geometry"]["regions"][0].update(smallest_region_px=-1),
        "geometry.regions.0.smallest_region_px",
    ),
    "crop beyond the frame": (lambda m: m["geometry"]["regions"][0]["crop"].update(x2=97), "leaves the frame"),
    "empty crop": (lambda m: m["geometry"]["regions"][0]["crop"].update(x1=96), "is empty"),
    "region twice": (lambda m: m["geometry"]["regions"].append(m["geometry"]["regions"][0]), "not unique"),
    "artefact twice": (lambda m: m["artefacts"].append(m["artefacts"][0]), "not unique"),
    "region without threshold": (lambda m: m["artefacts"][0].update(thresholds={}), "thresholds for"),
    "no graph": (lambda m: m["artefacts"][0].update(graphs=[]), "graphs are []"),
    "no tile graph": (lambda m: m["artefacts"][0]["graphs"][0].update(role="frame"), "come together"),
    "tile graph twice": (
        lambda m: m["artefacts"][0]["graphs"].append(m["artefacts"][0]["graphs"][0]),
        "graphs are ['tile', 'tile']",
    ),
    "unknown role": (lambda m: m["artefacts"][0]["graphs"][0].update(role="strip"), "graphs.0.role"),
    "tile graph of another width": (
        lambda m: m["artefacts"][0]["graphs"][0].update(width=64),
        "takes 1x96x64, the tiling says 1x96x96",
    ),
    "tile graph of another batch": (lambda m: m["artefacts"][0]["graphs"][0].update(batch=2), "takes 2x96x96"),
    "frame graph without evidence": (
        lambda m: m["artefacts"][0]["graphs"].append(m["artefacts"][0]["graphs"][0] | {"role": "frame"}),
        "come together",
    ),
    "evidence without a frame graph": (lambda m: m["artefacts"][0].update(frame=evidence(m)), "come together"),
    "frame graph under an approximate halo": (
        lambda m: (add_frame_graph(m), m["tiling"].update(halo_kind="approximate", seam_error=0.15)),
        "the halo of 0 px is approximate: tiles and whole frames differ by 0.15",
    ),
    "frame graph that does not cover the plane": (lambda m: add_frame_graph(m, height=88), "1x88x96: one frame"),
    "frame graph off the stride": (lambda m: add_frame_graph(m, width=99), "1x96x99: one frame"),
    "frame graph of two frames": (lambda m: add_frame_graph(m, batch=2), "2x96x96: one frame"),
    "unknown kind of halo": (lambda m: m["tiling"].update(halo_kind="good"), "tiling.halo_kind"),
    "negative seam error": (lambda m: m["tiling"].update(seam_error=-1e-9), "tiling.seam_error"),
}


@pytest.mark.parametrize(("change", "named"), SCHEMA_FAULTS.values(), ids=SCHEMA_FAULTS)
def test_a_manifest_off_the_schema_is_a_manifest_error_that_names_the_field(
    reseal: Reseal,
    change: Callable[[dict[str, Any]], object],
    named: str,
) -> None:
    message = refused(reseal(change), ManifestError, ["directory"])
    assert named in message
    assert "rebuild the bundle" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "place",
    [
        lambda m: m["artefacts"][0]["thresholds"]["frame"],
        lambda m: m["provenance"]["config"],
        lambda m: m["artefacts"][0]["parity"]["kinds"],
    ],
    ids=["threshold", "free-form config", "counts"],
)
def test_nan_and_infinity_are_refused_wherever_they_stand(
    reseal: Reseal,
    place: Callable[[dict[str, Any]], dict[str, Any]],
    value: float,
) -> None:
    refused(reseal(lambda manifest: place(manifest).update(reject=value)), ManifestError, ["directory"])


# 4. signature


def test_a_site_that_demands_a_signature_gets_no_unsigned_bundle(small_bundle: Path) -> None:
    assert "is not signed" in refused(small_bundle, SignatureError, READ, require_signature=True)


@pytest.mark.parametrize("demanded", [True, False])
def test_a_signature_that_cannot_be_checked_is_never_taken_for_one(
    small_members: Members,
    tmp_path: Path,
    demanded: bool,  # noqa: FBT001
) -> None:
    path = tmp_path / "x.takt"
    write_archive(path, small_members | {SIGNATURE: bytes(64)})
    assert "cannot check" in refused(path, SignatureError, READ, require_signature=demanded)


# 5. digests


def test_a_member_that_the_manifest_does_not_list_is_refused(small_members: Members, tmp_path: Path) -> None:
    path = tmp_path / "x.takt"
    write_archive(path, small_members | {"golden/evil.png": b"x"})
    assert "members ['golden/evil.png'] are not in the manifest" in refused(path, BundleError, STEPS[:4])


def test_a_draft_manifest_beside_the_sealed_one_is_an_unlisted_member(small_members: Members, tmp_path: Path) -> None:
    path = tmp_path / "x.takt"
    write_archive(path, small_members | {DRAFT: b"{}"})
    assert "members ['draft.json'] are not in the manifest" in refused(path, BundleError, STEPS[:4])


def test_every_member_is_missed_where_it_is_missing(small_members: Members, tmp_path: Path) -> None:
    path = tmp_path / "x.takt"
    for gone in set(small_members) - {MANIFEST}:
        write_archive(path, {name: data for name, data in small_members.items() if name != gone})
        assert f"members ['{gone}'] are not in the file" in refused(path, BundleError, STEPS[:4])


def test_every_member_with_other_bytes_and_a_right_checksum_is_a_digest_mismatch(
    small_members: Members,
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.takt"
    for changed in set(small_members) - {MANIFEST}:
        data = small_members[changed]
        write_archive(path, small_members | {changed: data[:-1] + bytes([data[-1] ^ 1])})
        assert f"member {changed} has digest" in refused(path, DigestMismatchError, STEPS[:4])


def test_two_members_that_changed_places_are_a_digest_mismatch(small_members: Members, tmp_path: Path) -> None:
    path = tmp_path / "x.takt"
    swapped = {"golden/0.png": small_members["golden/1.png"], "golden/1.png": small_members["golden/0.png"]}
    write_archive(path, small_members | swapped)
    refused(path, DigestMismatchError, STEPS[:4])


# the choice of the artefact, and 6. graphs


def test_an_artefact_that_is_not_there_is_a_config_error_that_lists_those_that_are(small_bundle: Path) -> None:
    message = refused(small_bundle, ConfigError, DIGESTED, artefact="tensorrt-f16")
    assert "has no artefact 'tensorrt-f16'; it has openvino-f32, onnxruntime-f32" in message


def _other_graph(members: dict[str, bytes], changes: dict[bytes, bytes]) -> dict[str, bytes]:
    """The ONNX graph with names of the same length in place of others, and its IR."""
    onnx = members[ONNX]
    for old, new in changes.items():
        assert len(old) == len(new)
        assert old in onnx
        onnx = onnx.replace(old, new)
    xml, weights = to_ir(onnx)
    return {ONNX: onnx, XML: xml, BIN: weights}


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
def test_a_graph_with_another_input_name_is_an_engine_error(
    reseal: Reseal, small_members: Members, artefact: str
) -> None:
    path = reseal(members=_other_graph(small_members, {b"tiles": b"tales"}))
    message = refused(path, EngineError, DIGESTED, artefact=artefact)
    assert "graph inputs are {'tales'" in message
    assert "the manifest says {'tiles'" in message


GRAPH_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "wider tiles": (lambda m: m["tiling"]["core"].update(width=128), "uint8[1, 96, 128, 3]"),
    "a halo": (lambda m: m["tiling"].update(halo=8), "uint8[1, 112, 112, 3]"),
    "larger batch": (lambda m: m["tiling"].update(batch=2), "uint8[2, 96, 96, 3]"),
    "other stride": (lambda m: m["tiling"].update(stride=16), "float32[1, 6, 6]"),
    "one channel": (lambda m: m["geometry"].update(pixel_format="mono8"), "uint8[1, 96, 96, 1]"),
    "deeper pixels": (lambda m: m["geometry"].update(pixel_format="rgb16"), "uint16[1, 96, 96, 3]"),
    "a second input": (lambda m: m["tiling"].update(position_bound=True), "tile_index"),
    "a second output": (lambda m: m.update(has_image_score=True), "image_score"),
}


@pytest.mark.parametrize("artefact", ["openvino-f32", "onnxruntime-f32"])
@pytest.mark.parametrize(("change", "wanted"), GRAPH_FAULTS.values(), ids=GRAPH_FAULTS)
def test_a_graph_that_is_not_what_the_manifest_says_is_an_engine_error(
    reseal: Reseal,
    change: Callable[[dict[str, Any]], object],
    wanted: str,
    artefact: str,
) -> None:
    message = refused(reseal(lambda m: (change(m), list_alike(m))), EngineError, DIGESTED, artefact=artefact)
    assert wanted in message.partition("the manifest says")[2]


@pytest.mark.parametrize("files", [[], [XML], [XML, BIN, BIN], [BIN, XML]], ids=repr)
def test_an_openvino_artefact_of_other_files_is_an_engine_error(reseal: Reseal, files: list[str]) -> None:
    refused(reseal(lambda m: m["artefacts"][0]["graphs"][0].update(files=files)), EngineError, DIGESTED)


@pytest.mark.parametrize("files", [[], [XML, BIN], [XML]], ids=repr)
def test_an_onnx_artefact_of_other_files_is_an_engine_error(reseal: Reseal, files: list[str]) -> None:
    path = reseal(lambda m: m["artefacts"][1]["graphs"][0].update(files=files))
    refused(path, EngineError, DIGESTED, artefact="onnxruntime-f32")


@pytest.mark.parametrize("name", [MANIFEST, "gone.xml", "../up", ""])
def test_a_graph_file_that_no_digest_vouches_for_is_a_manifest_error(reseal: Reseal, name: str) -> None:
    message = refused(
        reseal(lambda m: m["artefacts"][0]["graphs"][0].update(files=[name, BIN])), ManifestError, DIGESTED
    )
    assert "no sealed members" in message


def test_a_frame_graph_without_golden_results_fails_the_self_test_and_its_tiles_still_run(reseal: Reseal) -> None:
    path = reseal(add_frame_graph)
    assert load(path).graph is GraphRole.TILE
    with pytest.raises(SelfTestError, match=r"expects of openvino-f32 \(frame graph\) results for regions \[\]"):
        load(path, graph=GraphRole.FRAME)


def test_a_frame_graph_is_held_against_golden_results_of_its_own(reseal: Reseal) -> None:
    def change(manifest: dict[str, Any]) -> None:
        add_frame_graph(manifest)
        for golden in manifest["golden"]:
            own = [one for one in golden["expected"] if one["artefact"] == "openvino-f32"]
            golden["expected"] += [one | {"graph": "frame", "score": one["score"] + wrong} for one in own]

    wrong = 0.0
    assert load(reseal(change), graph=GraphRole.FRAME).graph is GraphRole.FRAME
    wrong = 1e6
    path = reseal(change)
    assert load(path).graph is GraphRole.TILE
    with pytest.raises(SelfTestError, match="score by 1e"):
        load(path, graph=GraphRole.FRAME)


def test_a_graph_that_is_not_there_is_a_config_error(small_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="artefact openvino-f32 has no frame graph"):
        load(small_bundle, graph=GraphRole.FRAME)


# 7. geometry


@pytest.mark.parametrize("camera", [Size(96, 97), Size(97, 96), Size(2448, 2048)])
def test_a_camera_of_another_size_is_a_config_error_with_both_sizes(small_bundle: Path, camera: Size) -> None:
    message = refused(small_bundle, ConfigError, COMPILED, camera=camera)
    assert f"inspects frames of 96x96, the camera gives {camera}" in message


@pytest.mark.parametrize("version", [0, 2, 99])
def test_a_bundle_that_resizes_otherwise_is_a_bundle_error(reseal: Reseal, version: int) -> None:
    message = refused(reseal(lambda m: m["geometry"].update(resize_version=version)), BundleError, COMPILED)
    assert f"resize version {version}, this release has 1" in message


@pytest.mark.parametrize("member", ["LICENCES.json", "gone.png", "golden/0.png", MANIFEST])
def test_a_valid_area_that_is_no_grey_image_is_a_bundle_error(reseal: Reseal, member: str) -> None:
    path = reseal(lambda m: m["geometry"]["regions"][0].update(valid_area=member))
    assert member in refused(path, BundleError, COMPILED)


def test_a_valid_area_of_another_size_is_a_config_error(reseal: Reseal) -> None:
    mask = cv2.imencode(".png", np.full((48, 96), 255, np.uint8))[1].tobytes()
    path = reseal(lambda m: m["geometry"]["regions"][0].update(valid_area="mask.png"), members={"mask.png": mask})
    assert "96x48" in refused(path, ConfigError, COMPILED)


BACKGROUND = "background/frame.npy"


def with_background(reseal: Reseal, values: np.ndarray[Any, Any]) -> Path:
    spec = {"frames": 20, "gain": 1.2, "members": {"frame": BACKGROUND}}
    return reseal(lambda m: m["map_policy"].update(background=spec), members={BACKGROUND: array_bytes(values)})


def grid_of(members: Members) -> tuple[int, ...]:
    shape: tuple[int, ...] = array_from(members[GOLDEN_MAP], GOLDEN_MAP).shape
    return shape


def test_a_background_that_changes_nothing_passes_every_step(reseal: Reseal, small_members: Members) -> None:
    zero = np.zeros(grid_of(small_members), np.float32)
    steps: list[str] = []
    load(with_background(reseal, np.stack([zero, zero + 1])), on_step=steps.append)
    assert steps == STEPS


def test_the_score_is_taken_against_the_background_and_the_self_test_sees_it(
    reseal: Reseal, small_members: Members
) -> None:
    zero = np.zeros(grid_of(small_members), np.float32)
    assert "score by" in refused(with_background(reseal, np.stack([zero + 1, zero + 1])), SelfTestError, LAID_OUT)


@pytest.mark.parametrize("fault", ["another grid", "no spread", "negative spread", "not finite", "one of two"])
def test_a_background_that_cannot_be_one_is_a_bundle_error(reseal: Reseal, small_members: Members, fault: str) -> None:
    values = np.ones((2, *grid_of(small_members)), np.float32)
    match fault:
        case "another grid":
            values = values[:, 1:]
        case "no spread":
            values[1, 0, 0] = 0
        case "negative spread":
            values[1, -1, -1] = -1
        case "not finite":
            values[0, 0, 0] = np.nan
        case _:
            values = values[0]
    message = refused(with_background(reseal, values), BundleError, COMPILED)
    assert BACKGROUND in message
    assert "rebuild the bundle" in message


# 8. self-test


@pytest.mark.parametrize("by", [-1e-2, 1e-2, 100.0])
def test_a_golden_score_that_was_altered_and_sealed_again_fails_the_self_test(reseal: Reseal, by: float) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["expected"][0]["score"] += by

    message = refused(reseal(change), SelfTestError, LAID_OUT)
    assert "golden frame train/good/" in message
    assert "artefact openvino-f32, region frame" in message


def _map(members: dict[str, bytes]) -> np.ndarray[Any, Any]:
    return array_from(members[GOLDEN_MAP], GOLDEN_MAP)


def _one_cell(values: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = values.copy()
    changed.flat[np.argmax(values)] = value
    return changed


MAP_FAULTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "one cell": lambda values: _one_cell(values, float(values.max()) * 1.1),
    "one cell far away": lambda values: _one_cell(values, 1e30),
    "one cell infinite": lambda values: _one_cell(values, np.inf),
    "one cell NaN": lambda values: _one_cell(values, np.nan),
    "all NaN": lambda values: np.full_like(values, np.nan),
    "transposed": lambda values: np.ascontiguousarray(values.T),
    "scaled": lambda values: values * np.float32(1.01),
    "zero": np.zeros_like,
    "other shape": lambda values: values[:-1],
    "other rank": lambda values: values[np.newaxis],
    "a single value": lambda values: values[0, 0],
    "empty": lambda values: values[:0],
    "text": lambda values: values.astype(str),
    "truth": lambda values: values > 0,
    "double precision": lambda values: values.astype(np.float64),
    "record": lambda values: np.zeros(values.shape, dtype=[("a", "<f4")]),
}


@pytest.mark.parametrize("change", MAP_FAULTS.values(), ids=MAP_FAULTS)
def test_a_golden_map_that_was_altered_and_sealed_again_fails_the_self_test(
    reseal: Reseal,
    small_members: Members,
    change: Callable[..., np.ndarray[Any, Any]],
) -> None:
    path = reseal(members={GOLDEN_MAP: array_bytes(np.asarray(change(_map(small_members))))})
    refused(path, SelfTestError, LAID_OUT)
    assert load(path, artefact="onnxruntime-f32").artefact.name == "onnxruntime-f32"  # its own map is whole


def test_a_golden_map_of_pickled_objects_is_a_bundle_error_and_is_not_unpickled(
    reseal: Reseal,
    small_members: Members,
    tmp_path: Path,
) -> None:
    proof = tmp_path / "unpickled"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (proof,)

    buffer = io.BytesIO()
    np.save(buffer, np.full(_map(small_members).shape, Payload(), dtype=object), allow_pickle=True)
    assert "is not an array" in refused(reseal(members={GOLDEN_MAP: buffer.getvalue()}), BundleError, LAID_OUT)
    assert not proof.exists()
    np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True)
    assert proof.exists()  # it would have shown


@pytest.mark.parametrize("data", [b"", b"xxx", b"\x89PNG\r\n\x1a\n"])
def test_a_golden_frame_that_is_no_image_fails_the_self_test(reseal: Reseal, data: bytes) -> None:
    assert "cannot be scored" in refused(reseal(members={GOLDEN_FRAME: data}), SelfTestError, LAID_OUT)


def test_a_golden_frame_of_another_part_fails_the_self_test(reseal: Reseal, small_members: Members) -> None:
    refused(reseal(members={GOLDEN_FRAME: small_members["golden/1.png"]}), SelfTestError, LAID_OUT)


def test_a_frame_size_that_the_golden_frames_do_not_have_fails_the_self_test(reseal: Reseal) -> None:
    refused(reseal(lambda m: m["geometry"]["frame"].update(width=128)), SelfTestError, LAID_OUT)


@pytest.mark.parametrize(
    "expected",
    [
        lambda _: [],
        lambda both: both[1:],
        lambda both: [both[0] | {"artefact": "none"}, both[1]],
        lambda both: [both[0] | {"region": "none"}, both[1]],
        lambda both: [both[0], both[0], both[1]],
    ],
    ids=["nothing", "only another artefact", "an unknown artefact", "an unknown region", "a region twice"],
)
def test_a_self_test_that_would_compare_nothing_is_refused(
    reseal: Reseal,
    expected: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"][1]["expected"] = expected(manifest["golden"][1]["expected"])

    refused(reseal(change), SelfTestError, LAID_OUT)


def test_a_missing_golden_member_is_a_bundle_error(reseal: Reseal) -> None:
    refused(reseal(members={GOLDEN_MAP: None}), BundleError, LAID_OUT)
    refused(reseal(members={GOLDEN_FRAME: None}), BundleError, LAID_OUT)


def test_a_graph_that_computes_something_else_fails_the_self_test(reseal: Reseal, small_members: Members) -> None:
    """Weights swapped for others of the same size, every digest right: what only golden frames can notice."""
    graph = ET.fromstring(small_members[XML])  # noqa: S314 - our own
    floats = [data for data in graph.iter("data") if data.get("element_type") == "f32"]
    largest = max(floats, key=lambda data: int(data.get("size", "0")))
    start, size = int(largest.get("offset", "0")), int(largest.get("size", "0"))
    weights = np.frombuffer(small_members[BIN], np.uint8).copy()
    weights[start : start + size].view(np.float32)[:] *= np.float32(1.1)
    refused(reseal(members={BIN: weights.tobytes()}), SelfTestError, LAID_OUT)


# the digest that names a bundle


def test_the_digest_of_a_bundle_is_that_of_its_manifest_and_moves_with_every_threshold(reseal: Reseal) -> None:
    first = load(reseal())

    def change(manifest: dict[str, Any]) -> None:
        manifest["artefacts"][0]["thresholds"]["frame"]["reject"] += 1e-9

    second = load(reseal(change))
    assert first.digest != second.digest
    with Archive(second.path) as archive:
        assert json.loads(archive.read(MANIFEST))["members"] == second.manifest.members
