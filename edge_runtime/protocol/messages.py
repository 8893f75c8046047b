"""Owns the headers of all messages, as pydantic models: what `docs/protocol.md` prints as JSON Schemas.

Numbers of types are grouped by socket: 0x0_ everywhere, 0x1_ triggers, 0x2_ frames, 0x3_ records, 0x4_ control,
0x6_ between the broker and its own workers.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from edge_runtime.decision import Reason, Verdict
from edge_runtime.imaging.frames import PixelFormat

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Instance = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]  # printable ASCII, no space
GrabId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
PartId = Annotated[str, Field(max_length=256)]
Detail = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[float, Field(ge=0)]
DeadlineMs = Annotated[int, Field(ge=1, le=600_000)]
Side = Annotated[int, Field(ge=1, le=65_535)]


class Header(BaseModel):
    """Frozen, no conversions between types, no NaN or infinity; fields of a newer minor are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class TriggerMode(StrEnum):
    """What makes a camera take a frame."""

    SOFTWARE = "software"  # the service asks for each one
    HARDWARE = "hardware"  # an electric line; frames are paired with triggers by the exposure counter
    STREAM = "stream"  # the camera runs freely; every frame is a trigger of its own


class Transport(StrEnum):
    """How a camera hands over pixels."""

    MEMORY = "memory"  # memory-mapped slots, on one host
    MESSAGE = "message"  # the third part of the message, between hosts


class State(StrEnum):
    """What the station is doing, in the states of OPC 40100-1."""

    PREOPERATIONAL = "Preoperational"  # bundles are being loaded and tested
    HALTED = "Halted"  # stopped by command, or going down
    ERROR = "Error"  # a part of the station is broken; the reason says which
    INITIALIZED = "Initialized"  # bundles are loaded, cameras are awaited
    READY = "Ready"
    SINGLE_EXECUTION = "SingleExecution"  # Ready, and inspecting a triggered part
    CONTINUOUS_EXECUTION = "ContinuousExecution"  # Ready, and inspecting a stream

    @property
    def ready(self) -> bool:
        """Whether triggers are inspected on every camera."""
        return self in {State.READY, State.SINGLE_EXECUTION, State.CONTINUOUS_EXECUTION}


class Code(StrEnum):
    """Why a message was refused."""

    BAD_MESSAGE = "BAD_MESSAGE"  # malformed, or not for this socket
    HELLO_FIRST = "HELLO_FIRST"  # the service does not know this connection (any more): send HELLO, then retry
    NAME_IN_USE = "NAME_IN_USE"  # another live instance has the name; retry after `lapse_ms`
    UNKNOWN_CAMERA = "UNKNOWN_CAMERA"  # a camera of a name, or with a trigger mode, that line.toml does not have
    CURSOR_AHEAD = "CURSOR_AHEAD"  # a consumer acknowledged records that this journal never had


# --- everywhere -------------------------------------------------------------------------------------------------------


class Heartbeat(Header):
    """Sent by a peer every `heartbeat_ms`, and answered with the service's own."""

    epoch: Count
    state: State | None = None  # from the service only
    reason: Detail | None = None  # why the state is what it is; from the service only


class Refused(Header):
    """The service did not take a message; nothing was changed by it."""

    code: Code
    detail: Detail
    trigger_id: Identifier | None = None  # of the TRIGGER that was refused, where it could be read
    epoch: Count | None = None  # the same


class FrameSpec(Header):
    """Layout of a frame's pixels: rows without padding, little-endian."""

    width: Side
    height: Side
    pixel_format: PixelFormat

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return self.width * self.height * self.pixel_format.channels * self.pixel_format.dtype.itemsize


# --- triggers and answers ---------------------------------------------------------------------------------------------


class CameraFacts(Header):
    """What a client may want to know of a camera before it triggers."""

    name: Name
    trigger: TriggerMode
    deadline_ms: DeadlineMs  # where a TRIGGER names none
    takes_frames: bool  # frames come with the TRIGGER
    frame: FrameSpec


class ClientHello(Header):
    """First message of a client of the trigger socket."""

    name: Name
    instance: Instance  # random, one for each process that uses the name
    follow: tuple[Name, ...] = ()  # stream cameras whose answers this client gets, too


class ClientWelcome(Header):
    """The service knows the client now."""

    station: str
    epoch: Count  # the broker's start count: goes into every TRIGGER that is new
    heartbeat_ms: Count
    lapse_ms: Count  # a peer that is silent for so long is taken for dead
    state: State
    cameras: tuple[CameraFacts, ...]


class TriggerName(Header):
    """What a TRIGGER is called; read of one that is malformed otherwise, to refuse it by name."""

    epoch: Count
    trigger_id: Identifier


class Trigger(Header):
    """Inspect a part."""

    epoch: Count  # of the WELCOME before the first sending; a retry keeps it
    trigger_id: Identifier  # unique within client and epoch
    camera: Name
    part_id: PartId | None = None
    deadline_ms: DeadlineMs | None = None  # from receipt at the service
    frame: FrameSpec | None = None  # of the pixels that follow, for a camera of source `client`


class Queued(Header):
    """The trigger is on disk: an answer will come, whatever happens."""

    epoch: Count
    trigger_id: Identifier


class ListedRegion(Header):
    """A connected area above the pixel threshold, in frame pixels."""

    name: str
    x: Count
    y: Count
    width: Count
    height: Count
    area_px: Count
    peak: float


class TimingsMs(Header):
    """Where the time went, in milliseconds; null for stages that the trigger did not reach."""

    frame: Milliseconds | None = None  # trigger received to frame received
    queue: Milliseconds | None = None  # frame received to handed to a worker
    preprocess: Milliseconds | None = None
    infer: Milliseconds | None = None
    postprocess: Milliseconds | None = None
    journal: Milliseconds | None = None  # decided to committed; null in the journal itself
    total: Milliseconds | None = None  # trigger received to answer sent; null in the journal itself


class Answer(Header):
    """What Takt says of one trigger. Only `ACCEPT` that is neither expired nor replayed may open a gate."""

    station: str
    client: str  # `@CAMERA` for the frames of a stream
    epoch: Count
    trigger_id: Identifier
    part_id: PartId | None
    camera: str
    counter: Count | None  # the camera's exposure counter
    label: Detail | None  # what the camera calls the frame: a file's name
    verdict: Verdict
    reason: Reason | None
    detail: Detail
    region: str | None
    score: float | None
    threshold: float | None
    score_normalized: float | None
    regions: tuple[ListedRegion, ...]
    regions_left_out: Count  # listed are the 64 with the highest peaks
    complete: (
        bool  # the whole frame was inspected; false for a REJECT that needed no more, and where nothing was inspected
    )
    bundle: str | None  # digest
    artefact: str | None
    deadline_ms: DeadlineMs
    decided_utc: str  # a label; durations are in timings_ms
    timings_ms: TimingsMs
    seq: Count | None  # its place in the record stream; null where `journaled` is false
    journaled: bool  # false only for ERROR/JOURNAL: the disk did not take it in time
    expired: bool = False  # sent after the deadline
    replayed: bool = False  # in the record stream: decided before the consumer came


# --- frames -----------------------------------------------------------------------------------------------------------


class CameraHello(Header):
    """First message of a camera process."""

    name: Name
    instance: Instance
    trigger: TriggerMode
    transport: Transport
    pid: Count | None = None


class RingSpec(Header):
    """A file of frame slots, made by the service."""

    path: str
    slots: Count
    slot_bytes: Count  # header included


class SlotGrant(Header):
    """The right to write one frame into a slot, once."""

    slot: Count
    generation: Count


class CameraWelcome(Header):
    """The service knows the camera now. Sent again whenever frames must look otherwise: earlier grants are void."""

    station: str
    epoch: Count
    heartbeat_ms: Count
    lapse_ms: Count
    frame: FrameSpec  # what the bundle inspects
    ring: RingSpec | None  # null for message transport


class Credit(Header):
    """So many more frames may be sent: one for each grant (memory), or a number (message)."""

    grants: tuple[SlotGrant, ...] = ()
    messages: Count = 0


class Grab(Header):
    """Take a frame now."""

    epoch: Count
    trigger_id: GrabId  # `CLIENT/ID`, unique within the epoch; opaque to the camera
    part_id: PartId | None = None


class Frame(Header):
    """A frame was taken, or could not be. A frame uses up one credit, a fault none."""

    epoch: Count
    trigger_id: GrabId | None  # of the GRAB; null for hardware and stream
    counter: Count  # exposures since the camera process started, from 1
    frame: FrameSpec | None  # null with a fault
    slot: Count | None = None  # with memory transport
    generation: Count | None = None
    fault: Reason | None = None  # NO_FRAME, BAD_IMAGE, OVERLOAD
    detail: Detail = ""
    label: Detail | None = None


class CameraState(Header):
    """Whether the camera's source gives frames; sent on every change and with every heartbeat."""

    ok: bool
    detail: Detail = ""
    exposures: Count = 0
    dropped: Count = 0  # frames that nobody could take


# --- records ----------------------------------------------------------------------------------------------------------


class ConsumerHello(Header):
    """First message of a reader of the record stream."""

    name: Name | None  # null: records from now on, no cursor, no acknowledgement
    instance: Instance
    last_acked: Count | None = None  # where the consumer's own store stands; null takes the service's cursor


class ConsumerWelcome(Header):
    """The service knows the consumer now."""

    station: str
    epoch: Count
    heartbeat_ms: Count
    lapse_ms: Count
    last_acked: Count  # records after this one follow
    newest: Count
    window: Count  # so many records at most are sent ahead of the acknowledgement


class Record(Answer):
    """One journalled answer; `seq` is never null and grows by one."""

    @property
    def seq_number(self) -> int:
        """`seq`, which a record always has."""
        return self.seq or 0


class Ack(Header):
    """All records up to `seq` are safe with the consumer."""

    seq: Count


class Gap(Header):
    """Records that this consumer does not get: removed by retention, or not taken in time by a reader without cursor."""

    first: Count
    last: Count
    detail: Detail


# --- control ----------------------------------------------------------------------------------------------------------


class Request(Header):
    """A command for the service."""

    id: Instance
    command: Annotated[str, Field(max_length=64)]
    arguments: dict[str, JsonValue] = {}
    actor: Annotated[str, Field(max_length=128)] = ""  # who asks, for the audit log


class Reply(Header):
    """What became of a command."""

    id: Instance
    ok: bool
    detail: Detail
    result: JsonValue = None


# --- the broker and its workers ---------------------------------------------------------------------------------------


class WorkerHello(Header):
    """A worker has loaded its bundle, passed the self-test and is warm; also its heartbeat."""

    token: str
    worker: str
    pid: Count
    digest: str
    artefact: str
    product: str
    inspected: Count


class Inspect(Header):
    """Inspect the frame in a slot."""

    job: Count
    path: str
    slot: Count
    slot_bytes: Count
    generation: Count
    frame: FrameSpec
    until_ns: Count  # on the clock CLOCK_MONOTONIC of the host: after that nobody wants the result
    early_reject: bool


class Result(Header):
    """What became of an `Inspect`."""

    job: Count
    verdict: Verdict
    reason: Reason | None
    detail: Detail
    region: str | None
    score: float | None
    threshold: float | None
    score_normalized: float | None
    regions: tuple[ListedRegion, ...]
    regions_left_out: Count
    complete: bool
    bundle: str
    artefact: str
    preprocess_ms: Milliseconds
    infer_ms: Milliseconds
    postprocess_ms: Milliseconds


MESSAGES: dict[int, type[Header]] = {
    0x01: Heartbeat,
    0x02: Refused,
    0x10: ClientHello,
    0x11: ClientWelcome,
    0x12: Trigger,
    0x13: Queued,
    0x14: Answer,
    0x20: CameraHello,
    0x21: CameraWelcome,
    0x22: Credit,
    0x23: Grab,
    0x24: Frame,
    0x25: CameraState,
    0x30: ConsumerHello,
    0x31: ConsumerWelcome,
    0x32: Record,
    0x33: Ack,
    0x34: Gap,
    0x40: Request,
    0x41: Reply,
    0x60: WorkerHello,
    0x61: Inspect,
    0x62: Result,
}
TYPES: dict[type[Header], int] = {model: number for number, model in MESSAGES.items()}


def accepting(*models: type[Header]) -> dict[int, type[Header]]:
    """The message types that a socket takes, as `wire.decode` wants them."""
    return {TYPES[model]: model for model in models}


AT_TRIGGERS = accepting(ClientHello, Heartbeat, Trigger)
AT_FRAMES = accepting(CameraHello, Heartbeat, Frame, CameraState)
AT_RECORDS = accepting(ConsumerHello, Heartbeat, Ack)
AT_CONTROL = accepting(Request)
AT_WORKERS = accepting(WorkerHello, Result)
