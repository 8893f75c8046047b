"""A station's side of the protocol without sockets: what a service owes its peers, simple enough to be read at a glance."""

from dataclasses import dataclass, field

from edge_runtime.decision import Reason, Verdict
from edge_runtime.errors import ProtocolError
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol.messages import (
    AT_RECORDS,
    AT_TRIGGERS,
    Ack,
    Answer,
    CameraFacts,
    ClientHello,
    ClientWelcome,
    Code,
    ConsumerHello,
    ConsumerWelcome,
    FrameSpec,
    Gap,
    Header,
    Heartbeat,
    Queued,
    Record,
    Refused,
    State,
    TimingsMs,
    Trigger,
    TriggerMode,
)
from edge_runtime.protocol.wire import decode

MS = 1_000_000
FRAME = FrameSpec(width=4, height=2, pixel_format=PixelFormat.RGB8)
CAMERAS = (
    CameraFacts(name="top", trigger=TriggerMode.SOFTWARE, deadline_ms=400, takes_frames=False, frame=FRAME),
    CameraFacts(name="given", trigger=TriggerMode.SOFTWARE, deadline_ms=400, takes_frames=True, frame=FRAME),
    CameraFacts(name="belt", trigger=TriggerMode.STREAM, deadline_ms=400, takes_frames=False, frame=FRAME),
)


def make_answer(trigger: Trigger, client: str, verdict: Verdict = Verdict.ACCEPT, **changes: object) -> Answer:
    """A plausible answer to a trigger."""
    answer = Answer(
        station="line-1",
        client=client,
        epoch=trigger.epoch,
        trigger_id=trigger.trigger_id,
        part_id=trigger.part_id,
        camera=trigger.camera,
        counter=None,
        label=None,
        verdict=verdict,
        reason=Reason.ENGINE if verdict is Verdict.ERROR else None,
        detail="",
        region="all",
        score=1.0,
        threshold=2.0,
        score_normalized=50.0,
        regions=(),
        regions_left_out=0,
        complete=True,
        bundle="d" * 64,
        artefact="openvino-f32",
        deadline_ms=trigger.deadline_ms or 400,
        decided_utc="2026-01-01T00:00:00.000Z",
        timings_ms=TimingsMs(total=3.5),
        seq=1,
        journaled=True,
    )
    return answer.model_copy(update=changes)


def make_record(seq: int, **changes: object) -> Record:
    """A plausible record."""
    trigger = Trigger(epoch=1, trigger_id=f"t{seq}", camera="top", part_id=f"part-{seq}", deadline_ms=400)
    return Record.model_validate(make_answer(trigger, "plc", seq=seq, **changes).model_dump())


@dataclass(slots=True)
class Reader:
    """A consumer, as the service sees it."""

    name: str | None
    acked: int
    sent: int


@dataclass(slots=True)
class Station:
    """One service: what it knows of its peers, what it has decided, and how it is to misbehave."""

    epoch: int = 1
    heartbeat_ms: int = 500
    lapse_ms: int = 2000
    window: int = 8
    hold: bool = False  # queue triggers, answer none until `release`
    refuse: Code | None = None  # every HELLO
    verdicts: dict[str | None, Verdict] = field(default_factory=dict)  # by part; else ACCEPT
    clients: dict[bytes, ClientHello] = field(default_factory=dict)  # by route
    answers: dict[tuple[str, int, str], Answer] = field(default_factory=dict)
    triggers: dict[tuple[str, int, str], tuple[Trigger, bytes | None, int]] = field(default_factory=dict)
    sendings: list[Trigger] = field(default_factory=list)  # every TRIGGER that came, repeated ones too
    records: list[Record] = field(default_factory=list)
    oldest: int = 1  # records before it are removed
    readers: dict[bytes, Reader] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    hellos: list[ConsumerHello] = field(default_factory=list)

    def restart(self) -> None:
        """A new broker on the same journal: it knows nobody, and open triggers are ERROR/RESTART."""
        self.epoch += 1
        self.clients.clear()
        self.readers.clear()
        for key, (trigger, _, _) in self.triggers.items():
            self.answers.setdefault(key, _restarted(trigger, key[0]))

    def on_triggers(self, now: int, route: bytes, parts: list[bytes]) -> list[Header]:
        """What the trigger socket answers to one message."""
        try:
            message = decode(parts, AT_TRIGGERS)
        except ProtocolError as error:
            return [Refused(code=Code.BAD_MESSAGE, detail=str(error))]
        header = message.header
        if isinstance(header, ClientHello):
            if self.refuse is not None:
                return [Refused(code=self.refuse, detail="as the test wants it")]
            self.clients[route] = header
            return [self.welcome()]
        trigger = header if isinstance(header, Trigger) else None
        if trigger is not None:
            self.sendings.append(trigger)
        if route not in self.clients:
            named = {} if trigger is None else {"trigger_id": trigger.trigger_id, "epoch": trigger.epoch}
            return [Refused.model_validate({"code": Code.HELLO_FIRST, "detail": "unknown", **named})]
        if trigger is None:
            return [Heartbeat(epoch=self.epoch, state=State.READY)]
        return self._trigger(now, self.clients[route].name, trigger, message.pixels)

    def welcome(self) -> ClientWelcome:
        """WELCOME for a client."""
        return ClientWelcome(
            station="line-1",
            epoch=self.epoch,
            heartbeat_ms=self.heartbeat_ms,
            lapse_ms=self.lapse_ms,
            state=State.READY,
            cameras=CAMERAS,
        )

    def release(self) -> list[tuple[bytes, Header]]:
        """Answer what was held."""
        self.hold = False
        routes = {hello.name: route for route, hello in self.clients.items()}
        released: list[tuple[bytes, Header]] = []
        for key, (trigger, _, _) in self.triggers.items():
            if key not in self.answers:
                self.answers[key] = make_answer(trigger, key[0], self.verdicts.get(trigger.part_id, Verdict.ACCEPT))
                if key[0] in routes:
                    released.append((routes[key[0]], self.answers[key]))
        return released

    def on_records(self, route: bytes, parts: list[bytes]) -> list[Header]:
        """What the record socket answers to one message."""
        try:
            header = decode(parts, AT_RECORDS).header
        except ProtocolError as error:
            return [Refused(code=Code.BAD_MESSAGE, detail=str(error))]
        if isinstance(header, ConsumerHello):
            return self._consumer(route, header)
        reader = self.readers.get(route)
        if reader is None:
            return [Refused(code=Code.HELLO_FIRST, detail="unknown")]
        if isinstance(header, Ack):
            reader.acked = max(reader.acked, header.seq)
            self.cursors[reader.name or ""] = reader.acked
            return self.following(route)
        return [Heartbeat(epoch=self.epoch, state=State.READY)]

    def following(self, route: bytes) -> list[Header]:
        """Records that a reader may have now."""
        reader = self.readers[route]
        found: list[Header] = []
        if reader.sent + 1 < self.oldest:
            found.append(Gap(first=reader.sent + 1, last=self.oldest - 1, detail="removed by retention"))
            reader.sent = self.oldest - 1
            reader.acked = max(reader.acked, reader.sent)
        for record in self.records[reader.sent :]:
            if reader.name is not None and reader.sent >= reader.acked + self.window:
                break
            found.append(record)
            reader.sent += 1
        return found

    def _trigger(self, now: int, client: str, trigger: Trigger, pixels: bytes | None) -> list[Header]:
        key = (client, trigger.epoch, trigger.trigger_id)
        queued = Queued(epoch=trigger.epoch, trigger_id=trigger.trigger_id)
        content = (trigger, None if pixels is None else bytes(pixels))
        first = self.triggers.get(key)
        if first is not None and first[:2] != content:
            return [make_answer(trigger, client, Verdict.ERROR, reason=Reason.CONFLICT)]
        if key in self.answers and first is not None:
            return [self.answers[key].model_copy(update={"expired": now >= first[2]})]
        if trigger.epoch != self.epoch:
            return [_restarted(trigger, client)]
        self.triggers.setdefault(key, (*content, now + (trigger.deadline_ms or 400) * MS))
        if self.hold:
            return [queued]
        self.answers[key] = make_answer(trigger, client, self.verdicts.get(trigger.part_id, Verdict.ACCEPT))
        return [queued, self.answers[key]]

    def _consumer(self, route: bytes, hello: ConsumerHello) -> list[Header]:
        self.hellos.append(hello)
        newest = len(self.records)
        if self.refuse is not None or (hello.last_acked or 0) > newest:
            return [Refused(code=self.refuse or Code.CURSOR_AHEAD, detail="as the test wants it")]
        start = newest if hello.name is None else self.cursors.get(hello.name, 0)
        start = start if hello.last_acked is None else hello.last_acked
        self.readers[route] = Reader(hello.name, start, start)
        welcome = ConsumerWelcome(
            station="line-1",
            epoch=self.epoch,
            heartbeat_ms=self.heartbeat_ms,
            lapse_ms=self.lapse_ms,
            last_acked=start,
            newest=newest,
            window=self.window,
        )
        return [welcome, *self.following(route)]


def _restarted(trigger: Trigger, client: str) -> Answer:
    return make_answer(trigger, client, Verdict.ERROR, reason=Reason.RESTART, score=None)
