"""Owns `takt watch`: print the service's answers as they come."""

import sys
import threading
from collections.abc import Sequence

from edge_runtime.cli import write_json
from edge_runtime.clients.records import RecordStream
from edge_runtime.commands.arguments import Parser, positive
from edge_runtime.protocol.messages import Gap, Record

_PATIENCE_S = 3.0


def watch(arguments: Sequence[str]) -> int:
    """Print records until interrupted, or so many of them."""
    parser = Parser(prog="takt watch", description="Print answers as the service gives them.")
    parser.add_argument("--endpoint", required=True, metavar="E", help="tcp://127.0.0.1:PORT, as in line.toml")
    parser.add_argument("--name", metavar="N", help="a cursor in the service: go on after what was printed last time")
    parser.add_argument("--count", type=positive, metavar="N", help="stop after so many")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    options = parser.parse_args(arguments)
    with RecordStream(options.endpoint, options.name, on_gap=_say_gap) as stream:
        timer = threading.Timer(_PATIENCE_S, _say_waiting, (stream, options.endpoint))
        timer.daemon = True
        timer.start()
        try:
            for number, record in enumerate(stream, start=1):
                _print(record, as_lines=options.json)
                if options.name is not None:
                    stream.ack(record)
                if number == options.count:
                    break
        finally:
            timer.cancel()
    return 0


def _say_gap(gap: Gap) -> None:
    sys.stderr.write(f"takt watch: records {gap.first} to {gap.last} are missing: {gap.detail}\n")


def _say_waiting(stream: RecordStream, endpoint: str) -> None:
    if not stream.connected:
        why = stream.refusal or "is the service running?"
        sys.stderr.write(f"takt watch: waiting for {endpoint}: {why}\n")


def _print(record: Record, *, as_lines: bool) -> None:
    if as_lines:
        write_json(record.model_dump(mode="json"))
        return
    score = "" if record.score_normalized is None else f"{record.score_normalized:.1f}"
    part = f"  part {record.part_id}" if record.part_id else ""
    why = f"  {record.reason}  {record.detail}" if record.reason else ""
    again = "  replayed" if record.replayed else ""
    name = f"{record.client}/{record.trigger_id}"
    sys.stdout.write(
        f"{record.seq:>8}  {record.decided_utc}  {record.camera:<10} {record.verdict:<7} {score:>6}  {name}{part}{again}{why}\n"
    )
    sys.stdout.flush()


__all__ = ["watch"]
