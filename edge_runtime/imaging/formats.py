"""Owns the names of pixel formats and what each of them means: channels, word, depth and mosaic."""

from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np

Pattern: TypeAlias = Literal["rg", "gr", "gb", "bg"]  # colours of the first two pixels of the first row


class PixelFormat(StrEnum):
    """Layout of a frame's pixels, in the names that cameras use: GenICam's PFNC in small letters.

    The number is the depth in bits. 8 bits come in bytes, all others in words of 16 bits, their low bits used. 10, 12 and
    14 bits are a promise: no pixel is larger. 16 bits promise nothing: drivers and files give deep pixels of any depth so.
    """

    MONO8 = "mono8"
    MONO10 = "mono10"
    MONO12 = "mono12"
    MONO14 = "mono14"
    MONO16 = "mono16"
    RGB8 = "rgb8"
    RGB10 = "rgb10"
    RGB12 = "rgb12"
    RGB14 = "rgb14"
    RGB16 = "rgb16"
    BGR8 = "bgr8"
    BGR10 = "bgr10"
    BGR12 = "bgr12"
    BGR14 = "bgr14"
    BGR16 = "bgr16"
    BAYER_RG8 = "bayerrg8"
    BAYER_RG10 = "bayerrg10"
    BAYER_RG12 = "bayerrg12"
    BAYER_RG14 = "bayerrg14"
    BAYER_RG16 = "bayerrg16"
    BAYER_GR8 = "bayergr8"
    BAYER_GR10 = "bayergr10"
    BAYER_GR12 = "bayergr12"
    BAYER_GR14 = "bayergr14"
    BAYER_GR16 = "bayergr16"
    BAYER_GB8 = "bayergb8"
    BAYER_GB10 = "bayergb10"
    BAYER_GB12 = "bayergb12"
    BAYER_GB14 = "bayergb14"
    BAYER_GB16 = "bayergb16"
    BAYER_BG8 = "bayerbg8"
    BAYER_BG10 = "bayerbg10"
    BAYER_BG12 = "bayerbg12"
    BAYER_BG14 = "bayerbg14"
    BAYER_BG16 = "bayerbg16"

    @property
    def depth(self) -> int:
        """Bits a channel: 8, 10, 12, 14 or 16."""
        return int(self.lstrip("abcdefghijklmnopqrstuvwxyz"))

    @property
    def states_depth(self) -> bool:
        """Whether no pixel can be larger than the depth allows; 16-bit words may hold less than 16 bits."""
        return self.depth != 16  # noqa: PLR2004 - bits

    @property
    def layout(self) -> str:
        """The name without the depth: `mono`, `rgb`, `bgr`, `bayerrg` and so on."""
        return self.removesuffix(str(self.depth))

    @property
    def pattern(self) -> Pattern | None:
        """The colours of a mosaic's first two pixels; None where every pixel has all its channels."""
        found: dict[str, Pattern] = {"bayerrg": "rg", "bayergr": "gr", "bayergb": "gb", "bayerbg": "bg"}
        return found.get(self.layout)

    @property
    def channels(self) -> int:
        """Of the pixels as they come: 1 or 3; a mosaic has 1."""
        return 3 if self.layout in {"rgb", "bgr"} else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned integers of 8 or 16 bits."""
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)  # noqa: PLR2004 - bits

    @property
    def canonical(self) -> "PixelFormat":
        """The same depth as graphs take it: mono, or RGB for BGR and for mosaics."""
        return self if self.layout in {"mono", "rgb"} else self.colour

    @property
    def colour(self) -> "PixelFormat":
        """RGB of the same depth."""
        return PixelFormat(f"rgb{self.depth}")

    def of_depth(self, depth: int) -> "PixelFormat":
        """The same layout in another depth.

        Raises:
            ValueError: no format has that depth.
        """
        return PixelFormat(f"{self.layout}{depth}")

    def promised_by(self, source: "PixelFormat") -> "PixelFormat":
        """This format as far as pixels of a source keep to its depth: words of 16 bits where the source promises nothing."""
        return self if source.states_depth else self.of_depth(16)

    def goes_into(self, target: "PixelFormat") -> bool:
        """Whether pixels of this format become a canonical one's whatever they show: nothing is lost or made up."""
        same_word = self.dtype == target.dtype and (self.depth == target.depth or not self.states_depth)
        return same_word and self.canonical.channels <= target.channels


def parse_pixel_format(text: str) -> PixelFormat:
    """A format by its name, in any case, as data sheets write it: `Mono12`, `BayerRG8`.

    Raises:
        ValueError: there is no such format.
    """
    try:
        return PixelFormat(text.lower())
    except ValueError as error:
        message = (
            f"{text!r} is no pixel format: Mono, RGB, BGR, BayerRG, BayerGR, BayerGB or BayerBG and 8, 10, 12, 14 or 16, "
            "such as Mono12 or BayerRG8; packed forms are unpacked by who takes them from the camera"
        )
        raise ValueError(message) from error
