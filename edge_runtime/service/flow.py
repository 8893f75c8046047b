"""Owns the way of a trigger through the parts: who is asked what, and what each of them leads to."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from edge_runtime.decision import Reason
from edge_runtime.protocol import messages as wire
from edge_runtime.protocol.messages import Answer
from edge_runtime.protocol.wire import Buffer
from edge_runtime.service import bundles, lifeline
from edge_runtime.service.answers import utc_now
from edge_runtime.service.bundles import Choice
from edge_runtime.service.camera_seat import CameraSeat, Fault
from edge_runtime.service.cameras import CameraHooks, Cameras
from edge_runtime.service.config import LineConfig
from edge_runtime.service.desk import STREAM_CLIENT, Desk, DeskHooks, monotonic_ns
from edge_runtime.service.lanes import Job, LaneHooks, Lanes
from edge_runtime.service.monitor import CameraFigures
from edge_runtime.service.open_trigger import OpenTrigger
from edge_runtime.service.operations import Acceptance, Decide, Key, Operation
from edge_runtime.service.port import Port
from edge_runtime.service.rings import HeldFrame
from edge_runtime.service.run_dir import RunDir
from edge_runtime.service.station import CameraCondition, Station
from edge_runtime.service.store import BundleFacts
from edge_runtime.service.stream import Stream
from edge_runtime.service.triggers import Hooks, Triggers
from edge_runtime.service.writer import JournalWriter

BACKLOG = 5000  # operations that wait for the disk before triggers have to wait, too, and frames of streams are dropped

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """The broker's sockets."""

    triggers: Port
    frames: Port
    records: Port
    control: Port
    workers: Port

    def __iter__(self) -> Iterator[Port]:
        """All of them."""
        return iter((self.triggers, self.frames, self.records, self.control, self.workers))


class Flow:
    """The parts, and what goes from one to the other. Everything happens in the broker's thread."""

    def __init__(self, config: LineConfig, choices: Mapping[str, Choice], ports: Ports, writer: JournalWriter) -> None:
        """Put the parts together.

        Args:
            config: the line.
            choices: the bundles of each camera.
            ports: bound.
            writer: started.
        """
        journal = writer.journal
        self.config = config
        self.epoch = journal.epoch
        self.station = Station()
        self.figures = {camera.name: CameraFigures() for camera in config.camera}
        self.choices = choices
        self._writer = writer
        self.failures: dict[str, str] = {}  # why the last worker of a bundle could not load it
        self._wanted: dict[str, BundleFacts] = {}
        self.lanes = Lanes(
            self.epoch,
            config.hang_ms,
            LaneHooks(send=ports.workers.send, finished=self._inspected, lost=self._lost, kill=_kill),
        )
        self.desk = Desk(
            ports.triggers,
            station=config.station,
            epoch=self.epoch,
            hooks=DeskHooks(
                triggered=self._triggered, state=self.state, cameras=self._camera_facts, deadline_ms=self._deadline_ms
            ),
        )
        self.stream = Stream(
            ports.records,
            station=config.station,
            epoch=self.epoch,
            newest=journal.newest,
            cursors=journal.cursors(),
            submit=self.submit,
        )
        self.triggers = Triggers(
            station=config.station,
            epoch=self.epoch,
            writer=self,
            hooks=Hooks(
                deliver=self._deliver,
                queued=self.desk.queued,
                publish=self.stream.publish,
                frameless=self._frameless,
                journal=self.journal_news,
            ),
        )
        self.cameras = Cameras(
            ports.frames,
            {camera.name: CameraSeat(camera, choices[camera.name]) for camera in config.camera},
            station=config.station,
            epoch=self.epoch,
            folder=RunDir(config.run_dir).frames,
            hooks=CameraHooks(
                framed=self._framed, exposed=self._exposed, mismatch=self._mismatch, find=self.triggers.open.get
            ),
        )

    def submit(self, operation: Operation) -> None:
        """Have the journal do something; nothing more once it was stopped: the next start settles what is open."""
        with suppress(RuntimeError):
            self._writer.submit(operation)

    def cancel(self, decide: Decide, instead: Answer) -> bool:
        """Take back a verdict that is late; see `JournalWriter.cancel`."""
        return self._writer.cancel(decide, instead)

    def state(self) -> tuple[wire.State, str]:
        """The station's state and why."""
        conditions = [self.condition(seat) for seat in self.cameras.seats.values()]
        return self.station.state(conditions, len(self.triggers.open))

    def condition(self, seat: CameraSeat) -> CameraCondition:
        """What a camera's readiness depends on."""
        return CameraCondition(
            name=seat.config.name,
            trigger=seat.config.trigger,
            worker=self.lanes.ready(seat.choice.active.digest),
            loading=self.failures.get(seat.choice.active.digest, "a worker is loading its bundle"),
            connected=seat.takes_frames or seat.peer is not None,
            source=seat.ok,
            detail=seat.detail,
        )

    def want(self) -> None:
        """Tell the supervisor which workers there should be, where that changed; what is in work is waited for."""
        config = self.config
        found = bundles.wanted(self.choices.values(), workers=config.workers, warm_previous=config.warm_previous)
        in_use = {trigger.lane for trigger in self.triggers.open.values()}
        found |= {name: facts for name, facts in self._wanted.items() if facts.digest in in_use}
        if found == self._wanted:
            return
        for digest in {facts.digest for facts in self._wanted.values()} - {facts.digest for facts in found.values()}:
            self.lanes.close(digest)
        self._wanted = found
        lifeline.say("want", workers=[{"name": name, **facts.as_json()} for name, facts in found.items()])

    def wants(self, digest: str) -> bool:
        """Whether there should be workers of a bundle."""
        return any(facts.digest == digest for facts in self._wanted.values())

    def on_worker_hello(self, route: bytes, hello: wire.WorkerHello, now_ns: int) -> bool:
        """A worker is ready; False where there should be no such worker."""
        facts = self._wanted.get(hello.worker)
        if facts is None or facts.digest != hello.digest:
            return False
        self.failures.pop(hello.digest, None)
        self.lanes.on_hello(route, hello, now_ns)
        return True

    def tick(self, now_ns: int) -> None:
        """Time passed."""
        self.cameras.tick(now_ns)
        self.lanes.tick(now_ns)
        self.desk.tick(now_ns)
        self.stream.tick(now_ns)
        self.want()

    def give_up(self, detail: str) -> None:
        """Decide everything that is open."""
        for trigger in tuple(self.triggers.open.values()):
            self._decide(trigger, Reason.RESTART, detail)

    def journal_news(self, error: str | None) -> None:
        """The disk takes answers, or does not, and why."""
        before, self.station.journal = self.station.journal, error
        if error is not None and before is None:
            log.error("journal_failed", detail=error)
        elif error is None and before is not None:
            log.info("journal_works")
            self.triggers.resume_journal()

    def _triggered(self, acceptance: Acceptance, header: wire.Trigger, pixels: Buffer | None) -> None:
        if acceptance.key.epoch != self.epoch:
            self.triggers.receive_old(acceptance)
            return
        trigger = self.triggers.receive(acceptance)
        if trigger is None:
            return
        seat = self.cameras.seats.get(acceptance.camera)
        if seat is None:
            detail = f"line.toml has no camera {acceptance.camera}, it has {', '.join(self.cameras.seats)}"
            self._decide(trigger, Reason.UNKNOWN_CAMERA, detail)
            return
        refusal = self.station.refusal(self.condition(seat))
        if refusal is not None:
            self._decide(trigger, *refusal)
            return
        trigger.lane, trigger.early_reject = seat.choice.active.digest, seat.config.early_reject
        if seat.takes_frames:
            self._framed(trigger, self.cameras.store(seat, header.frame, pixels))
        elif header.frame is not None:
            self._decide(trigger, Reason.BAD_IMAGE, f"camera {acceptance.camera} takes its own frames: send none")
        else:
            self._await_frame(trigger, seat)

    def _await_frame(self, trigger: OpenTrigger, seat: CameraSeat) -> None:
        acceptance, name = trigger.acceptance, seat.config.name
        if seat.pairing is not None:
            self.cameras.expect(seat, acceptance.key, acceptance.received_ns)
        elif seat.config.trigger is wire.TriggerMode.STREAM:
            self._decide(trigger, Reason.FRAME_MISMATCH, f"camera {name} runs freely: follow its stream")
        elif seat.room <= 0:
            self._decide(trigger, *self._no_room(seat))
        elif not self.cameras.grab(seat, acceptance.key, acceptance.part_id, acceptance.received_ns):
            self._decide(trigger, Reason.NO_FRAME, f"camera {name} cannot be reached")

    def _no_room(self, seat: CameraSeat) -> tuple[Reason, str]:
        """Why a camera cannot be asked for one more frame."""
        name, find = seat.config.name, self.triggers.open.get
        ignored = sum(find(grabbed.key) is None for grabbed in seat.outstanding.values())
        if ignored:
            return (
                Reason.NO_FRAME,
                f"camera {name} has not answered {ignored} earlier request(s) for a frame: is it stuck?",
            )
        return Reason.OVERLOAD, f"all {seat.config.slots} slots of camera {name} are in use"

    def _exposed(self, seat: CameraSeat, counter: int) -> OpenTrigger | None:
        if self._writer.backlog >= BACKLOG:
            return None
        key = Key(client=f"{STREAM_CLIENT}{seat.config.name}", epoch=self.epoch, trigger_id=str(counter))
        acceptance = Acceptance(
            key=key,
            camera=seat.config.name,
            part_id=None,
            content="",
            deadline_ms=seat.config.deadline_ms,
            received_ns=monotonic_ns(),
            received_utc=utc_now(),
        )
        trigger = self.triggers.receive(acceptance)
        if trigger is not None:
            trigger.lane, trigger.early_reject = seat.choice.active.digest, seat.config.early_reject
        return trigger

    def _framed(self, trigger: OpenTrigger, got: HeldFrame | Fault) -> None:
        now = monotonic_ns()
        if isinstance(got, Fault):
            self.triggers.decide(trigger, now, reason=got.reason, detail=got.detail)
            return
        trigger.frame_ns = now
        lane = trigger.lane
        if lane is not None and self.lanes.ready(lane) and not self.station.halted:
            self.lanes.submit(lane, trigger, got, now)
        else:
            got.release()
            detail = "halted by command" if self.station.halted else "its worker was lost before the frame came"
            self._decide(trigger, Reason.NOT_READY, f"camera {trigger.acceptance.camera}: {detail}")

    def _inspected(self, job: Job, result: wire.Result) -> None:
        self.triggers.decide(job.trigger, monotonic_ns(), result=result)

    def _lost(self, job: Job, detail: str) -> None:
        self._decide(job.trigger, Reason.WORKER_LOST, f"the worker {detail}")

    def _mismatch(self, seat: CameraSeat, detail: str) -> None:
        for trigger in tuple(self.triggers.open.values()):
            if trigger.acceptance.camera == seat.config.name:
                self._decide(trigger, Reason.FRAME_MISMATCH, f"frames and triggers do not count alike: {detail}")

    def _frameless(self, trigger: OpenTrigger) -> None:
        seat = self.cameras.seats.get(trigger.acceptance.camera)
        if seat is not None:
            self.cameras.frameless(seat, trigger.acceptance.key)

    def _decide(self, trigger: OpenTrigger, reason: Reason, detail: str) -> None:
        self.triggers.decide(trigger, monotonic_ns(), reason=reason, detail=detail)

    def _deliver(self, answer: Answer) -> None:
        figures = self.figures.get(answer.camera)
        if figures is not None:
            figures.note(answer)
        self.desk.deliver(answer)

    def _camera_facts(self) -> tuple[wire.CameraFacts, ...]:
        return tuple(
            wire.CameraFacts(
                name=seat.config.name,
                trigger=seat.config.trigger,
                deadline_ms=seat.config.deadline_ms,
                takes_frames=seat.takes_frames,
                frame=seat.choice.active.frame,
            )
            for seat in self.cameras.seats.values()
        )

    def _deadline_ms(self, camera: str) -> int:
        seat = self.cameras.seats.get(camera)
        return 1000 if seat is None else seat.config.deadline_ms


def _kill(worker: str) -> None:
    lifeline.say("kill", worker=worker)
