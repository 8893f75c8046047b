"""The addresses of a service are on loopback, five of them after the first."""

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.protocol.endpoints import parse_endpoint


def test_the_sockets_lie_behind_the_first_port() -> None:
    found = parse_endpoint("tcp://127.0.0.1:5600")
    assert [found.triggers, found.frames, found.records, found.control, found.workers] == [
        f"tcp://127.0.0.1:{port}" for port in (5600, 5601, 5602, 5603, 5605)
    ]


@pytest.mark.parametrize(
    ("text", "triggers"),
    [
        ("tcp://localhost:1", "tcp://127.0.0.1:1"),
        ("tcp://127.0.0.1:65530", "tcp://127.0.0.1:65530"),
        ("tcp://127.1.2.3:9", "tcp://127.1.2.3:9"),
    ],
)
def test_every_name_of_loopback_is_taken(text: str, triggers: str) -> None:
    assert parse_endpoint(text).triggers == triggers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1:5600", "is no address"),
        ("ipc:///tmp/a", "is no address"),
        ("tcp://127.0.0.1", "is no address"),
        ("tcp://127.0.0.1:port", "is no address"),
        ("tcp://127.0.0.1:5600/x", "is no address"),
        ("tcp://127.0.0.1:99999", "is no address"),
        ("tcp://[::1:5600", "is no address"),
        ("tcp://127.0.0.1:0", "leaves no room"),
        ("tcp://127.0.0.1:65531", "leaves no room"),
        ("tcp://[::1]:5600", "is not this host's loopback"),
        ("tcp://0.0.0.0:5600", "is not this host's loopback"),
        ("tcp://*:5600", "is not this host's loopback"),
        ("tcp://192.168.1.5:5600", "is not this host's loopback"),
        ("tcp://plant.example:5600", "is not this host's loopback"),
    ],
)
def test_any_other_address_is_refused_and_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_endpoint(text, "line.toml: endpoint")
    assert str(caught.value).startswith("line.toml: endpoint: ")
