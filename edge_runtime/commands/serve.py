"""Owns `takt serve`: the service in the foreground, until SIGTERM."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.commands.arguments import Parser
from edge_runtime.service import logs
from edge_runtime.service.check import check
from edge_runtime.service.config import read_line
from edge_runtime.service.supervisor import serve as run_service


def serve(arguments: Sequence[str]) -> int:
    """Serve a line, or check its file."""
    parser = Parser(prog="takt serve", description="Answer every trigger of a line, until SIGTERM.")
    parser.add_argument(
        "--config", type=Path, required=True, metavar="line.toml", help="what cameras and bundles there are"
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="check the file, the folders and every bundle on this machine, and leave",
    )
    options = parser.parse_args(arguments)
    config = read_line(options.config)
    if options.check_config:
        for line in check(config):
            sys.stdout.write(line + "\n")
        return 0
    logs.configure("supervisor")
    return run_service(config, os.getpid())
