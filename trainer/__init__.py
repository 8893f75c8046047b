"""The workstation's half of Takt: fits a model on good images and hands it to calibration as a draft. Needs torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.building import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever `build` exports
    """Import the build when it is first asked for: torch takes seconds to import."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from trainer.building import build  # noqa: PLC0415

    return build
