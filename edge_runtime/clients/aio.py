"""Owns the asyncio face of the clients: the same threads and futures, awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from edge_runtime.clients.gateway import Gateway, Pixels
from edge_runtime.clients.mailbox import Closed
from edge_runtime.clients.records import RecordStream, log_gap
from edge_runtime.clients.results import Inspected
from edge_runtime.clients.session import MAX_OPEN
from edge_runtime.protocol.messages import Gap, Record


class AsyncGateway:
    """`Gateway` for asyncio: `async with AsyncGateway(...) as gateway: await gateway.inspect(...)`."""

    def __init__(self, endpoint: str, *, name: str, follow: Sequence[str] = (), max_open: int = MAX_OPEN) -> None:
        """Begin to connect; arguments and errors are those of `Gateway`, which is there as `plain`."""
        self.plain = Gateway(endpoint, name=name, follow=follow, max_open=max_open)

    async def inspect(
        self,
        *,
        camera: str,
        part_id: str | None = None,
        deadline_ms: int | None = None,
        frame: Pixels | None = None,
        trigger_id: str | None = None,
    ) -> Inspected:
        """Trigger a part and wait for its result; arguments and errors are those of `Gateway.trigger`."""
        pending = self.plain.trigger(
            camera=camera, part_id=part_id, deadline_ms=deadline_ms, frame=frame, trigger_id=trigger_id
        )
        shielded = asyncio.shield(asyncio.wrap_future(pending.future))  # whoever cancels this, the trigger stays sent
        try:
            return await asyncio.wait_for(shielded, pending.patience_s())
        except TimeoutError:
            pending.settle(pending.given_up())
            return pending.future.result()

    async def answers(self) -> AsyncIterator[Inspected]:
        """Answers for the frames of followed cameras, as they come, until the gateway is closed."""
        while True:  # ends with the gateway
            try:
                answer = await self.plain.next_answer()
            except Closed:
                return
            yield answer

    async def close(self) -> None:
        """End it; open triggers get a result that is not accepted."""
        await asyncio.to_thread(self.plain.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncRecordStream:
    """`RecordStream` for asyncio: `async for record in stream`."""

    def __init__(
        self,
        endpoint: str,
        name: str | None = None,
        *,
        last_acked: int | None = None,
        on_gap: Callable[[Gap], None] = log_gap,
    ) -> None:
        """Begin to connect; arguments and errors are those of `RecordStream`, which is there as `plain`."""
        self.plain = RecordStream(endpoint, name, last_acked=last_acked, on_gap=on_gap)

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Records as they come, until the stream is closed."""
        while True:  # ends with the stream
            try:
                record = await self.plain.next_record()
            except Closed:
                return
            yield record

    def ack(self, record: Record | int) -> None:
        """Tell the service that this record and all before it are safely stored; does not wait."""
        self.plain.ack(record)

    async def close(self) -> None:
        """End it; acknowledgements that were given are sent first."""
        await asyncio.to_thread(self.plain.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
