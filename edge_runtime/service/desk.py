"""Owns the trigger socket: clients, their triggers, and the way of each answer back to who asked."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from edge_runtime.protocol import messages as wire
from edge_runtime.protocol.messages import Answer, Code
from edge_runtime.protocol.wire import Buffer, Message
from edge_runtime.service.answers import utc_now
from edge_runtime.service.operations import Acceptance, Key
from edge_runtime.service.peers import HEARTBEAT_MS, LAPSE_MS, Peer, Peers
from edge_runtime.service.port import Port

STREAM_CLIENT = "@"  # before a camera's name: the client of its stream; no name may start so

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class DeskHooks:
    """What others do with a trigger, and what they know."""

    triggered: Callable[[Acceptance, wire.Trigger, Buffer | None], None]
    state: Callable[[], tuple[wire.State, str]]
    cameras: Callable[[], tuple[wire.CameraFacts, ...]]
    deadline_ms: Callable[[str], int]  # where a trigger names none


class Desk:
    """Takes triggers from clients and hands answers to them."""

    def __init__(self, port: Port, *, station: str, epoch: int, hooks: DeskHooks) -> None:
        """Nobody is connected.

        Args:
            port: the trigger socket.
            station: for WELCOME.
            epoch: the broker's.
            hooks: see there.
        """
        self.peers = Peers()
        self._port = port
        self._station = station
        self._epoch = epoch
        self._hooks = hooks

    def on_message(self, route: bytes, message: Message, now_ns: int) -> None:
        """Something came from a client."""
        header = message.header
        if isinstance(header, wire.ClientHello):
            self._hello(route, header, now_ns)
            return
        peer = self.peers.heard(route, now_ns)
        if peer is None:
            given = header if isinstance(header, wire.Trigger) else None
            self._port.refuse(
                route,
                Code.HELLO_FIRST,
                "the service does not know this connection: send HELLO, then retry",
                trigger_id=None if given is None else given.trigger_id,
                epoch=None if given is None else given.epoch,
            )
        elif isinstance(header, wire.Trigger):
            self._trigger(peer, header, message.pixels, now_ns)
        else:
            state, reason = self._hooks.state()
            self._port.send(route, wire.Heartbeat(epoch=self._epoch, state=state, reason=reason[:2000]))

    def deliver(self, answer: Answer) -> None:
        """Send an answer to its client, or a stream's to who follows it. Who is not there can ask again."""
        if answer.client.startswith(STREAM_CLIENT):
            for peer in self.peers:
                if answer.camera in peer.follow:
                    self._port.send(peer.route, answer)
        else:
            asked = self.peers.named(answer.client)
            self._port.send(None if asked is None else asked.route, answer)
        log.info(
            "answered",
            trigger_id=answer.trigger_id,
            client=answer.client,
            camera=answer.camera,
            verdict=answer.verdict,
            reason=answer.reason,
            detail=answer.detail or None,
            seq=answer.seq,
            total_ms=answer.timings_ms.total,
            expired=answer.expired or None,
        )

    def queued(self, key: Key) -> None:
        """Tell a client that its trigger is on disk."""
        peer = self.peers.named(key.client)
        if peer is not None:
            self._port.send(peer.route, wire.Queued(epoch=key.epoch, trigger_id=key.trigger_id))

    def tick(self, now_ns: int) -> None:
        """Forget clients that went silent; their answers are in the journal."""
        for peer in self.peers.lapsed(now_ns):
            log.info("client_lost", client=peer.name)

    def _hello(self, route: bytes, hello: wire.ClientHello, now_ns: int) -> None:
        peer = self.peers.admit(hello.name, hello.instance, route, now_ns)
        if peer is None:
            self._port.refuse(
                route, Code.NAME_IN_USE, f"a live client has the name {hello.name}: retry after {LAPSE_MS} ms"
            )
            return
        peer.follow = hello.follow
        log.info("client_connected", client=hello.name)
        welcome = wire.ClientWelcome(
            station=self._station,
            epoch=self._epoch,
            heartbeat_ms=HEARTBEAT_MS,
            lapse_ms=LAPSE_MS,
            state=self._hooks.state()[0],
            cameras=self._hooks.cameras(),
        )
        self._port.send(route, welcome)

    def _trigger(self, peer: Peer, header: wire.Trigger, pixels: Buffer | None, now_ns: int) -> None:
        deadline_ms = header.deadline_ms or self._hooks.deadline_ms(header.camera)
        acceptance = Acceptance(
            key=Key(client=peer.name, epoch=header.epoch, trigger_id=header.trigger_id),
            camera=header.camera,
            part_id=header.part_id,
            content=content_digest(header, deadline_ms, pixels),
            deadline_ms=deadline_ms,
            received_ns=now_ns,
            received_utc=utc_now(),
        )
        self._hooks.triggered(acceptance, header, pixels)


def content_digest(header: wire.Trigger, deadline_ms: int, pixels: Buffer | None) -> str:
    """What makes two triggers of one id the same: camera, part, deadline and frame."""
    digest = hashlib.blake2b(digest_size=16)
    said = header.model_copy(update={"deadline_ms": deadline_ms}).model_dump_json()
    digest.update(said.encode())
    if pixels is not None:
        digest.update(pixels)
    return digest.hexdigest()


def monotonic_ns() -> int:
    """The only clock that durations are computed from."""
    return time.monotonic_ns()
