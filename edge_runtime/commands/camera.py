"""Owns `takt camera`: one camera process of its own, for `takt serve` on this host."""

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.camera.process import run_camera
from edge_runtime.commands.arguments import Parser
from edge_runtime.service import logs
from edge_runtime.service.config import read_camera


def camera(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT, then leave with 0."""
    parser = Parser(prog="takt camera", description="A camera process, for `takt serve` on this host.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="camera.toml")
    config = read_camera(parser.parse_args(arguments).config)
    logs.configure(f"camera:{config.name}")
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    run_camera(config, stop)
    return 0
