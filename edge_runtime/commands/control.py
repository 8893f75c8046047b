"""Owns `takt control`: change bundles, halt and resume a running service."""

import getpass
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from edge_runtime.cli import write_json
from edge_runtime.clients.control import Control
from edge_runtime.commands.arguments import Parser, positive
from edge_runtime.errors import ConfigError
from edge_runtime.protocol.messages import Reply

_ACTIONS = "stage|activate|rollback|resync|halt|resume|audit"


def control(arguments: Sequence[str]) -> int:
    """Send one command; exit code 1 where the service does not answer or does not do it."""
    options = _parser().parse_args(arguments)
    with Control(options.endpoint, actor=_actor()) as station:
        if options.action == "audit":
            _print_audit(station.audit(options.limit), as_json=options.json)
            return 0
        reply = _send(station, options)
    if options.json:
        write_json({"ok": reply.ok, "detail": reply.detail, "result": reply.result})
    else:
        sys.stdout.write(f"{options.action}: {reply.detail or 'done'}\n")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="takt control", description="Command a running service.")
    parser.add_argument("--endpoint", required=True, metavar="E", help="tcp://127.0.0.1:PORT, as in line.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    actions = parser.add_subparsers(dest="action", required=True, metavar=_ACTIONS, parser_class=Parser)
    stage = actions.add_parser("stage", help="load and test a sealed bundle beside the one that runs")
    stage.add_argument("--bundle", type=Path, required=True, metavar="F", help="a sealed bundle, *.takt")
    activate = actions.add_parser("activate", help="switch to the staged bundle, between frames")
    rollback = actions.add_parser("rollback", help="switch back to the bundle before")
    for action in (stage, activate, rollback):
        action.add_argument("--camera", metavar="C", help="one camera; else all of them")
    resync = actions.add_parser("resync", help="pair a hardware-triggered camera's exposures with triggers anew")
    resync.add_argument("--camera", required=True, metavar="C")
    actions.add_parser("halt", help="stop inspecting; every trigger is answered ERROR/NOT_READY")
    actions.add_parser("resume", help="inspect again")
    audit = actions.add_parser("audit", help="the last commands: when, who, what, and whether it was done")
    audit.add_argument("--limit", type=positive, default=100, metavar="N", help="so many at most")
    return parser


def _send(station: Control, options: Namespace) -> Reply:
    match options.action:
        case "stage":
            if not options.bundle.is_file():  # the service is on this host and would only say the same, later
                message = f"--bundle: {options.bundle}: is no file"
                raise ConfigError(message)
            return station.stage(options.bundle, options.camera)
        case "activate":
            return station.activate(options.camera)
        case "rollback":
            return station.rollback(options.camera)
        case "resync":
            return station.resync(options.camera)
        case "halt":
            return station.halt()
        case _:
            return station.resume()


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _print_audit(entries: list[JsonValue], *, as_json: bool) -> None:
    if as_json:
        write_json({"audit": entries})
        return
    for entry in entries:
        if not isinstance(entry, dict):
            sys.stdout.write(f"{entry}\n")
            continue
        mark = "ok" if entry.get("ok", True) else "NO"
        first = "  ".join(str(entry.get(key) or "-") for key in ("utc", "actor", "command"))
        sys.stdout.write(f"{mark}  {first}  {entry.get('detail') or ''}".rstrip() + "\n")


__all__ = ["control"]
