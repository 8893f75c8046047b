"""Owns who is there: names, the instance that holds each, and when it was last heard."""

from collections.abc import Iterator
from dataclasses import dataclass, field

HEARTBEAT_MS = 500
LAPSE_MS = 2000


@dataclass(slots=True)
class Peer:
    """A live peer."""

    name: str
    instance: str
    route: bytes
    heard_ns: int
    follow: tuple[str, ...] = field(default=())


class Peers:
    """The peers of one socket. ZeroMQ's routing ids stay ZeroMQ's: identity is the name and the instance in HELLO."""

    def __init__(self) -> None:
        """Nobody is there."""
        self._by_name: dict[str, Peer] = {}
        self._by_route: dict[bytes, Peer] = {}

    def admit(self, name: str, instance: str, route: bytes, now_ns: int) -> Peer | None:
        """Give a name to who asks; None where another live instance has it.

        The instance that has the name takes it back at once, on whatever connection it comes.
        """
        held = self._by_name.get(name)
        if held is not None and held.instance != instance and now_ns - held.heard_ns < LAPSE_MS * 1_000_000:
            return None
        if held is not None:
            self.drop(held)
        peer = Peer(name, instance, route, now_ns)
        self._by_name[name] = self._by_route[route] = peer
        return peer

    def heard(self, route: bytes, now_ns: int) -> Peer | None:
        """The peer on a route, noted as alive; None where nobody said HELLO there."""
        peer = self._by_route.get(route)
        if peer is not None:
            peer.heard_ns = now_ns
        return peer

    def at(self, route: bytes) -> Peer | None:
        """The peer on a route."""
        return self._by_route.get(route)

    def named(self, name: str) -> Peer | None:
        """The peer that has a name."""
        return self._by_name.get(name)

    def lapsed(self, now_ns: int) -> list[Peer]:
        """Peers that were silent too long; they are dropped."""
        found = [peer for peer in self._by_name.values() if now_ns - peer.heard_ns >= LAPSE_MS * 1_000_000]
        for peer in found:
            self.drop(peer)
        return found

    def drop(self, peer: Peer) -> None:
        """Forget a peer."""
        if self._by_route.get(peer.route) is peer:  # else another name said HELLO on the same connection
            del self._by_route[peer.route]
        if self._by_name.get(peer.name) is peer:
            del self._by_name[peer.name]

    def __iter__(self) -> Iterator[Peer]:
        """All peers, in the order of their coming."""
        return iter(tuple(self._by_name.values()))
