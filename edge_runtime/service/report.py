"""Owns the answer to `status`: one JSON object with all that a person or a monitor wants to know."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from edge_runtime.service.camera_seat import CameraSeat
from edge_runtime.service.config import parse_source
from edge_runtime.service.desk import monotonic_ns
from edge_runtime.service.lanes import WorkerSeat
from edge_runtime.service.monitor import percentiles
from edge_runtime.service.run_dir import durable
from edge_runtime.service.store import BundleFacts

if TYPE_CHECKING:
    from edge_runtime.service.broker import Broker

_LISTED = 100  # names at most: the whole has to fit into a header


def report(broker: "Broker", commit_ms: Iterable[float]) -> dict[str, JsonValue]:
    """What the service knows of itself, now."""
    state, reason = broker.flow.state()
    return {
        "station": broker.config.station,
        "state": state.value,
        "reason": reason,
        "ready": state.ready,
        "epoch": broker.flow.epoch,
        "uptime_s": (monotonic_ns() - broker.started_ns) / 1e9,
        "pid": {"supervisor": broker.supervisor_pid, "broker": os.getpid()},
        "cameras": [_camera(broker, seat) for seat in broker.flow.cameras.seats.values()],
        "workers": [_worker(seat) for seat in broker.flow.lanes.seats()],
        "journal": _journal(broker, commit_ms),
        "disk": {"path": str(broker.run_dir.path), "free_bytes": _free_bytes(broker.run_dir.path)},
        "peers": {
            "clients": _names(peer.name for peer in broker.flow.desk.peers),
            "consumers": _names(broker.flow.stream.connected()),
            "cameras": _names(peer.name for peer in broker.flow.cameras.peers),
        },
        "counters": dict(broker.counters),
    }


def _camera(broker: "Broker", seat: CameraSeat) -> JsonValue:
    name, choice = seat.config.name, seat.choice
    condition = broker.flow.condition(seat)
    figures: dict[str, JsonValue] = dict(broker.flow.figures[name].as_json())
    return {
        "name": name,
        "source": str(parse_source(seat.config.source)),
        "trigger": seat.config.trigger.value,
        "ok": condition.connected and condition.source,
        "detail": seat.detail,
        "pid": seat.pid,
        "ready": broker.flow.station.refusal(condition) is None,
        "open": sum(trigger.acceptance.camera == name for trigger in broker.flow.triggers.open.values()),
        "queued": broker.flow.lanes.queued(choice.active.digest),
        "slots": seat.config.slots,
        "exposures": seat.exposures,
        "dropped": seat.dropped,
        "bundle": _bundle(broker, choice.active),
        "staged": _bundle(broker, choice.staged),
        "staging_failed": choice.staging_failed,
        "previous": _bundle(broker, choice.previous),
        **figures,
        "frames": {kind: seat.counts[kind] for kind in ("late", "unmatched", "refused")},
        "pairing": None if seat.pairing is None else (seat.pairing.lost or "in step"),
    }


def _bundle(broker: "Broker", facts: BundleFacts | None) -> JsonValue:
    if facts is None:
        return None
    seats = [seat for seat in broker.flow.lanes.seats() if seat.digest == facts.digest]
    return {
        "product": facts.product,
        "digest": facts.digest,
        "path": str(facts.path),
        "artefact": seats[0].artefact if seats else None,
        "ready": broker.flow.lanes.ready(facts.digest),
    }


def _worker(seat: WorkerSeat) -> JsonValue:
    return {
        "name": seat.name,
        "pid": seat.pid,
        "state": "stuck" if seat.condemned else "busy" if seat.job is not None else "ready",
        "inspected": seat.inspected,
        "bundle": seat.digest,
    }


def _journal(broker: "Broker", commit_ms: Iterable[float]) -> JsonValue:
    journal, connected = broker.writer.journal, broker.flow.stream.connected()
    newest = journal.newest
    return {
        "ok": broker.flow.station.journal is None,
        "detail": broker.flow.station.journal,
        "durable": durable(),
        "newest_seq": newest,
        "open": journal.unfinished,
        "backlog": broker.writer.backlog,
        "bytes": journal.size_bytes,
        "commit_ms": {key: value for key, value in percentiles(commit_ms).items() if key != "p90"},
        "unjournaled": broker.flow.triggers.unjournaled,
        "consumers": [
            {"name": name, "acked": acked, "behind": max(0, newest - acked), "connected": name in connected}
            for name, acked in sorted(broker.flow.stream.cursors.items())[:_LISTED]
        ],
    }


def _names(names: Iterable[str]) -> JsonValue:
    return list[JsonValue](sorted(names)[:_LISTED])


def _free_bytes(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:  # somebody removed the folder: status is where one looks why nothing works
        return None
