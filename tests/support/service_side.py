"""A small service over real ROUTERs, to test clients against; it can be told to misbehave in every way a line knows."""

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import zmq
from support.station import Station

from edge_runtime.protocol.endpoints import Endpoints
from edge_runtime.protocol.messages import AT_CONTROL, Answer, Header, Record, Reply, Request
from edge_runtime.protocol.wire import decode, encode

Handler = Callable[[Request], Reply | None]


class ServiceSide:
    """The sockets of one station, in a thread; everything a test changes goes through `do`."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - fields of Station
        """Start to serve.

        Args:
            settings: of the `Station`.
        """
        self.station = Station(**settings)
        self.endpoints = Endpoints("127.0.0.1", _free_ports())
        self.endpoint = self.endpoints.triggers
        self.lose: Callable[[Header], bool] = lambda _: False  # messages of the service that never arrive
        self.copies = 1  # of each message of the service
        self.delay_s = 0.0  # of each ANSWER
        self.garbage: list[bytes] = []  # sent before each message of the service
        self.deaf = False  # takes everything, answers nothing
        self.requests: list[Request] = []
        self.handler: Handler = lambda request: Reply(id=request.id, ok=True, detail="done", result={})
        self._later: list[tuple[float, zmq.Socket[bytes], bytes, Header]] = []
        self._actions: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._stop = False
        self._context = zmq.Context()
        self._open()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, action: Callable[[], None]) -> None:
        """Have the thread that owns everything do something, and wait for it."""
        done = threading.Event()
        self._actions.append((action, done))
        assert done.wait(10), "the simulated service is stuck"

    def restart(self, *, down_s: float = 0.0) -> None:
        """Go down with all connections, and come back as the next epoch."""

        def act() -> None:
            self._shut()
            time.sleep(down_s)
            self.station.restart()
            self._later.clear()
            self._open()

        self.do(act)

    def forget(self) -> None:
        """Forget all peers, as a broker does whose memory of routes is gone; connections stay."""

        def act() -> None:
            self.station.clients.clear()
            self.station.readers.clear()

        self.do(act)

    def release(self) -> None:
        """Answer what was held."""
        self.do(
            lambda: [self._send(self._triggers, route, header) for route, header in self.station.release()] and None
        )

    def stream(self, answer: Answer) -> None:
        """Send an answer to everybody who follows its camera."""

        def act() -> None:
            for route, hello in self.station.clients.items():
                if answer.client.removeprefix("@") in hello.follow:
                    self._send(self._triggers, route, answer)

        self.do(act)

    def record(self, *records: Record) -> None:
        """Journal records and send them to whoever may have them."""

        def act() -> None:
            self.station.records.extend(records)
            for route in self.station.readers:
                for header in self.station.following(route):
                    self._send(self._records, route, header)

        self.do(act)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to come about."""
        for _ in range(1000):
            if condition():
                return
            time.sleep(0.01)
        message = "it did not come about within 10 s"
        raise AssertionError(message)

    def close(self) -> None:
        """Go down."""
        self._stop = True
        self._thread.join()
        self._context.term()

    def _open(self) -> None:
        addresses = (self.endpoints.triggers, self.endpoints.records, self.endpoints.control)
        self._triggers, self._records, self._control = (_router(self._context, address) for address in addresses)

    def _shut(self) -> None:
        for router in (self._triggers, self._records, self._control):
            router.close(linger=0)

    def _run(self) -> None:
        while not self._stop:
            while self._actions:
                action, done = self._actions.popleft()
                action()
                done.set()
            for due, router, route, header in list(self._later):
                if time.monotonic() >= due:
                    self._later.remove((due, router, route, header))
                    self._send(router, route, header)
            for router in (self._triggers, self._records, self._control):
                self._serve(router)
            time.sleep(0.001)
        self._shut()

    def _serve(self, router: zmq.Socket[bytes]) -> None:
        for _ in range(100):
            try:
                route, *parts = router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if self.deaf:
                continue
            for header in self._answers(router, route, parts):
                if self.delay_s and isinstance(header, Answer):
                    self._later.append((time.monotonic() + self.delay_s, router, route, header))
                else:
                    self._send(router, route, header)

    def _answers(self, router: zmq.Socket[bytes], route: bytes, parts: list[bytes]) -> list[Header]:
        if router is self._triggers:
            return self.station.on_triggers(time.monotonic_ns(), route, parts)
        if router is self._records:
            return self.station.on_records(route, parts)
        request = decode(parts, AT_CONTROL).header
        assert isinstance(request, Request)
        self.requests.append(request)
        reply = self.handler(request)
        return [] if reply is None else [reply]

    def _send(self, router: zmq.Socket[bytes], route: bytes, header: Header) -> None:
        if self.garbage:
            router.send_multipart([route, *self.garbage])
        for _ in range(0 if self.lose(header) else self.copies):
            router.send_multipart([route, *encode(header)])


def _router(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    for _ in range(200):
        with suppress(zmq.ZMQError):  # the port of the socket before is let go a little later
            router.bind(address)
            return router
        time.sleep(0.01)
    message = f"{address} stays taken"
    raise AssertionError(message)


def _free_ports() -> int:
    """The first of six free ports in a row, below those that the system gives to outgoing connections by itself.

    Else a client that tries a service which is down may be given the very port that the service needs.
    """
    for _ in range(200):
        base = random.randrange(10_000, 32_000, 6)
        if all(_is_free(base + offset) for offset in range(6)):
            return base
    message = "no six free ports in a row"
    raise AssertionError(message)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def serving(**settings: Any) -> Iterator[ServiceSide]:  # noqa: ANN401 - fields of Station
    """A running service, closed at the end."""
    service = ServiceSide(**settings)
    try:
        yield service
    finally:
        service.close()
