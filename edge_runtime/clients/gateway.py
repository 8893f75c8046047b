"""Owns the client of a gateway: trigger a part, get one result by the deadline, whatever happens on the line."""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge_runtime.clients.effects import MS, Event, Finished, Greeted, Parted, Streamed
from edge_runtime.clients.link import Link
from edge_runtime.clients.mailbox import Closed, Mailbox
from edge_runtime.clients.orders import Order, make_order, said
from edge_runtime.clients.results import Inspected, silence
from edge_runtime.clients.session import MAX_OPEN, Session
from edge_runtime.decision import Reason
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Frame
from edge_runtime.protocol.endpoints import parse_endpoint
from edge_runtime.protocol.messages import CameraFacts, ClientHello, State

_STREAM_ANSWERS = 1024  # kept for an iterator that is slow; older ones are of parts that have gone by
_USED_IDS = 65_536
_GRACE_NS = 1000 * MS  # the I/O thread ends every trigger at its deadline; past this it is taken for dead
_LONGEST_MS = 600_000

Pixels = Frame | NDArray[np.uint8 | np.uint16]


class Pending:
    """A trigger on its way."""

    def __init__(self, order: Order, client: str) -> None:
        """Without result yet.

        Args:
            order: what was asked for.
            client: who asked.
        """
        self.future: Future[Inspected] = Future()
        self._order = order
        self._client = client

    @property
    def trigger_id(self) -> str:
        """Names the trigger within this client."""
        return self._order.trigger.trigger_id

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self.future.done()

    def wait(self) -> Inspected:
        """The result; it is there by the trigger's deadline, and always the same."""
        try:
            return self.future.result(self.patience_s())
        except FutureTimeoutError:
            self.settle(self.given_up())
            return self.future.result()

    def settle(self, result: Inspected) -> None:
        """Set the result; the first one counts."""
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def patience_s(self) -> float:
        """How long a caller waits for the I/O thread, which keeps the deadline, before it does without."""
        limit_ns = self._order.started_ns + (self._order.trigger.deadline_ms or _LONGEST_MS) * MS + _GRACE_NS
        return max((limit_ns - time.monotonic_ns()) / 1e9, 0.0)

    def given_up(self) -> Inspected:
        """The result where even the I/O thread is silent."""
        latency_ms = (time.monotonic_ns() - self._order.started_ns) / MS
        detail = "this process did not come to it in time"
        return silence(
            self._order.trigger, Reason.TIMEOUT, detail, client=self._client, station="", latency_ms=latency_ms
        )


class Gateway:
    """One client of the trigger socket; use it from any number of threads, for as long as parts come.

    `inspect` raises for what the caller can mend: a name, a deadline, a frame that cannot be sent. Whatever happens on
    the line, a silent service included, comes back as a result that is not accepted.
    """

    def __init__(self, endpoint: str, *, name: str, follow: Sequence[str] = (), max_open: int = MAX_OPEN) -> None:
        """Begin to connect; a service that is not there yet is tried until it is.

        Args:
            endpoint: `tcp://127.0.0.1:PORT` of the service.
            name: of this client; no two live ones may share it.
            follow: stream cameras whose answers `answers` gives.
            max_open: triggers that may be without result; one more is ERROR/OVERLOAD at once.

        Raises:
            ConfigError: an argument cannot be used.
        """
        address = parse_endpoint(endpoint).triggers
        instance = uuid.uuid4().hex
        try:
            hello = ClientHello(name=name, instance=instance, follow=tuple(dict.fromkeys(follow)))
        except ValidationError as error:
            raise ConfigError(said(error)) from error
        if max_open < 1:
            message = f"max_open: {max_open}, expected 1 or more"
            raise ConfigError(message)
        self.name = name
        self._ids = (f"{instance[:12]}-{number}" for number in itertools.count(1))
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._used: dict[str, None] = {}
        self._greeted = threading.Event()
        self._stream: Mailbox[Inspected] = Mailbox(_STREAM_ANSWERS)
        self._session = Session(hello, time.monotonic_ns(), max_open=max_open)
        self._link = Link(address, self._session, self._on_event, name=f"gateway-{name}")

    def inspect(
        self,
        *,
        camera: str,
        part_id: str | None = None,
        deadline_ms: int | None = None,
        frame: Pixels | None = None,
        trigger_id: str | None = None,
    ) -> Inspected:
        """Trigger a part and wait for its result: `trigger` and `wait` in one."""
        pending = self.trigger(
            camera=camera, part_id=part_id, deadline_ms=deadline_ms, frame=frame, trigger_id=trigger_id
        )
        return pending.wait()

    def trigger(
        self,
        *,
        camera: str,
        part_id: str | None = None,
        deadline_ms: int | None = None,
        frame: Pixels | None = None,
        trigger_id: str | None = None,
    ) -> Pending:
        """Trigger a part.

        Args:
            camera: which camera is to look at it.
            part_id: comes back with the answer.
            deadline_ms: from now to the result; the camera's own where none is given.
            frame: for a camera of source `client`: a `Frame`, or pixels (H, W) or RGB (H, W, 3); a copy is taken.
            trigger_id: unique within this client; made up where none is given.

        Raises:
            ConfigError: an argument cannot be used, or the gateway is closed.
        """
        now = time.monotonic_ns()
        with self._lock:
            chosen = next(self._ids) if trigger_id is None else trigger_id
        order = make_order(
            trigger_id=chosen, camera=camera, part_id=part_id, deadline_ms=deadline_ms, frame=frame, now=now
        )
        pending = Pending(order, self.name)
        self._register(pending)
        try:
            self._link.post(lambda when: self._session.order(when, order))
        except ConfigError as error:
            self._pending.pop(chosen, None)
            message = f"gateway {self.name!r}: {error}"
            raise ConfigError(message) from error
        return pending

    def answers(self) -> Iterator[Inspected]:
        """Answers for the frames of followed cameras, as they come, until the gateway is closed.

        Who comes late for them gets the newest 1024; `counters["dropped"]` tells how many were left out.
        """
        while True:  # ends with the gateway
            try:
                answer = self._stream.take()
            except Closed:
                return
            yield answer

    async def next_answer(self) -> Inspected:
        """The next of `answers`, for asyncio.

        Raises:
            Closed: the gateway is closed.
        """
        return await self._stream.take_async()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the service knows this client; whether it does."""
        return self._greeted.wait(timeout_s)

    @property
    def connected(self) -> bool:
        """Whether the service knows this client."""
        return self._greeted.is_set()

    @property
    def refusal(self) -> str:
        """Why the service does not take this client, such as a name in use; empty where nothing is known."""
        return self._session.connection.refusal

    @property
    def state(self) -> State | None:
        """What the station was doing when it was last heard."""
        return self._session.connection.state

    @property
    def cameras(self) -> dict[str, CameraFacts]:
        """The station's cameras, from its last WELCOME; empty before."""
        return self._session.cameras

    @property
    def counters(self) -> dict[str, int]:
        """How often what should not happen happened."""
        return self._session.connection.counters | self._session.counters | {"dropped": self._stream.dropped}

    def close(self) -> None:
        """End it; open triggers get a result that is not accepted."""
        self._link.close()
        self._stream.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _register(self, pending: Pending) -> None:
        with self._lock:
            if pending.trigger_id in self._used:
                message = f"trigger_id: {pending.trigger_id!r} was used before: give every part an id of its own"
                raise ConfigError(message)
            self._used[pending.trigger_id] = None
            if len(self._used) > _USED_IDS:
                del self._used[next(iter(self._used))]
            self._pending[pending.trigger_id] = pending

    def _on_event(self, event: Event) -> None:
        match event:
            case Finished(result):
                self._pending.pop(result.answer.trigger_id).settle(result)
            case Streamed(result):
                self._stream.put(result)
            case Greeted():
                self._greeted.set()
            case Parted():
                self._greeted.clear()
            case _:
                pass
