"""Owns the broker's loop: every socket, the journal's news, the supervisor's commands and the clock, in one thread."""

import gc
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
import zmq

from edge_runtime.errors import ConfigError
from edge_runtime.protocol import messages as wire
from edge_runtime.protocol.wire import Message
from edge_runtime.service import lifeline
from edge_runtime.service.answers import restart_answer
from edge_runtime.service.bundles import Choice
from edge_runtime.service.config import LineConfig
from edge_runtime.service.control import Control
from edge_runtime.service.desk import monotonic_ns
from edge_runtime.service.disk_watch import DiskWatch
from edge_runtime.service.flow import BACKLOG, Flow, Ports
from edge_runtime.service.operations import Accept, Conflict, Decide, Lookup, Probe, Prune
from edge_runtime.service.port import Port
from edge_runtime.service.run_dir import RunDir, durable
from edge_runtime.service.store import BundleFacts, forget, recall
from edge_runtime.service.writer import JournalWriter

_TICK_NS = 50_000_000
_HELD_UP_NS = 1_000_000_000  # this process did not run for so long: what others sent meanwhile is still on its way
_CATCH_UP_NS = 500_000_000
_PROBE_NS = 1_000_000_000
_PRUNE_NS = 60_000_000_000
_STOP_NS = 2_000_000_000  # open triggers may end by themselves for so long
_ORPHAN_NS = 300_000_000  # the same when the supervisor is gone, and the workers with it
_WRITE_S = 2.0  # how long the journal may take at the end
_BIND_S = 5.0  # an earlier broker may still be on its way out
_BATCH = 256

log = structlog.get_logger()


def run_broker(order: dict[str, Any]) -> None:
    """Serve until the supervisor says stop, or is gone.

    Args:
        order: `config` (JSON), `token`, `bundles` (facts by camera), `supervisor` (its PID).

    Raises:
        ConfigError: an address cannot be bound, or the journal cannot be used.
    """
    awake, alarm = socket.socketpair()
    awake.settimeout(0)
    alarm.settimeout(0)

    def wake() -> None:
        with suppress(OSError):  # full: it will wake anyway
            alarm.send(b"!")

    line = lifeline.Lifeline(wake)
    line.start()
    config = LineConfig.model_validate_json(order["config"])
    with RunDir(config.run_dir).lock("broker", wait_s=_BIND_S):
        broker = Broker(config, order, awake, wake)
        try:
            broker.run(line)
        finally:
            broker.close()


class Broker:
    """The loop and what it waits for."""

    def __init__(
        self, config: LineConfig, order: dict[str, Any], awake: socket.socket, wake: Callable[[], None]
    ) -> None:
        """Open the journal, which settles what an earlier broker left open, then bind.

        Args:
            config: the line.
            order: see `run_broker`.
            awake: readable when another thread has news.
            wake: makes it so.
        """
        self.config = config
        self.started_ns = monotonic_ns()
        self.supervisor_pid: int = order["supervisor"]
        self.counters: Counter[str] = Counter()
        self.run_dir = RunDir(config.run_dir)
        self._token: str = order["token"]
        self._awake = awake
        self.writer = JournalWriter(
            self.run_dir.journal,
            station=config.station,
            restart=lambda acceptance: restart_answer(acceptance, config.station),
            notify=wake,
            durable=durable(),
        )
        self.writer.start()
        facts = {name: BundleFacts.from_json(value) for name, value in order["bundles"].items()}
        choices = {name: self._choice(name, found) for name, found in facts.items()}
        forget(self.run_dir.bundles, _named(choices))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ports = self._bind(max(choice.active.frame.nbytes for choice in choices.values()))
        self.flow = Flow(config, choices, self._ports, self.writer)
        self.control = Control(self._ports.control, self)
        self._poller = zmq.Poller()
        for polled in (self._awake, *(port.socket for port in self._ports)):
            self._poller.register(polled, zmq.POLLIN)
        self._next_tick_ns = self._next_probe_ns = self._next_prune_ns = 0
        self._disk = DiskWatch(monotonic_ns())
        self._stop_by_ns: int | None = None
        self._said: wire.State | None = None
        journal = self.writer.journal
        log.info("broker_started", epoch=journal.epoch, recovered=journal.recovered, newest=journal.newest)

    def run(self, line: lifeline.Lifeline) -> None:
        """The loop: results first, since somebody waits for them; each round is bounded."""
        flow, ports = self.flow, self._ports
        gc.freeze()  # what modules made is for good: looking through it again costs 20 ms and more, between two triggers
        while not self._finished():
            self._poller.poll(self._timeout_ms())
            with suppress(BlockingIOError):
                self._awake.recv(4096)
            for command in line.commands():
                self._command(command)
            if line.gone.is_set():
                self._stop(_ORPHAN_NS)
            _receive(ports.workers, self._on_worker)
            self._outcomes()
            _receive(ports.frames, flow.cameras.on_message)
            if self.writer.backlog < BACKLOG:
                _receive(ports.triggers, flow.desk.on_message)
            _receive(ports.records, flow.stream.on_message)
            _receive(ports.control, self.control.on_message)
            flow.triggers.due(monotonic_ns())
            self._tick(monotonic_ns())

    def close(self) -> None:
        """Write what is queued, let answers leave, remove the frames; bounded."""
        flushed = self.writer.stop(_WRITE_S)
        self._outcomes()
        for port in self._ports:
            port.close(200)
        self.flow.cameras.close()
        self._context.term()
        log.info("broker_stopped", flushed=flushed)

    def _bind(self, frame_bytes: int) -> Ports:
        at, give_up = self.config.endpoints, time.monotonic() + _BIND_S

        def port(address: str, accepted: Mapping[int, type[wire.Header]], pixel_bytes: int = 0) -> Port:
            while True:
                try:
                    return Port(self._context, address, accepted, self.counters, pixel_bytes=pixel_bytes)
                except ConfigError:
                    if time.monotonic() > give_up:
                        self._context.destroy(0)
                        self.writer.stop(_WRITE_S)
                        raise
                    time.sleep(0.05)

        room = 2 * frame_bytes + 1_000_000  # a frame of the wrong size gets an answer, up to a bound
        return Ports(
            workers=port(at.workers, wire.AT_WORKERS),
            frames=port(at.frames, wire.AT_FRAMES, room),
            records=port(at.records, wire.AT_RECORDS),
            control=port(at.control, wire.AT_CONTROL),
            triggers=port(at.triggers, wire.AT_TRIGGERS, room),
        )

    def _on_worker(self, route: bytes, message: Message, now_ns: int) -> None:
        header, lanes = message.header, self.flow.lanes
        if isinstance(header, wire.Result):
            if lanes.knows(route):
                lanes.on_result(route, header, now_ns)
            else:
                self._ports.workers.refuse(route, wire.Code.HELLO_FIRST, "the broker restarted: send HELLO")
        elif isinstance(header, wire.WorkerHello):
            known = header.token == self._token and self.flow.on_worker_hello(route, header, now_ns)
            self.counters["refused"] += not known

    def _outcomes(self) -> None:
        for outcome in self.writer.outcomes():
            self._disk.heard(monotonic_ns())
            operation = outcome.operation
            if isinstance(operation, Accept | Decide | Conflict | Lookup):
                self.flow.triggers.on_outcome(outcome, monotonic_ns())
                self.control.note_commit(outcome.commit_ms)
            elif isinstance(operation, Probe):
                self.flow.journal_news(outcome.error)
            elif isinstance(operation, Prune):
                if outcome.value:
                    self._next_prune_ns = 0  # there may be more
            else:
                self.flow.stream.on_outcome(outcome)
                self.control.on_outcome(outcome)

    def _command(self, command: dict[str, Any]) -> None:
        event, detail = command.get("event"), str(command.get("detail", ""))
        if event == "stop":
            self._stop(_STOP_NS)
        elif event == "worker_gone":
            self.flow.lanes.on_gone(str(command["worker"]), detail, command.get("pid"))
        elif event == "worker_failed":
            self.control.on_worker_failed(str(command["digest"]), detail)
        elif event == "camera_gone":
            self.flow.cameras.on_gone(str(command["camera"]), detail)
        elif event == "staged":
            self.control.on_staged(command)

    def _stop(self, within_ns: int) -> None:
        if self._stop_by_ns is None:
            self.flow.station.stopping = True
            self._stop_by_ns = monotonic_ns() + within_ns
            log.info("stopping", open=self.flow.triggers.unfinished)

    def _finished(self) -> bool:
        if self._stop_by_ns is None:
            return False
        if monotonic_ns() > self._stop_by_ns:
            self.flow.give_up("the service went down before it had an answer")
            return True
        return self.flow.triggers.unfinished == 0

    def _timeout_ms(self) -> int:
        due = self.flow.triggers.next_due_ns()
        until = self._next_tick_ns if due is None else min(due, self._next_tick_ns)
        return max(0, -(-(until - monotonic_ns()) // 1_000_000))

    def _tick(self, now_ns: int) -> None:
        if now_ns < self._next_tick_ns:
            return
        held_up = 0 < self._next_tick_ns < now_ns - _HELD_UP_NS
        self._next_tick_ns = now_ns + (_CATCH_UP_NS if held_up else _TICK_NS)
        if held_up:  # nobody is taken for silent before what they said was read
            lifeline.say("alive")
            log.warning("held_up")
            return
        if not self.writer.alive and self._stop_by_ns is None:
            message = (
                "the journal's thread has died: without it nothing can be answered, the next start settles what is open"
            )
            raise RuntimeError(message)
        self.flow.tick(now_ns)
        self.control.tick()
        lifeline.say("alive")
        if self._disk.hangs(now_ns, self.writer.backlog):
            self.flow.journal_news("the disk has not taken anything for a second")
        failing = self.flow.station.journal is not None
        if failing and now_ns >= self._next_probe_ns:
            self._next_probe_ns = now_ns + _PROBE_NS
            self.writer.submit(Probe())
        if not failing and now_ns >= self._next_prune_ns:
            self._next_prune_ns = now_ns + _PRUNE_NS
            self.writer.submit(Prune(days=self.config.journal_days))
        state, reason = self.flow.state()
        if state.ready:  # what it is just doing is no news
            state, reason = wire.State.READY, ""
        if state is not self._said:
            log.info("state", state=state, reason=reason)
            self._said = state

    def _choice(self, camera: str, configured: BundleFacts) -> Choice:
        """What ran last, as long as line.toml still names the same bundle; a bundle that it names anew wins."""
        choice = Choice(configured, configured)
        row = self.writer.journal.active().get(camera)
        if row is None or row[0] != configured.digest:
            return choice
        _, digest, previous = row
        active = recall(self.run_dir.bundles, digest)
        if active is None:
            log.error("bundle_missing", camera=camera, digest=digest, instead=configured.digest)
            return choice
        choice.active = active
        choice.previous = None if previous is None else recall(self.run_dir.bundles, previous)
        return choice


def _receive(port: Port, handle: Callable[[bytes, Message, int], None]) -> None:
    for route, message in port.receive(_BATCH):
        try:
            handle(route, message, monotonic_ns())
        except Exception:  # a fault of ours: one message must not end the answers to all others; its trigger times out
            port.count("internal")
            log.exception("internal_fault", socket=port.address, message=type(message.header).__name__)


def _named(choices: Mapping[str, Choice]) -> set[str]:
    """Digests of the bundles that are in use, or may be gone back to."""
    bundles = [facts for choice in choices.values() for facts in (choice.configured, choice.active, choice.previous)]
    return {facts.digest for facts in bundles if facts is not None}
