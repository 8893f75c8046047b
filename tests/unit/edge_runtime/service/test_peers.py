"""A name belongs to one live instance; its connections come and go."""

from edge_runtime.service.peers import LAPSE_MS, Peers

LAPSE = LAPSE_MS * 1_000_000


def test_a_second_live_instance_is_refused_until_the_first_has_lapsed() -> None:
    peers = Peers()
    assert peers.admit("plc", "a", b"1", 0) is not None
    assert peers.admit("plc", "b", b"2", LAPSE - 1) is None
    peers.heard(b"1", LAPSE - 1)
    assert peers.admit("plc", "b", b"2", LAPSE) is None
    peer = peers.admit("plc", "b", b"2", 2 * LAPSE - 1)
    assert peer is not None
    assert peers.named("plc") is peer
    assert peers.heard(b"1", 2 * LAPSE) is None


def test_the_same_instance_takes_its_name_back_at_once_on_another_connection() -> None:
    peers = Peers()
    peers.admit("plc", "a", b"1", 0)
    peer = peers.admit("plc", "a", b"2", 1)
    assert peer is not None
    assert (peers.at(b"1"), peers.at(b"2")) == (None, peer)
    assert len(list(peers)) == 1


def test_a_silent_peer_lapses_and_one_that_is_heard_does_not() -> None:
    peers = Peers()
    peers.admit("plc", "a", b"1", 0)
    peers.admit("mes", "b", b"2", 0)
    peers.heard(b"2", 5)
    assert [peer.name for peer in peers.lapsed(LAPSE)] == ["plc"]
    assert [peer.name for peer in peers] == ["mes"]
    assert peers.named("plc") is None
    assert peers.at(b"1") is None
    assert peers.lapsed(LAPSE) == []


def test_two_names_on_one_connection_lapse_each_by_itself() -> None:
    """A peer that says HELLO again under another name must not take the new name down with the old one."""
    peers = Peers()
    peers.admit("old", "a", b"1", 0)
    new = peers.admit("new", "a", b"1", LAPSE // 2)
    assert [peer.name for peer in peers.lapsed(LAPSE)] == ["old"]
    assert peers.heard(b"1", LAPSE) is new
    assert peers.named("new") is new


def test_nobody_is_known_by_a_route_or_a_name_that_never_said_hello() -> None:
    peers = Peers()
    assert peers.heard(b"1", 0) is None
    assert peers.named("plc") is None
    assert list(peers) == []
