"""A process that knows the truth and believes nobody: it triggers parts, or reads records, and writes down what it sees.

`python checker.py raw|library|raw-reader|library-reader --endpoint tcp://... --name NAME --ledger FILE`, until stdin ends;
then every open trigger is waited for. Killed and started again with the same ledger, it goes on where it was.
"""

import argparse
import os
import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import parts
from faults.ledger import Ledger, stop_with_stdin
from faults.raw_client import READY, Load, RawClient
from faults.raw_reader import RawReader, last_stored

from edge_runtime.clients import Gateway, Pending, RecordStream
from edge_runtime.protocol.endpoints import Endpoints, parse_endpoint

CAMERAS = ["shared", "remote", "given", "files"]
FOLDER_CAMERA, CLIENT_CAMERA = "files", "given"
_LAST_ANSWERS_S = 60.0  # open triggers of the raw client; the library's end at their deadlines


def raw(ledger: Ledger, name: str, at: Endpoints, load: Load, stop: threading.Event) -> None:
    """A client without the library."""
    client = RawClient(at.triggers, name, ledger, load)
    while not stop.is_set():
        client.turn(more=True)
    give_up = time.monotonic() + _LAST_ANSWERS_S
    while client.open and time.monotonic() < give_up:
        client.turn(more=False)


def library(ledger: Ledger, name: str, at: Endpoints, load: Load, stop: threading.Event) -> None:
    """A client as a gateway's author writes it; results come by the deadline, or from the library itself."""
    with Gateway(at.triggers, name=name) as gateway:
        waiting: list[Pending] = []
        connected = False
        while not stop.is_set() or waiting:
            if gateway.connected and not connected:
                ledger.put("welcome")
            connected = gateway.connected
            if not stop.is_set() and load.due(time.monotonic()):
                waiting.append(_trigger(ledger, gateway, load))
            for pending in [pending for pending in waiting if pending.done]:
                waiting.remove(pending)
                result = pending.wait()
                answer = result.answer.model_dump(mode="json")
                ledger.put("answer", silent=result.silent, accepted=result.accepted, answer=answer)
            time.sleep(0.005)
        ledger.put("counters", counters=gateway.counters)


def _trigger(ledger: Ledger, gateway: Gateway, load: Load) -> Pending:
    order = load.draw(gateway.name)
    trigger = order["trigger"]
    ledger.put("sent", ready=gateway.connected and str(gateway.state) in READY, **order)
    painted = None if order["spot"] is None else parts.paint(order["value"], random.Random(order["spot"]))
    return gateway.trigger(
        camera=trigger["camera"],
        part_id=trigger["part_id"],
        deadline_ms=trigger["deadline_ms"],
        trigger_id=trigger["trigger_id"],
        frame=painted,
    )


def raw_reader(ledger: Ledger, name: str, at: Endpoints, stop: threading.Event) -> None:
    """A consumer without the library."""
    reader = RawReader(at.records, name, ledger)
    while not stop.is_set():
        reader.turn()


def library_reader(ledger: Ledger, name: str, at: Endpoints, stop: threading.Event) -> None:
    """A consumer as its author writes it: store, then acknowledge."""
    stream = RecordStream(
        at.triggers,
        name,
        last_acked=last_stored(ledger),
        on_gap=lambda gap: ledger.put("gap", first=gap.first, last=gap.last),
    )

    def watch() -> None:
        welcome = False
        while not stop.wait(0.02):
            if stream.connected and not welcome:
                ledger.put("welcome")
            welcome = stream.connected
        stream.close()

    threading.Thread(target=watch, daemon=True).start()
    for record in stream:
        ledger.put("record", record=record.model_dump(mode="json"))
        stream.ack(record)


def main() -> None:
    """One life."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["raw", "library", "raw-reader", "library-reader"])
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=10.0)
    given = parser.parse_args()
    stop = stop_with_stdin()
    ledger, at = Ledger(given.ledger), parse_endpoint(given.endpoint)
    ledger.put("start", pid=os.getpid(), role=given.role)
    if given.role.endswith("reader"):
        read = raw_reader if given.role == "raw-reader" else library_reader
        read(ledger, given.name, at, stop)
    else:
        load = Load(given.seed + len(ledger.earlier), given.rate, CAMERAS, FOLDER_CAMERA, CLIENT_CAMERA)
        ask = raw if given.role == "raw" else library
        ask(ledger, given.name, at, load, stop)
    ledger.put("end")


if __name__ == "__main__":
    main()
