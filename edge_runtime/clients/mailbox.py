"""Owns the hand-over of results from the I/O thread to callers, plain or asyncio: both wait on the same futures."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from edge_runtime.errors import TaktError

Item = TypeVar("Item")
_STEP_S = 1.0


class Closed(Exception):  # noqa: N818 - an end, not an error
    """Nothing more will come."""


class Mailbox(Generic[Item]):
    """First in, first out; where it is full, the oldest item makes room and is counted."""

    def __init__(self, size: int) -> None:
        """Start empty.

        Args:
            size: items that are kept for callers who do not come for them.
        """
        self.dropped = 0
        self._size = size
        self._items: deque[Item] = deque()
        self._waiting: deque[Future[Item]] = deque()
        self._end: Exception | None = None
        self._lock = threading.Lock()

    def put(self, item: Item) -> None:
        """Give an item to the first who waits, or keep it."""
        with self._lock:
            while self._waiting:
                future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_result(item)
                    return
            if len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)

    def take(self) -> Item:
        """Wait for the next item.

        Raises:
            Closed: nothing more comes.
            TaktError: what `end` was given.
        """
        future = self.get()
        try:
            while True:  # in steps: elsewhere than on Linux an endless wait cannot be interrupted
                with suppress(TimeoutError):
                    return future.result(_STEP_S)
        except BaseException:
            self._abandon(future)
            raise

    async def take_async(self) -> Item:
        """The same for asyncio."""
        future = self.get()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._abandon(future)
            raise

    def _abandon(self, future: "Future[Item]") -> None:
        """Keep an item that came just when its taker went away."""
        if not future.cancel() and future.exception() is None:
            with self._lock:
                self._items.appendleft(future.result())

    def get(self) -> "Future[Item]":
        """A future of the next item; it fails with `Closed`, or with what `end` was given."""
        future: Future[Item] = Future()
        with self._lock:
            if self._items:
                future.set_result(self._items.popleft())
            elif self._end is not None:
                future.set_exception(self._end)
            else:
                self._waiting.append(future)
        return future

    def end(self, error: TaktError | None = None) -> None:
        """Let those who wait, and those who come after the last item, go."""
        with self._lock:
            self._end = self._end or error or Closed()
            waiting, self._waiting = self._waiting, deque()
            for future in waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(self._end)
