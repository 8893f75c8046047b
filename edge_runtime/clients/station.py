"""Owns what a service says of itself, typed; whatever an older or newer service leaves out has a plain default."""

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

from edge_runtime.clients.control import ServiceError


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, told: JsonValue) -> JsonValue:
        """What is not known yet, such as the shares of no answers, is null: as good as left out."""
        if not isinstance(told, dict):
            return told  # refused by what follows, with its place
        return {name: value for name, value in told.items() if value is not None}


class Loaded(_Told):
    """A bundle in the service."""

    product: str = ""
    digest: str = ""
    path: str = ""
    artefact: str = ""


class Spread(_Told):
    """Percentiles of a duration in milliseconds; n of them."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    n: int = 0


class Recent(_Told):
    """Shares, 0 to 1, of each verdict among the last n."""

    n: int = 0
    accept: float = 0.0
    review: float = 0.0
    reject: float = 0.0
    error: float = 0.0


class CameraTold(_Told):
    """One camera."""

    name: str
    source: str = ""
    trigger: str = ""
    ok: bool = False
    detail: str | None = ""
    ready: bool = False
    open: int = 0
    exposures: int = 0
    dropped: int = 0
    bundle: Loaded | None = None
    staged: Loaded | None = None
    previous: Loaded | None = None
    verdicts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    recent: Recent = Recent()
    latency_ms: dict[str, Spread] = {}
    frames: dict[str, int] = {}


class WorkerTold(_Told):
    """One worker process."""

    name: str
    pid: int | None = None
    state: str = ""
    inspected: int = 0


class ConsumerTold(_Told):
    """A named reader of the record stream."""

    name: str
    acked: int = 0
    behind: int = 0
    connected: bool = False


class JournalTold(_Told):
    """The journal."""

    ok: bool = True
    detail: str | None = ""
    newest_seq: int = 0
    open: int = 0
    backlog: int = 0
    bytes: int = 0
    commit_ms: Spread = Spread()
    unjournaled: int = 0
    consumers: tuple[ConsumerTold, ...] = ()


class DiskTold(_Told):
    """The disk under the run folder."""

    free_bytes: int = 0
    path: str = ""


class PeersTold(_Told):
    """Who is connected."""

    clients: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()


class Station(_Told):
    """The whole."""

    station: str
    state: str
    reason: str | None = ""
    ready: bool = False
    epoch: int = 0
    uptime_s: float = 0.0
    cameras: tuple[CameraTold, ...] = ()
    workers: tuple[WorkerTold, ...] = ()
    journal: JournalTold = JournalTold()
    disk: DiskTold = DiskTold()
    peers: PeersTold = PeersTold()
    counters: dict[str, int] = {}


def read_station(status: dict[str, JsonValue]) -> Station:
    """Give types to what `Control.status` returns.

    Raises:
        ServiceError: it is not a status that this release understands.
    """
    try:
        return Station.model_validate(status)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        message = f"status: {where}: {first['msg']}: the service is of another version; `--json` shows what it says"
        raise ServiceError(message) from error
