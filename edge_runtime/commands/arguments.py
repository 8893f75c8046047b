"""Owns what the commands' argument parsers share."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.formats import PixelFormat, parse_pixel_format
from edge_runtime.imaging.frames import Size


class Parser(argparse.ArgumentParser):
    """An argument parser whose faults are `ConfigError`s, like every other fault of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process.

        Raises:
            ConfigError: always.
        """
        text = f"{message}\n{self.format_usage().rstrip()}"
        raise ConfigError(text)


def add_budget(parser: "argparse._ArgumentGroup | Parser") -> None:
    """The flags of what one inspection may take."""
    parser.add_argument("--deadline-ms", type=positive, metavar="N", help="time that inspecting one frame may take")
    parser.add_argument("--memory-mb", type=positive, metavar="N", help="memory of a process that inspects")


def positive(text: str) -> int:
    """A whole number of 1 or more, as a flag's type.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is not a whole number of 1 or more"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def frame_size(text: str) -> Size:
    """`WxH` in pixels, as a flag's type.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        message = f"{text!r} is not of the form WxH, such as 4096x3000"
        raise argparse.ArgumentTypeError(message)
    return Size(int(width), int(height))


def pixel_format(text: str) -> PixelFormat:
    """A pixel format's name, as a flag's type.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return parse_pixel_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder(text: str) -> Path:
    """An output folder, made if need be.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    path = Path(text)
    probe = path / ".takt-probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"{path}: cannot be written to ({error.strerror}): choose another folder"
        raise ConfigError(message) from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write one output file, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # a path below a file cannot even be looked at
            temporary.unlink(missing_ok=True)
        message = f"{path}: cannot be written ({error.strerror}): free space or choose another folder"
        raise ConfigError(message) from error
