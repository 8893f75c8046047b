"""Owns the addresses of the service's sockets: five ports in a row, on loopback."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_runtime.errors import ConfigError

_LAST_PORT = 65_535 - 5


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The sockets of one service, from the trigger socket's address."""

    host: str
    port: int

    @property
    def triggers(self) -> str:
        """Triggers and answers."""
        return self._at(0)

    @property
    def frames(self) -> str:
        """Frames of cameras."""
        return self._at(1)

    @property
    def records(self) -> str:
        """The record stream."""
        return self._at(2)

    @property
    def control(self) -> str:
        """Status and commands."""
        return self._at(3)

    @property
    def workers(self) -> str:
        """The broker's own workers; PORT+4 is kept for the live view."""
        return self._at(5)

    def _at(self, offset: int) -> str:
        return f"tcp://{self.host}:{self.port + offset}"


def parse_endpoint(text: str, name: str = "endpoint") -> Endpoints:
    """Read `tcp://127.0.0.1:PORT`.

    Raises:
        ConfigError: it is no such address, or not of this host: without keys, nothing else is safe.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not text.startswith("tcp://") or host is None or port is None or parts.path or parts.query:
        message = f"{name}: {text!r} is no address, expected tcp://127.0.0.1:PORT"
        raise ConfigError(message)
    if not 1 <= port <= _LAST_PORT:
        message = f"{name}: port {port} leaves no room for the five sockets after it, expected 1 to {_LAST_PORT}"
        raise ConfigError(message)
    host = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        message = (
            f"{name}: {host} is not this host's loopback: without encryption keys every other address is refused; "
            "use tcp://127.0.0.1:PORT, or a tunnel that ends there"
        )
        raise ConfigError(message)
    return Endpoints(host, port)
