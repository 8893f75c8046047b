"""The stub: really sealed, and anybody can work out what it answers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from support.toys import scramble

from edge_runtime.bundle.archive import Archive
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame, PixelFormat, Size, decode_png
from edge_runtime.inspector import Inspector
from trainer.bench.stub import LARGEST_CORE, STRIDE, Brightness, write_stub

ENGINES = ["openvino-f32", "onnxruntime-f32"]
WORK = 5
ONNX, XML, BIN = "artefacts/onnxruntime/graph.onnx", "artefacts/openvino/graph.xml", "artefacts/openvino/graph.bin"


def dark(height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.full((height, width, channels), 20, np.uint8)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stub that works for nothing."""
    return write_stub(tmp_path_factory.mktemp("busy") / "busy.takt", frame=Size(96, 64), work=WORK)


@pytest.mark.parametrize("artefact", ENGINES)
@pytest.mark.parametrize(
    ("brightest", "verdict", "reason"),
    [
        (20, Verdict.ACCEPT, None),
        (127, Verdict.ACCEPT, None),
        (128, Verdict.REJECT, None),
        (254, Verdict.REJECT, None),
        (255, Verdict.ERROR, Reason.NOT_FINITE),
    ],
)
def test_the_brightest_pixel_decides(
    stub: Path, busy: Path, artefact: str, brightest: int, verdict: Verdict, reason: Reason | None
) -> None:
    pixels = dark(64, 96)
    pixels[37, 70] = brightest
    for bundle in (stub, busy):
        found = Inspector.open(bundle, artefact=artefact, threads=1).inspect(pixels)
        assert (found.verdict, found.reason) == (verdict, reason)
        assert found.score == (None if reason else brightest)  # to the last bit, work or no work
        assert bool(found.regions) == (
            verdict is Verdict.REJECT
        )  # of 128, half a pixel off a cell's centre, the place alone


def test_every_pixel_of_the_frame_counts(stub: Path) -> None:
    inspector = Inspector.open(stub, threads=1)
    for y, x in [(0, 0), (0, 95), (63, 0), (63, 95), *((k * 7 % 64, k * 11 % 96) for k in range(50))]:
        pixels = dark(64, 96)
        pixels[y, x] = 200
        assert inspector.inspect(pixels).score == 200, (y, x)


@pytest.mark.parametrize(
    ("pixel_format", "threshold", "core"),
    [
        (PixelFormat.RGB8, 128.0, None),
        (PixelFormat.MONO8, 100.0, Size(32, 24)),
        (PixelFormat.MONO16, 30_000.0, None),
        (PixelFormat.RGB16, 3_000.0, Size(64, 40)),
    ],
    ids=str,
)
def test_both_engines_and_torch_give_one_map_white_pixels_included(
    tmp_path: Path, pixel_format: PixelFormat, threshold: float, core: Size | None
) -> None:
    size = Size(101, 67)  # no multiple of anything
    bundle = write_stub(
        tmp_path / "stub.takt", frame=size, pixel_format=pixel_format, threshold=threshold, core=core, work=1
    )
    white = np.iinfo(pixel_format.dtype).max
    pixels = scramble(size.height, size.width, pixel_format.channels, pixel_format.dtype.type)
    pixels[pixels > white // 256 * 250] = white // 2
    pixels[40, 50, -1] = white
    rows, columns = -(-size.height // STRIDE), -(-size.width // STRIDE)
    around = ((0, rows * STRIDE - size.height), (0, columns * STRIDE - size.width), (0, 0))
    padded = np.pad(pixels, around, mode="reflect")
    expected = padded.reshape(rows, STRIDE, columns, -1).max(axis=(1, 3)).astype(np.float32)
    expected[40 // STRIDE, 50 // STRIDE] = np.nan
    for name in ENGINES:
        inspector = Inspector.open(bundle, artefact=name, threads=1)
        grid = inspector.scorer.score(Frame(pixels, pixel_format)).regions[0].grid
        assert np.array_equal(grid, expected, equal_nan=True)
    module = Brightness(pixel_format, work=1)
    assert np.array_equal(module(torch.from_numpy(padded[np.newaxis])).numpy()[0], expected, equal_nan=True)


def test_the_work_is_done_and_not_optimised_away(busy: Path, tmp_path: Path) -> None:
    with Archive(busy) as archive:
        graph, xml, weights = (archive.read(name) for name in (ONNX, XML, BIN))
    compiled = ov.Core().compile_model(ov.Core().read_model(model=xml, weights=weights), "CPU")
    layers = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    assert layers.count("Convolution") == WORK
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert sum(node.op_type.endswith("Conv") for node in nodes) == WORK


def test_the_work_adds_exactly_nothing_whatever_the_pixels() -> None:
    tiles = torch.from_numpy(scramble(64, 96, 1)[np.newaxis])
    for shown in (tiles, tiles * 0, tiles * 0 + 254):
        idle, busy = (Brightness(PixelFormat.MONO8, work=work)(shown) for work in (0, 40))
        assert torch.equal(torch.nan_to_num(idle, nan=-1.0), torch.nan_to_num(busy, nan=-1.0))


def test_another_threshold_and_product_make_a_bundle_that_answers_otherwise(stub: Path, tmp_path: Path) -> None:
    other = Inspector.open(
        write_stub(tmp_path / "other.takt", frame=Size(96, 64), product="other", threshold=60.0), threads=1
    )
    first = Inspector.open(stub, threads=1)
    pixels = dark(64, 96)
    pixels[10, 10] = 100
    assert first.inspect(pixels).verdict is Verdict.ACCEPT
    assert other.inspect(pixels).verdict is Verdict.REJECT
    assert (first.scorer.recipe.product, other.scorer.recipe.product) == ("stub", "other")
    assert first.digest != other.digest


def test_what_it_was_sealed_with_is_a_good_and_a_painted_frame_and_none_is_white(stub: Path) -> None:
    with Archive(stub) as archive:
        frames = [decode_png(archive.read(f"golden/{index}.png"), "golden") for index in range(2)]
    good, painted = (Inspector.open(stub, threads=1).inspect(frame) for frame in frames)
    assert (good.verdict, painted.verdict) == (Verdict.ACCEPT, Verdict.REJECT)
    assert max(int(frame.pixels.max()) for frame in frames) < 255


def test_a_large_frame_is_cut_into_tiles_that_cover_it_once(stub: Path) -> None:
    """Of 4096x3000, what the default core divides without a rest: 20 tiles see 12 megapixels."""
    assert Inspector.open(stub, threads=1).scorer.engine.tiles.shape == (1, 64, 96, 1)
    assert (4096 % LARGEST_CORE.width, 3000 % LARGEST_CORE.height) == (0, 0)
    assert (LARGEST_CORE.width % STRIDE, LARGEST_CORE.height % STRIDE) == (0, 0)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 7.9, 255.5, float("nan"), float("inf")])
def test_a_threshold_without_room_for_good_frames_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(ConfigError, match="takes 8 to 255"):
        write_stub(tmp_path / "stub.takt", frame=Size(96, 64), threshold=threshold)
    assert list(tmp_path.iterdir()) == []
