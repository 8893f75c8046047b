"""Owns the entry of every child process: `python -m edge_runtime.service.child broker|worker|camera`."""

import sys
import threading

import structlog

from edge_runtime.errors import TaktError
from edge_runtime.service import lifeline, logs


def main() -> int:
    """Take the order and do it; what fails is told to the supervisor, with the exit code of the error."""
    kind = sys.argv[1]
    order = lifeline.take_order()
    logs.configure(f"{kind}:{order['name']}" if "name" in order else kind)
    try:
        if kind == "broker":
            from edge_runtime.service.broker import run_broker  # noqa: PLC0415 - each child imports what it needs

            run_broker(order)
        elif kind == "worker":
            from edge_runtime.service.worker import run_worker  # noqa: PLC0415

            run_worker(order)
        else:
            _run_camera(order)
    except TaktError as error:
        structlog.get_logger().error("failed", detail=str(error))
        lifeline.say("failed", detail=str(error), exit_code=error.exit_code)
        return error.exit_code
    return 0


def _run_camera(order: dict[str, object]) -> None:
    from edge_runtime.camera.process import run_camera  # noqa: PLC0415
    from edge_runtime.service.config import CameraFile  # noqa: PLC0415

    stop = threading.Event()
    line = lifeline.Lifeline(stop.set)  # any command is the one to stop, and so is the supervisor's death
    line.start()
    run_camera(CameraFile.model_validate_json(str(order["config"])), stop)


if __name__ == "__main__":
    sys.exit(main())
