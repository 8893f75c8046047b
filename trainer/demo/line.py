"""Owns the demo's line: a service as a user starts it, and every unseen part triggered over its socket."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.clients import Gateway
from edge_runtime.commands.trigger import as_json
from edge_runtime.errors import TaktError
from edge_runtime.service.monitor import STAGES, percentiles
from trainer.serving import Service, free_endpoint, write_line

CAMERA = "flange"
_DEADLINE_MS = 5000  # generous: the demo may run on any machine
_READY_S = 120.0
_CONNECT_S = 10.0
_CLIENT = "client"  # from the call to the result, as the client measures it


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What became of the parts on the line."""

    rows: list[dict[str, Any]]  # one for each part, with the keys of `takt trigger --json`
    latency_ms: dict[str, dict[str, float | int | None]]  # by stage, and for the client
    config: Path
    endpoint: str
    ready_s: float
    exit_code: int

    @property
    def errors(self) -> int:
        """Triggers whose answer was ERROR, and those without one."""
        return sum(row["verdict"] == "ERROR" for row in self.rows)


def run_line(out: Path, parts: int) -> Served:
    """Serve the bundle to a folder camera over the unseen parts, and trigger each part once.

    Args:
        out: has `flange.takt` and `unseen/test`; `line.toml`, the run folder and the log go there.
        parts: how many images there are.

    Raises:
        TaktError: the service does not start, does not answer, or does not stop as it should.
    """
    endpoint = free_endpoint()
    station: dict[str, str | int] = {"station": "demo", "run_dir": "run", "endpoint": endpoint}
    camera: dict[str, str | int] = {
        "name": CAMERA,
        "bundle": "flange.takt",
        "source": "folder:unseen/test",
        "deadline_ms": _DEADLINE_MS,
    }
    config = write_line(out / "line.toml", station, [camera])
    with Service(config, endpoint, log=out / "service.jsonl") as service:
        ready_s = service.wait_ready(_READY_S)
        with Gateway(endpoint, name="demo") as gateway:
            if not gateway.wait_connected(_CONNECT_S):
                message = f"the service does not take the client: {gateway.refusal or 'no answer'}"
                raise TaktError(message)
            results = [gateway.inspect(camera=CAMERA, part_id=f"part-{number + 1}") for number in range(parts)]
        exit_code = service.stop()
    if exit_code:
        message = f"takt serve ended with exit code {exit_code} after SIGTERM, expected 0: see {service.log}"
        raise TaktError(message)
    latency_ms = {
        stage: percentiles(
            value for result in results if (value := getattr(result.answer.timings_ms, stage)) is not None
        )
        for stage in STAGES
    }
    latency_ms[_CLIENT] = percentiles(result.latency_ms for result in results)
    return Served(
        rows=[as_json(result) for result in results],
        latency_ms=latency_ms,
        config=config,
        endpoint=endpoint,
        ready_s=ready_s,
        exit_code=exit_code,
    )
