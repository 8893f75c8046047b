"""Thresholds, rates and figures: from scored images to a sealed bundle. Needs no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibration.evaluation import evaluate
    from calibration.recalibration import calibrate
    from calibration.sealing import seal

_HOMES = {"evaluate": "evaluation", "calibrate": "recalibration", "seal": "sealing"}

__all__ = ["calibrate", "evaluate", "seal"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the module exports
    """Import a function when it is first asked for: engines take a second to import."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"calibration.{_HOMES[name]}"), name)
