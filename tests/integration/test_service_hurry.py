"""A worker stops at a frame whose answer has left, and a certain REJECT needs no more tiles."""

from collections.abc import Iterator

import numpy as np
import pytest
from support.line import Line, serving
from support.raw import Wires, wires

from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.frames import PixelFormat, Size
from edge_runtime.protocol.messages import FrameSpec
from trainer.bench.stub import write_stub

FRAME = FrameSpec(width=384, height=384, pixel_format=PixelFormat.MONO8)
LONG_MS = 60_000


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One worker, 144 tiles of 32x32 that take their time, a camera that rejects early and one that does not."""
    folder = tmp_path_factory.mktemp("hurry")
    core, frame = Size(32, 32), Size(FRAME.width, FRAME.height)
    bundle = write_stub(folder / "slow.takt", frame=frame, core=core, work=8, sigma=2.0)
    cameras = [{"name": name, "bundle": str(bundle), "source": "client"} for name in ("whole", "early")]
    cameras[1]["early_reject"] = True
    with serving(folder, *cameras, hang_ms=LONG_MS) as line:
        yield line


@pytest.fixture
def bench(line: Line) -> Iterator[Wires]:
    """Connections of one test."""
    with wires(line.port) as made:
        yield made


def picture(*spots: tuple[int, int]) -> bytes:
    pixels = np.full((FRAME.height, FRAME.width), 30, np.uint8)
    for x, y in spots:
        pixels[y : y + 16, x : x + 16] = 200
    return pixels.tobytes()


def test_the_worker_is_free_for_the_next_trigger_when_the_time_of_one_is_over(bench: Wires) -> None:
    client = bench.client()
    whole = client.inspect("whole", frame=FRAME, pixels=picture(), deadline_ms=LONG_MS)
    assert (whole.verdict, whole.complete) == (Verdict.ACCEPT, True)
    tenth = max(20, int(whole.timings_ms.infer / 10))
    short = client.send("whole", frame=FRAME, pixels=picture(), deadline_ms=tenth)
    following = client.send("whole", frame=FRAME, pixels=picture((200, 200)), deadline_ms=LONG_MS)
    late, right = client.answer(short), client.answer(following)
    assert (late.verdict, late.complete) == (Verdict.ERROR, False)
    assert late.reason in {Reason.TIMEOUT, Reason.JOURNAL}  # where the disk was too slow as well
    assert (right.verdict, right.complete) == (Verdict.REJECT, True)
    assert right.timings_ms.queue < right.timings_ms.infer / 2  # it did not wait for what nobody wanted


def test_a_certain_reject_is_answered_without_the_rest_of_the_frame(bench: Wires) -> None:
    client = bench.client()
    spoiled = {"frame": FRAME, "pixels": picture((40, 40), (300, 310)), "deadline_ms": LONG_MS}
    early, whole = (client.inspect(camera, **spoiled) for camera in ("early", "whole"))
    assert (early.verdict, early.complete, early.score) == (Verdict.REJECT, False, 200)
    assert (whole.verdict, whole.complete, whole.score) == (Verdict.REJECT, True, 200)
    assert {(region.x // 32, region.y // 32) for region in early.regions} <= {
        (region.x // 32, region.y // 32) for region in whole.regions
    }
    good = client.inspect("early", frame=FRAME, pixels=picture(), deadline_ms=LONG_MS)
    assert (good.verdict, good.complete) == (Verdict.ACCEPT, True)
