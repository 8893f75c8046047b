"""Owns who inspects: a lane for each bundle in use, its workers, and the frames that wait for them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from edge_runtime.protocol.messages import Header, Inspect, Result, WorkerHello
from edge_runtime.service.open_trigger import OpenTrigger, Step
from edge_runtime.service.peers import LAPSE_MS
from edge_runtime.service.rings import HeldFrame

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Job:
    """A frame that is to be inspected for a trigger."""

    number: int
    trigger: OpenTrigger
    frame: HeldFrame


@dataclass(slots=True, eq=False)
class WorkerSeat:
    """A worker that said it is ready."""

    name: str
    pid: int
    route: bytes
    digest: str
    artefact: str
    product: str
    heard_ns: int
    inspected: int = 0
    job: Job | None = None
    since_ns: int = 0
    condemned: bool = False  # the supervisor was asked to kill it


@dataclass(slots=True)
class Lane:
    """One bundle: its ready workers and its queue."""

    digest: str
    workers: dict[str, WorkerSeat] = field(default_factory=dict)
    queue: deque[Job] = field(default_factory=deque)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneHooks:
    """What others do when an inspection gets on."""

    send: Callable[[bytes, Header], bool]
    finished: Callable[[Job, Result], None]
    lost: Callable[[Job, str], None]  # the worker, or the last one of the lane, is gone
    kill: Callable[[str], None]  # ask the supervisor to kill a worker


class Lanes:
    """All lanes. A job is in one queue, or with one worker, or done; its frame is released exactly once."""

    def __init__(self, epoch: int, hang_ms: int, hooks: LaneHooks) -> None:
        """No worker is ready yet.

        Args:
            epoch: makes job numbers unique over restarts of the broker; workers outlive it.
            hang_ms: an inspection that takes longer is taken for stuck.
            hooks: see there.
        """
        self._numbers = epoch << 40
        self._hang_ns = hang_ms * 1_000_000
        self._hooks = hooks
        self._lanes: dict[str, Lane] = {}
        self._seats: dict[bytes, WorkerSeat] = {}

    def seats(self) -> list[WorkerSeat]:
        """All ready workers."""
        return [seat for lane in self._lanes.values() for seat in lane.workers.values()]

    def ready(self, digest: str) -> bool:
        """Whether a bundle has a worker that is alive."""
        lane = self._lanes.get(digest)
        return lane is not None and any(not seat.condemned for seat in lane.workers.values())

    def queued(self, digest: str) -> int:
        """How many frames wait."""
        lane = self._lanes.get(digest)
        return 0 if lane is None else len(lane.queue)

    def on_hello(self, route: bytes, hello: WorkerHello, now_ns: int) -> None:
        """A worker is ready, or still there."""
        seat = self._seats.get(route)
        if seat is None:
            lane = self._lanes.setdefault(hello.digest, Lane(hello.digest))
            before = lane.workers.get(hello.worker)
            if before is not None:
                self._vacate(before, "was replaced")
            seat = WorkerSeat(hello.worker, hello.pid, route, hello.digest, hello.artefact, hello.product, now_ns)
            self._seats[route] = lane.workers[hello.worker] = seat
            log.info("worker_ready", worker=hello.worker, worker_pid=hello.pid, bundle=hello.digest)
        seat.heard_ns = now_ns
        seat.inspected = hello.inspected
        self._dispatch(self._lanes[seat.digest], now_ns)

    def knows(self, route: bytes) -> bool:
        """Whether a worker on this route said hello."""
        return route in self._seats

    def submit(self, digest: str, trigger: OpenTrigger, frame: HeldFrame, now_ns: int) -> None:
        """Have a frame inspected; it is handed out at once where a worker is idle."""
        lane = self._lanes.setdefault(digest, Lane(digest))
        self._numbers += 1
        trigger.step = Step.QUEUE
        lane.queue.append(Job(self._numbers, trigger, frame))
        self._dispatch(lane, now_ns)

    def on_result(self, route: bytes, result: Result, now_ns: int) -> None:
        """A worker is done; results of jobs that it does not have are leftovers of an earlier broker."""
        seat = self._seats.get(route)
        if seat is None:
            return
        seat.heard_ns = now_ns
        job = seat.job
        if job is None or job.number != result.job:
            return
        seat.job = None
        seat.inspected += 1
        job.frame.release()
        self._dispatch(self._lanes[seat.digest], now_ns)
        self._hooks.finished(job, result)

    def on_gone(self, worker: str, detail: str, pid: int | None = None) -> None:
        """A worker died: what it had is lost, and what waited too, where it was the lane's last."""
        for seat in self.seats():
            if seat.name == worker and (pid is None or seat.pid == pid):
                self._vacate(seat, detail)

    def close(self, digest: str) -> None:
        """A bundle is no longer in use; frames that are left in its lane belong to triggers that are over."""
        lane = self._lanes.pop(digest, None)
        if lane is None:
            return
        left = list(lane.queue)
        for seat in lane.workers.values():
            self._seats.pop(seat.route, None)
            left += [] if seat.job is None else [seat.job]
        for job in left:
            job.frame.release()
            self._hooks.lost(job, "was closed with its bundle")

    def tick(self, now_ns: int) -> None:
        """Find workers that are stuck or silent, and have them killed."""
        for seat in self.seats():
            stuck = seat.job is not None and now_ns - seat.since_ns > self._hang_ns
            silent = seat.job is None and now_ns - seat.heard_ns > LAPSE_MS * 1_000_000
            if (stuck or silent) and not seat.condemned:
                seat.condemned = True
                log.error("worker_stuck", worker=seat.name, worker_pid=seat.pid, inspecting=stuck)
                self._hooks.kill(seat.name)

    def _dispatch(self, lane: Lane, now_ns: int) -> None:
        for seat in tuple(lane.workers.values()):
            while lane.queue and seat.job is None and not seat.condemned and lane.workers.get(seat.name) is seat:
                self._hand_out(lane.queue.popleft(), seat, now_ns)

    def _hand_out(self, job: Job, seat: WorkerSeat, now_ns: int) -> None:
        if not job.trigger.undecided:  # its deadline ran out while it waited
            job.frame.release()
            return
        order: Inspect = job.frame.inspect(
            job.number, until_ns=job.trigger.decide_by_ns, early_reject=job.trigger.early_reject
        )
        seat.job, seat.since_ns = job, now_ns
        job.trigger.step = Step.WORK
        job.trigger.work_ns = now_ns
        if not self._hooks.send(seat.route, order):
            self._vacate(seat, "cannot be reached")

    def _vacate(self, seat: WorkerSeat, detail: str) -> None:
        lane = self._lanes[seat.digest]
        self._seats.pop(seat.route, None)
        if lane.workers.get(seat.name) is seat:
            del lane.workers[seat.name]
        lost = [] if seat.job is None else [seat.job]
        seat.job = None
        if not lane.workers:
            lost.extend(lane.queue)
            lane.queue.clear()
        log.error("worker_lost", worker=seat.name, worker_pid=seat.pid, detail=detail, frames=len(lost))
        for job in lost:
            job.frame.release()
            self._hooks.lost(job, detail)
