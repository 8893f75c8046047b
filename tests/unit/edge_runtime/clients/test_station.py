from edge_runtime.clients.station import read_station
from edge_runtime.commands.status import screen


def test_a_station_that_has_answered_nothing_yet_can_be_shown() -> None:
    nothing = {"n": 0, "accept": None, "review": None, "reject": None, "error": None}
    spread = {"p50": None, "p90": None, "p99": None, "max": None, "n": 0}
    bundle = {"product": "flange", "digest": "ab" * 32, "path": "/b.takt", "artefact": None}
    camera = {"name": "top", "bundle": bundle, "staged": None, "recent": nothing, "latency_ms": {"total": spread}}
    station = read_station({"station": "line 1", "state": "Preoperational", "reason": None, "cameras": [camera]})
    assert station.cameras[0].recent.accept == 0.0
    assert "NOT READY  line 1  Preoperational" in "\n".join(screen(station))
