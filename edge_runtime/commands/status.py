"""Owns `takt status`: how a running service does, on one screen."""

import sys
from collections.abc import Iterable, Sequence

from edge_runtime.cli import write_json
from edge_runtime.clients.control import Control
from edge_runtime.clients.station import CameraTold, Spread, Station, read_station
from edge_runtime.commands.arguments import Parser

_STAGES = ("frame", "queue", "preprocess", "infer", "postprocess", "journal", "total")
_MEBIBYTE = 1 << 20
_GIBIBYTE = 1 << 30


def status(arguments: Sequence[str]) -> int:
    """Show the station's status; exit code 1 where the service does not answer."""
    parser = Parser(prog="takt status", description="How a running service does.")
    parser.add_argument("--endpoint", required=True, metavar="E", help="tcp://127.0.0.1:PORT, as in line.toml")
    parser.add_argument("--json", action="store_true", help="the whole status, one JSON object on stdout")
    options = parser.parse_args(arguments)
    with Control(options.endpoint) as control:
        told = control.status()
    if options.json:
        write_json(told)
    else:
        sys.stdout.write("\n".join(screen(read_station(told))) + "\n")
    return 0


def screen(station: Station) -> list[str]:
    """What a person sees: the state and its reason first."""
    ready = "READY" if station.ready else "NOT READY"
    reason = f": {station.reason}" if station.reason else ""
    lines = [
        f"{ready}  {station.station}  {station.state}{reason}",
        f"up {_duration(station.uptime_s)}, start number {station.epoch}",
        "",
        *_table(
            ["camera", "source", "trigger", "state", "open", "exposures", "dropped", "product", "bundle"],
            [_camera_row(camera) for camera in station.cameras],
        ),
    ]
    lines += [f"  {camera.name}: {camera.detail}" for camera in station.cameras if camera.detail]
    for camera in station.cameras:
        lines += ["", *_camera(camera)]
    lines += ["", *_house(station)]
    return lines


def _camera_row(camera: CameraTold) -> list[str]:
    state = "ready" if camera.ready and camera.ok else "NOT READY" if camera.ok else "FAULT"
    product, digest = (camera.bundle.product, camera.bundle.digest[:12]) if camera.bundle else ("-", "-")
    counts = [str(camera.open), str(camera.exposures), str(camera.dropped)]
    return [camera.name, camera.source, camera.trigger, state, *counts, product, digest]


def _camera(camera: CameraTold) -> list[str]:
    total = sum(camera.verdicts.values())
    recent = camera.recent
    shares = (("ACCEPT", recent.accept), ("REVIEW", recent.review), ("REJECT", recent.reject), ("ERROR", recent.error))
    lines = [
        f"{camera.name}: {total} answer(s)"
        + "".join(f", {camera.verdicts.get(name, 0)} {name}" for name, _ in shares if camera.verdicts.get(name, 0)),
    ]
    if recent.n:
        lines.append(f"  last {recent.n}: " + ", ".join(f"{100 * share:.1f} % {name}" for name, share in shares))
    if camera.reasons:
        lines.append("  errors: " + ", ".join(f"{count} {name}" for name, count in sorted(camera.reasons.items())))
    wrong = {name: count for name, count in camera.frames.items() if count}
    if wrong:
        lines.append("  frames: " + ", ".join(f"{count} {name}" for name, count in wrong.items()))
    for word, bundle in (("staged", camera.staged), ("before", camera.previous)):
        if bundle is not None:
            lines.append(f"  {word}: {bundle.product} {bundle.digest[:12]}  {bundle.path}")
    rows = [[stage, *_figures(spread)] for stage in _STAGES if (spread := camera.latency_ms.get(stage)) and spread.n]
    if rows:
        table = _table(["ms", "p50", "p90", "p99", "max", "n"], rows)
        lines += [f"  {line}" for line in table]
    return lines


def _figures(spread: Spread) -> list[str]:
    values = (spread.p50, spread.p90, spread.p99, spread.max)
    return ["-" if value is None else f"{value:.1f}" for value in values] + [str(spread.n)]


def _house(station: Station) -> list[str]:
    journal, commit = station.journal, station.journal.commit_ms
    state = "ok" if journal.ok else f"FAULT: {journal.detail}"
    median, longest = ("-" if value is None else f"{value:.1f}" for value in (commit.p50, commit.max))
    missed = f", {journal.unjournaled} UNJOURNALED" if journal.unjournaled else ""
    lines = [
        "workers  " + (", ".join(f"{worker.name} {worker.state}" for worker in station.workers) or "none"),
        f"queue    {journal.open} trigger(s) open, {journal.backlog} answer(s) waiting for the disk",
        f"journal  {state}, newest record {journal.newest_seq}, {journal.bytes / _MEBIBYTE:.1f} MiB{missed}",
        f"  commit {median} ms (longest {longest})",
    ]
    for reader in journal.consumers:
        there = "connected" if reader.connected else "not connected"
        lines.append(f"  reader {reader.name}: acknowledged {reader.acked}, {reader.behind} behind, {there}")
    lines.append(f"disk     {station.disk.free_bytes / _GIBIBYTE:.1f} GiB free at {station.disk.path}")
    lines.append("clients  " + (", ".join(station.peers.clients) or "none"))
    wrong = {name: count for name, count in station.counters.items() if count}
    if wrong:
        lines.append("counted  " + ", ".join(f"{count} {name}" for name, count in sorted(wrong.items())))
    return lines


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


__all__ = ["screen", "status"]
