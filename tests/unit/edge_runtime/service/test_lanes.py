"""Each frame is inspected once, or said to be lost; its slot always comes free."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.headers import EXAMPLES, FRAME
from support.journals import acceptance, answer

from edge_runtime.decision import Verdict
from edge_runtime.protocol.messages import Header, Inspect, Result, SlotGrant, WorkerHello
from edge_runtime.service.lanes import Job, LaneHooks, Lanes
from edge_runtime.service.open_trigger import OpenTrigger, Step
from edge_runtime.service.peers import LAPSE_MS
from edge_runtime.service.rings import FrameSlots, HeldFrame

A, B = "a" * 64, "b" * 64
HANG_MS = 5000
MS = 1_000_000
RESULT = next(one for one in EXAMPLES if isinstance(one, Result))


@dataclass(slots=True)
class Bench:
    """Lanes, and what they did."""

    slots: FrameSlots
    sent: list[tuple[bytes, Inspect]] = field(default_factory=list)
    finished: list[tuple[OpenTrigger, int]] = field(default_factory=list)
    lost: list[tuple[OpenTrigger, str]] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    unreachable: set[bytes] = field(default_factory=set)
    lanes: Lanes = field(init=False)

    def __post_init__(self) -> None:
        """Epoch 2."""
        self.lanes = Lanes(
            2,
            HANG_MS,
            LaneHooks(
                send=self._send,
                finished=lambda job, result: self.finished.append((job.trigger, result.job)),
                lost=self._lost,
                kill=self.killed.append,
            ),
        )

    def _send(self, route: bytes, header: Header) -> bool:
        assert isinstance(header, Inspect)
        if route in self.unreachable:
            return False
        self.sent.append((route, header))
        return True

    def _lost(self, job: Job, detail: str) -> None:
        self.lost.append((job.trigger, detail))

    def hello(self, worker: str, digest: str = A, *, route: bytes | None = None, now_ns: int = 0, pid: int = 1) -> None:
        """A worker says it is ready."""
        hello = WorkerHello(
            token="t",  # noqa: S106 - of no use here
            worker=worker,
            pid=pid,
            digest=digest,
            artefact="f32",
            product="p",
            inspected=0,
        )
        self.lanes.on_hello(route or worker.encode(), hello, now_ns)

    def submit(self, trigger_id: str, digest: str = A, now_ns: int = 0) -> OpenTrigger:
        """A frame comes."""
        trigger = OpenTrigger(acceptance(trigger_id), 1, 0, 0)
        self.slots.grant_all()
        self.lanes.submit(digest, trigger, self.held(), now_ns)
        return trigger

    def held(self) -> HeldFrame:
        """A frame in the first slot that may be written."""
        for slot in range(self.slots.ring.slots):
            for generation in range(1, 50):
                grant = SlotGrant(slot=slot, generation=generation)
                self.slots.ring.write(grant, FRAME, bytes(FRAME.nbytes))
                held = self.slots.take(grant, FRAME)
                if held is not None:
                    return held
        message = "no slot is free"
        raise LookupError(message)

    def result(self, route: bytes, job: int, now_ns: int = 0) -> None:
        """A worker is done."""
        self.lanes.on_result(route, RESULT.model_copy(update={"job": job}), now_ns)

    @property
    def held_slots(self) -> int:
        """Slots that are neither free nor the camera's."""
        return self.slots.ring.slots - self.slots.granted - self.slots.free_slots


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(FrameSlots.make(tmp_path / "a.ring", FRAME, 4, 1, lambda _: None))


def decided(trigger: OpenTrigger) -> None:
    """Its deadline ran out."""
    trigger.answer = answer(trigger.acceptance, Verdict.ERROR)


def test_a_frame_goes_to_an_idle_worker_at_once_and_its_result_frees_the_slot(bench: Bench) -> None:
    bench.hello("w")
    trigger = bench.submit("t1")
    ((route, order),) = bench.sent
    assert (route, order.frame, trigger.step) == (b"w", FRAME, Step.WORK)
    assert bench.held_slots == 1
    bench.result(b"w", order.job)
    assert bench.finished == [(trigger, order.job)]
    assert bench.held_slots == 0


def test_frames_wait_in_order_for_a_worker(bench: Bench) -> None:
    triggers = [bench.submit(name) for name in ("t1", "t2", "t3")]
    assert [one.step for one in triggers] == [Step.QUEUE] * 3
    assert bench.lanes.queued(A) == 3
    bench.hello("w")
    for _ in triggers:
        bench.result(b"w", bench.sent[-1][1].job)
    assert [trigger for trigger, _ in bench.finished] == triggers
    assert bench.held_slots == 0


def test_two_workers_share_a_lane_and_lanes_do_not_mix(bench: Bench) -> None:
    bench.hello("w1")
    bench.hello("w2")
    bench.hello("other", B)
    for name in ("t1", "t2", "t3"):
        bench.submit(name)
    assert [route for route, _ in bench.sent] == [b"w1", b"w2"]
    assert bench.lanes.ready(A)
    assert bench.lanes.ready(B)
    assert not bench.lanes.ready("c" * 64)


def test_a_result_of_a_job_that_the_worker_does_not_have_changes_nothing(bench: Bench) -> None:
    bench.hello("w")
    bench.submit("t1")
    job = bench.sent[0][1].job
    bench.result(b"w", job + 1)
    bench.result(b"stranger", job)
    assert bench.finished == []
    bench.result(b"w", job)
    bench.result(b"w", job)
    assert len(bench.finished) == 1


def test_job_numbers_of_two_epochs_never_meet(bench: Bench) -> None:
    bench.hello("w")
    bench.submit("t1")
    assert bench.sent[0][1].job > 2 << 40


def test_a_frame_whose_trigger_is_over_is_not_inspected(bench: Bench) -> None:
    late, trigger = bench.submit("t1"), bench.submit("t2")
    decided(late)
    bench.hello("w")
    assert trigger.step is Step.WORK
    assert len(bench.sent) == 1
    assert bench.held_slots == 1


def test_a_worker_that_died_loses_its_frame_and_the_next_one_takes_what_waits(bench: Bench) -> None:
    bench.hello("w1", pid=11)
    bench.hello("w2", pid=12)
    first, second, third = (bench.submit(name) for name in ("t1", "t2", "t3"))
    bench.lanes.on_gone("w1", "was killed", 99)
    assert bench.lost == []  # an earlier process of that name
    bench.lanes.on_gone("w1", "was killed", 11)
    assert bench.lost == [(first, "was killed")]
    bench.result(b"w2", bench.sent[1][1].job)
    assert [trigger for trigger, _ in bench.finished] == [second]
    assert third.step is Step.WORK


def test_with_the_last_worker_goes_what_waits_for_it(bench: Bench) -> None:
    bench.hello("w")
    triggers = [bench.submit(name) for name in ("t1", "t2", "t3")]
    bench.lanes.on_gone("w", "was killed")
    assert [trigger for trigger, _ in bench.lost] == triggers
    assert bench.held_slots == 0
    assert not bench.lanes.ready(A)


def test_a_worker_that_cannot_be_reached_loses_one_frame_and_not_those_of_others(bench: Bench) -> None:
    triggers = [bench.submit(name) for name in ("t1", "t2", "t3")]
    bench.unreachable = {b"bad"}
    bench.hello("good")
    bench.hello("bad")
    assert bench.lost == [(triggers[1], "cannot be reached")]
    bench.result(b"good", bench.sent[-1][1].job)
    assert triggers[2].step is Step.WORK
    assert bench.held_slots == 1


def test_a_worker_that_is_stuck_is_killed_once_and_gets_nothing_more(bench: Bench) -> None:
    bench.hello("w")
    bench.submit("t1")
    bench.lanes.tick(HANG_MS * MS)
    assert bench.killed == []
    for _ in range(3):
        bench.lanes.tick(HANG_MS * MS + 1)
    assert bench.killed == ["w"]
    assert not bench.lanes.ready(A)
    bench.result(b"w", bench.sent[0][1].job, HANG_MS * MS + 2)
    bench.submit("t2")
    assert len(bench.sent) == 1


def test_an_idle_worker_that_says_nothing_is_killed_and_one_that_works_is_not(bench: Bench) -> None:
    bench.hello("idle", B)
    bench.hello("busy")
    bench.submit("t1")
    bench.lanes.tick(LAPSE_MS * MS + 1)
    assert bench.killed == ["idle"]


def test_a_worker_on_a_new_connection_replaces_itself(bench: Bench) -> None:
    bench.hello("w", route=b"1")
    trigger = bench.submit("t1")
    bench.hello("w", route=b"2")
    assert bench.lost == [(trigger, "was replaced")]
    assert not bench.lanes.knows(b"1")
    assert bench.lanes.knows(b"2")
    assert len(bench.lanes.seats()) == 1


def test_closing_a_lane_frees_every_slot_that_is_left_in_it(bench: Bench) -> None:
    """Triggers of a closed lane are over; their frames, in the queue or with a worker, must not hold slots for ever."""
    bench.hello("w")
    triggers = [bench.submit(name) for name in ("t1", "t2", "t3")]
    for trigger in triggers:
        decided(trigger)
    bench.lanes.close(A)
    assert bench.held_slots == 0
    assert not bench.lanes.knows(b"w")
    bench.result(b"w", bench.sent[0][1].job)
    assert bench.finished == []
    bench.lanes.close(A)
