"""Owns `takt trigger`: trigger a running service as a gateway would, and print its answers."""

import queue
import sys
import time
import uuid
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from edge_runtime.cli import EXIT_UNEXPECTED, write_json
from edge_runtime.clients.gateway import Gateway, Pending
from edge_runtime.clients.results import Inspected
from edge_runtime.commands.arguments import Parser, pixel_format, positive
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import read_image

CONNECT_S = 2.0  # so that the first part's time is not that of the connection


def trigger(arguments: Sequence[str]) -> int:
    """Trigger once or many times; exit code 1 where the service left one without answer."""
    options = _parser().parse_args(arguments)
    frame = None if options.frame is None else read_image(options.frame, options.pixel_format)
    name = options.name or f"takt-trigger-{uuid.uuid4().hex[:8]}"
    silent = 0
    with Gateway(options.endpoint, name=name) as gateway:
        gateway.wait_connected(CONNECT_S)
        _check(gateway, options)

        def send() -> Pending:
            return gateway.trigger(
                camera=options.camera, part_id=options.part_id, deadline_ms=options.deadline_ms, frame=frame
            )

        def show(result: Inspected) -> None:
            nonlocal silent
            silent += result.silent
            _print(result, as_lines=options.json)

        if options.period_ms is None:
            for _ in range(options.count):
                show(send().wait())
        else:
            _send_on_schedule(send, show, count=options.count, period_s=options.period_ms / 1000)
    if silent:
        sys.stderr.write(f"takt trigger: {silent} of {options.count} without answer from {options.endpoint}\n")
    return EXIT_UNEXPECTED if silent else 0


def as_json(result: Inspected) -> dict[str, Any]:
    """The keys that scripts read."""
    answer = result.answer
    return {
        "trigger_id": answer.trigger_id,
        "part_id": answer.part_id,
        "camera": answer.camera,
        "epoch": answer.epoch,
        "seq": answer.seq,
        "verdict": answer.verdict.value,
        "reason": None if answer.reason is None else answer.reason.value,
        "detail": answer.detail or None,
        "accepted": result.accepted,
        "silent": result.silent,
        "region": answer.region,
        "score": answer.score,
        "threshold": answer.threshold,
        "score_normalized": answer.score_normalized,
        "regions": [region.model_dump(mode="json") for region in answer.regions],
        "complete": answer.complete,
        "label": answer.label,
        "counter": answer.counter,
        "bundle": answer.bundle,
        "artefact": answer.artefact,
        "replayed": answer.replayed,
        "expired": answer.expired,
        "journaled": answer.journaled,
        "latency_ms": result.latency_ms,
        "timings_ms": answer.timings_ms.model_dump(mode="json"),
    }


def _parser() -> Parser:
    parser = Parser(prog="takt trigger", description="Trigger a running service and print its answers.")
    parser.add_argument("--endpoint", required=True, metavar="E", help="tcp://127.0.0.1:PORT, as in line.toml")
    parser.add_argument("--camera", required=True, metavar="C", help="the camera that is to look")
    parser.add_argument("--part-id", metavar="P", help="comes back with the answer")
    parser.add_argument("--deadline-ms", type=positive, metavar="N", help="else the camera's own")
    parser.add_argument("--count", type=positive, default=1, metavar="N", help="how many triggers")
    parser.add_argument(
        "--period-ms", type=_milliseconds, metavar="N", help="time between them; else each waits for the last answer"
    )
    parser.add_argument("--frame", type=Path, metavar="FILE", help="the image, for a camera of source `client`")
    parser.add_argument(
        "--pixel-format",
        type=pixel_format,
        metavar="NAME",
        help="what that file holds, where it cannot tell: BayerRG8, Mono12 ...",
    )
    parser.add_argument("--name", help="of this client; else one that nobody has")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    return parser


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3_600_000:  # noqa: PLR2004 - an hour
        message = f"{text!r} is not a time above 0 and up to 3600000 ms"
        raise ArgumentTypeError(message)
    return value


def _check(gateway: Gateway, options: Namespace) -> None:
    """Say what the service would otherwise have to say of every single trigger."""
    facts = gateway.cameras.get(options.camera)
    if gateway.cameras and facts is None:
        message = f"--camera: {options.camera!r} is not one of the station's: {', '.join(gateway.cameras)}"
        raise ConfigError(message)
    if facts is not None and facts.takes_frames and options.frame is None:
        message = f"--frame: camera {options.camera!r} gets its frames from its clients: give --frame FILE"
        raise ConfigError(message)
    if facts is not None and not facts.takes_frames and options.frame is not None:
        message = f"--frame: camera {options.camera!r} takes its own frames: leave --frame out"
        raise ConfigError(message)


def _send_on_schedule(
    send: Callable[[], Pending], show: Callable[[Inspected], None], *, count: int, period_s: float
) -> None:
    """Send at fixed times from the start, whatever the answers take; show answers as they come."""
    arrived: queue.SimpleQueue[Future[Inspected]] = queue.SimpleQueue()
    start = time.monotonic()
    shown = 0
    for index in range(count):
        while (left_s := start + index * period_s - time.monotonic()) > 0:
            try:
                result = arrived.get(timeout=left_s)
            except queue.Empty:
                break
            show(result.result())
            shown += 1
        send().future.add_done_callback(arrived.put)
    for _ in range(count - shown):
        show(arrived.get().result())


def _print(result: Inspected, *, as_lines: bool) -> None:
    if as_lines:
        write_json(as_json(result))
        return
    answer = result.answer
    score = "" if answer.score_normalized is None else f"{answer.score_normalized:.1f}"
    part = f"  part {answer.part_id}" if answer.part_id else ""
    marks = "".join(f"  {word}" for word in ("expired", "replayed") if getattr(answer, word))
    why = f"  {answer.reason}  {answer.detail}" if answer.reason else ""
    sys.stdout.write(
        f"{answer.verdict:<7} {score:>6}  {result.latency_ms:7.1f} ms  {answer.trigger_id}{part}{marks}{why}\n"
    )
    sys.stdout.flush()


__all__ = ["as_json", "trigger"]
