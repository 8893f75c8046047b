"""Owns the inspector worker: one process that holds one bundle and inspects the frames that the broker points it to."""

import gc
import os
import time
from pathlib import Path
from typing import Any

import structlog
import zmq

from edge_runtime.bundle.load import load
from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import BundleError, CameraError, ProtocolError
from edge_runtime.imaging import frames as imaging
from edge_runtime.inspector import Inspection, Inspector
from edge_runtime.protocol import wire
from edge_runtime.protocol.messages import (
    Inspect,
    ListedRegion,
    Refused,
    Result,
    SlotGrant,
    WorkerHello,
    accepting,
)
from edge_runtime.protocol.ring import Ring
from edge_runtime.service import lifeline

_HEARTBEAT_MS = 500
_LISTED = 64
_RINGS = 16  # mapped at once; cameras come and go
_TAKEN = accepting(Inspect, Refused)

log = structlog.get_logger()


def run_worker(order: dict[str, Any]) -> None:
    """Load the bundle, say so, and inspect until the supervisor says stop or is gone.

    Args:
        order: `name`, `token`, `endpoint`, `bundle`, `digest`, `artefact`, `graph`, `threads`, `cache_dir`.

    Raises:
        BundleError: the bundle cannot be loaded, or is not the one that was ordered.
        EngineError: an engine cannot run it.
        ConfigError: it has no such artefact.
    """
    lifeline.die_with_supervisor()
    start = time.monotonic()
    path = Path(order["bundle"])
    bundle = load(
        path,
        artefact=order["artefact"],
        graph=GraphRole(order["graph"]),
        threads=order["threads"],
        cache_dir=Path(order["cache_dir"]),
    )
    if bundle.digest != order["digest"]:
        message = (
            f"{path}: has digest {bundle.digest}, expected {order['digest']}: it was changed after it was staged; "
            "stage the bundle again"
        )
        raise BundleError(message)
    inspector = Inspector(bundle.scorer, bundle.artefact, bundle.digest)
    log.info(
        "bundle_loaded",
        bundle=bundle.digest,
        product=bundle.manifest.product,
        graph=bundle.graph.value,
        seconds=round(time.monotonic() - start, 3),
    )
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 500
    socket.connect(order["endpoint"])
    Worker(inspector, bundle.manifest.product, order, socket).run()


class Worker:
    """Inspects one frame after the other; its heartbeats come from the thread that inspects, so a stuck engine shows."""

    def __init__(self, inspector: Inspector, product: str, order: dict[str, Any], socket: zmq.Socket[bytes]) -> None:
        """Take over an inspector that is warm: its self-test has run.

        Args:
            inspector: of the bundle.
            product: the bundle's.
            order: what the supervisor sent.
            socket: connected to the broker.
        """
        self._inspector = inspector
        self._early = Inspector(inspector.scorer, inspector.artefact, inspector.digest, early_reject=True)
        self._product = product
        self._order = order
        self._socket = socket
        self._rings: dict[str, Ring] = {}
        self._inspected = 0

    def run(self) -> None:
        """Until the process is told to leave."""
        gc.freeze()  # what modules and the bundle made is for good: no collection looks through it again
        while True:
            self._hello()
            while self._socket.poll(_HEARTBEAT_MS):
                self._take(self._socket.recv_multipart())

    def _hello(self) -> None:
        hello = WorkerHello(
            token=self._order["token"],
            worker=self._order["name"],
            pid=os.getpid(),
            digest=self._inspector.digest,
            artefact=self._inspector.artefact.name,
            product=self._product,
            inspected=self._inspected,
        )
        self._socket.send_multipart(wire.encode(hello))

    def _take(self, parts: list[bytes]) -> None:
        try:
            header = wire.decode(parts, _TAKEN).header
        except ProtocolError as error:
            log.warning("message_refused", detail=str(error))
            return
        if isinstance(header, Inspect):
            self._socket.send_multipart(wire.encode(self.inspect(header)))
        else:
            self._hello()

    def inspect(self, order: Inspect) -> Result:
        """Inspect the frame in a slot, as long as somebody waits; whatever fails is an ERROR with a reason."""
        grant = SlotGrant(slot=order.slot, generation=order.generation)
        try:
            ring = self._ring(order)
            pixels = ring.pixels(order.slot, order.frame)
        except (CameraError, ProtocolError) as error:
            return self._mismatch(order, str(error))
        if not ring.holds(grant, order.frame):
            return self._mismatch(order, f"slot {order.slot} does not hold the frame that was announced")
        inspector = self._early if order.early_reject else self._inspector
        frame = imaging.Frame(pixels, order.frame.pixel_format)
        inspection = inspector.inspect(frame, until=order.until_ns / 1e9)
        self._inspected += 1
        if not ring.holds(grant, order.frame):
            return self._mismatch(order, f"slot {order.slot} was overwritten while it was inspected")
        return as_result(order.job, inspection)

    def _ring(self, order: Inspect) -> Ring:
        ring = self._rings.get(order.path)
        if ring is None:
            if len(self._rings) >= _RINGS:
                self._rings.pop(next(iter(self._rings))).close()
            slots = Path(order.path).stat().st_size // order.slot_bytes if Path(order.path).exists() else 0
            ring = self._rings[order.path] = Ring(Path(order.path), slots=slots, size=order.slot_bytes)
        return ring

    def _mismatch(self, order: Inspect, detail: str) -> Result:
        return Result(
            job=order.job,
            verdict=Verdict.ERROR,
            reason=Reason.FRAME_MISMATCH,
            detail=detail[:2000],
            region=None,
            score=None,
            threshold=None,
            score_normalized=None,
            regions=(),
            regions_left_out=0,
            complete=False,
            bundle=self._inspector.digest,
            artefact=self._inspector.artefact.name,
            preprocess_ms=0.0,
            infer_ms=0.0,
            postprocess_ms=0.0,
        )


def as_result(job: int, inspection: Inspection) -> Result:
    """An Inspection as the broker gets it: the regions with the highest peaks, and how many more there are."""
    listed = tuple(
        ListedRegion(
            name=region.name,
            x=region.x,
            y=region.y,
            width=region.width,
            height=region.height,
            area_px=region.area_px,
            peak=region.peak,
        )
        for region in inspection.regions[:_LISTED]
    )
    times = inspection.timings_ms
    return Result(
        job=job,
        verdict=inspection.verdict,
        reason=inspection.reason,
        detail=inspection.detail[:2000],
        region=inspection.region,
        score=inspection.score,
        threshold=inspection.threshold,
        score_normalized=inspection.score_normalized,
        regions=listed,
        regions_left_out=max(0, len(inspection.regions) - _LISTED),
        complete=inspection.complete,
        bundle=inspection.bundle,
        artefact=inspection.artefact,
        preprocess_ms=times.preprocess,
        infer_ms=times.infer,
        postprocess_ms=times.postprocess,
    )
