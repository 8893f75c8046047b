"""Processes that have no torch, whatever is installed: packages of its name stand in front of it and refuse to be imported."""

import os
from pathlib import Path

ABSENT = ("torch", "torchvision", "timm")
_CODE = """
from pathlib import Path

with (Path(__file__).parent.parent / "asked").open("a") as file:
    file.write(__name__ + "\\n")
raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
"""


class WithoutTorch:
    """A folder of refusing packages, and an environment that finds them first."""

    def __init__(self, folder: Path) -> None:
        """Write the packages."""
        self._folder = folder
        for name in ABSENT:
            package = folder / name
            package.mkdir(parents=True)
            package.joinpath("__init__.py").write_text(_CODE, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """What to start a process with; its children inherit it."""
        path = os.environ.get("PYTHONPATH")
        return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(self._folder), *([path] if path else [])])}

    @property
    def asked(self) -> list[str]:
        """Names that were asked for all the same: trying and forgiving would show here."""
        file = self._folder / "asked"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
