"""The runtime of Takt: from a sealed bundle and a frame to a verdict. Needs no torch, no GPU and no network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.imaging.frames import Frame, PixelFormat
    from edge_runtime.inspector import Inspection, Inspector

__all__ = ["Frame", "Inspection", "Inspector", "PixelFormat"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the modules export
    """Import what is asked for when it is: neither `takt --help` nor a gateway may wait for an inference engine."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    if name in {"Frame", "PixelFormat"}:
        from edge_runtime.imaging import frames  # noqa: PLC0415

        return getattr(frames, name)
    from edge_runtime import inspector  # noqa: PLC0415

    return getattr(inspector, name)
