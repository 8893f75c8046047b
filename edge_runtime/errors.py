"""Owns the error tree; every error a user can meet descends from `TaktError`.

    TaktError
    ├── ConfigError                 a flag, a configuration file, a path given by the user
    ├── CameraError                 a source of frames
    ├── EngineError                 an inference engine could not load or run a graph
    ├── OutOfTimeError              a frame's time ran out before it was scored
    ├── ProtocolError               a message on the wire
    ├── BundleError                 a bundle or a draft
    │   ├── ManifestError           the manifest is not what the schema demands
    │   ├── UnsupportedFormatError  a format version that this release does not read
    │   ├── DigestMismatchError     a member's bytes are not those that were sealed
    │   ├── SignatureError          a missing or wrong signature where the site demands one
    │   └── SelfTestError           the golden frames came out otherwise on this machine
    ├── CalibrationError            a policy cannot be met
    │   └── TooFewSamplesError      it needs more images
    ├── DataError                   an image, a mask, a data set
    └── ExportError                 a model could not be exported
        └── ParityError             the exported graph does not compute what torch computed

A message names the thing, what was found, what was expected and what to do.
"""

from typing import ClassVar


class TaktError(Exception):
    """Root of all errors that Takt raises on purpose; `exit_code` is the command's exit status."""

    exit_code: ClassVar[int] = 1


class ConfigError(TaktError):
    """A flag, a setting or a path given by the user cannot be used."""

    exit_code: ClassVar[int] = 2


class CameraError(TaktError):
    """A source of frames cannot be opened or stopped giving frames."""


class EngineError(TaktError):
    """An inference engine could not load or run a graph."""


class OutOfTimeError(TaktError):
    """A frame's time ran out, or was sure to, before all its tiles were scored."""


class ProtocolError(TaktError):
    """A message breaks the wire protocol."""


class BundleError(TaktError):
    """A bundle or a draft cannot be read, trusted or written."""

    exit_code: ClassVar[int] = 3


class ManifestError(BundleError):
    """The manifest is not what the schema demands; the message holds the path of the bad field."""


class UnsupportedFormatError(BundleError):
    """The bundle's format version is not read by this release."""


class DigestMismatchError(BundleError):
    """A member's bytes are not the bytes that were sealed."""


class SignatureError(BundleError):
    """The site demands a signature and the bundle's is missing or wrong."""


class SelfTestError(BundleError):
    """The golden frames gave other maps or scores on this machine than when they were sealed."""


class CalibrationError(TaktError):
    """A threshold policy cannot be met on the images at hand."""

    exit_code: ClassVar[int] = 4


class TooFewSamplesError(CalibrationError):
    """The policy needs more images than there are."""


class DataError(TaktError):
    """An image, a mask or a data set is not usable."""

    exit_code: ClassVar[int] = 5


class ExportError(TaktError):
    """A model could not be exported to a graph."""

    exit_code: ClassVar[int] = 3


class ParityError(ExportError):
    """The exported graph does not compute what torch computed: no bundle is made of it."""
