"""Owns the thread, the socket and the clock behind a core: the only code here that blocks.

The thread owns the socket alone. Callers leave actions in a queue and wake it through a pair of connected sockets.
"""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import zmq

from edge_runtime.clients.effects import MS, Core, Event, Reconnect, Send
from edge_runtime.errors import ConfigError, ProtocolError
from edge_runtime.protocol.wire import encode

Action = Callable[[int], None]

_LONGEST_SLEEP_MS = 1000
_MESSAGES_A_TURN = 100  # then the clock is looked at again
_MAX_MESSAGE_BYTES = 1 << 20  # the service sends no pixels; headers are at most 64 KiB
_FAULT_PAUSE_S = 0.05
_RECONNECT_MS = (50, 500)

_log = logging.getLogger("takt.clients")


class Link:
    """Runs one core against one socket until it is closed."""

    def __init__(
        self, address: str, core: Core, on_event: Callable[[Event], None], *, name: str, linger_ms: int = 0
    ) -> None:
        """Start the thread; it connects, and reconnects, for as long as it lives.

        Args:
            address: of the service's socket.
            core: belongs to the thread from now on; others reach it through `post`.
            on_event: called in the thread for each event; must not block or raise.
            name: of the thread.
            linger_ms: how long `close` waits for the last messages to leave.
        """
        self._address = address
        self._core = core
        self._on_event = on_event
        self._actions: deque[Action] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._linger_ms = linger_ms
        self._context = zmq.Context()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.settimeout(0)
        self._wake_out.settimeout(0)
        self._socket = self._connect()
        self._thread = threading.Thread(target=self._run, name=f"takt-{name}", daemon=True)
        self._thread.start()

    def post(self, action: Action) -> None:
        """Have the thread call `action(now)`.

        Raises:
            ConfigError: the link is closed.
        """
        with self._lock:
            if self._closed:
                message = "it is closed: make a new one, or keep this one open for as long as parts come"
                raise ConfigError(message)
            self._actions.append(action)
        self._wake()

    def close(self) -> None:
        """End the thread; what is open is ended by the core first. Closing twice is nothing."""
        with self._lock:
            self._closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: the thread has ended
            self._wake_out.send(b"\0")

    def _connect(self) -> zmq.Socket[bytes]:
        made = self._context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        made.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS[0])
        made.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1])
        made.connect(self._address)
        return made

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
        finally:
            self._act()
            self._core.finish(time.monotonic_ns())
            self._perform()
            self._socket.close(linger=self._linger_ms)
            self._context.term()
            self._wake_in.close()
            self._wake_out.close()

    def _turn(self) -> None:
        try:
            self._core.tick(time.monotonic_ns())
            self._perform()
            self._sleep()
            self._act()
            self._receive()
        except Exception:  # noqa: BLE001 - for a year no fault may end the thread that answers for a silent service
            _log.exception("a fault in the client; it goes on")
            time.sleep(_FAULT_PAUSE_S)

    def _sleep(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_in, zmq.POLLIN)
        wait_ns = self._core.due() - time.monotonic_ns()
        poller.poll(min(max(-(-wait_ns // MS), 0), _LONGEST_SLEEP_MS))
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)

    def _act(self) -> None:
        for _ in range(len(self._actions)):
            self._actions.popleft()(time.monotonic_ns())
        self._perform()

    def _receive(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # the clock is read after the message: however late this thread comes to it, it counts as that late
            self._core.receive(time.monotonic_ns(), parts)
            self._perform()

    def _perform(self) -> None:
        for effect in self._core.take():
            if isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Reconnect):
                self._socket.close()
                self._socket = self._connect()
            else:
                self._on_event(effect)

    def _send(self, send: Send) -> None:
        try:
            self._socket.send_multipart(encode(send.header, send.pixels), zmq.NOBLOCK)
        except zmq.Again:
            _log.debug("a message finds no room on its way to the service; it is repeated later")
        except ProtocolError as error:
            _log.warning("a message cannot be sent: %s", error)
