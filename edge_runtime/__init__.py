"""The runtime of Takt: from a sealed bundle and a frame to a verdict. Needs no torch, no GPU and no network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.imaging.frames import Frame, PixelFormat
    from edge_runtime.inspector import Inspection, Inspector

__all__ = ["Frame", "Inspection", "Inspector", "PixelFormat"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever `inspector` exports
    """Import the inspector when it is first asked for: `takt --help` must not wait for an inference engine."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from edge_runtime import inspector  # noqa: PLC0415

    return getattr(inspector, name)
