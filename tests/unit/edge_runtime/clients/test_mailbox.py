"""The hand-over from the I/O thread: nothing is given twice, nothing is lost but what a full box must drop."""

import asyncio
import threading

import pytest

from edge_runtime.clients.mailbox import Closed, Mailbox
from edge_runtime.errors import ConfigError


def test_items_come_in_order_and_a_full_box_drops_the_oldest() -> None:
    box: Mailbox[int] = Mailbox(2)
    for item in (1, 2, 3):
        box.put(item)
    assert (box.take(), box.take(), box.dropped) == (2, 3, 1)


def test_who_waits_gets_the_next_item() -> None:
    box: Mailbox[int] = Mailbox(2)
    future = box.get()
    box.put(1)
    box.put(2)
    assert future.result(0) == 1
    assert box.take() == 2


def test_items_before_the_end_are_still_given() -> None:
    box: Mailbox[int] = Mailbox(2)
    box.put(1)
    box.end()
    assert box.take() == 1
    with pytest.raises(Closed):
        box.take()


def test_the_end_lets_waiting_ones_go_and_the_first_reason_stays() -> None:
    box: Mailbox[int] = Mailbox(2)
    future = box.get()
    box.end(ConfigError("first"))
    box.end()
    with pytest.raises(ConfigError, match="first"):
        future.result(0)
    with pytest.raises(ConfigError, match="first"):
        box.take()


def test_an_item_is_not_lost_to_a_waiter_that_was_cancelled() -> None:
    box: Mailbox[int] = Mailbox(2)
    box.get().cancel()
    box.put(1)
    assert box.take() == 1


def test_an_item_that_came_as_its_asyncio_taker_was_cancelled_goes_to_the_next() -> None:
    async def scene() -> int:
        box: Mailbox[int] = Mailbox(2)
        first = asyncio.create_task(box.take_async())
        await asyncio.sleep(0)
        box.put(1)  # the future has it, the task has not run yet
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await asyncio.wait_for(box.take_async(), 5)

    assert asyncio.run(scene()) == 1


def test_every_item_reaches_exactly_one_of_many_takers() -> None:
    box: Mailbox[int] = Mailbox(10_000)
    got: list[int] = []

    def take() -> None:
        got.extend(box.take() for _ in range(200))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for item in range(800):
        box.put(item)
    for thread in threads:
        thread.join(10)
    assert sorted(got) == list(range(800))
