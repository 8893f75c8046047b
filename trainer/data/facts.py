"""Owns what a build must know of each image before any is cut: size, format, darkest and brightest value."""

from dataclasses import dataclass

import numpy as np

from calibration.samples import Sample
from edge_runtime.imaging.frames import PixelFormat, Size, read_image
from trainer.data.plane_cache import PlaneCache
from trainer.data.planes import unchanged

_FORMATS = tuple(PixelFormat)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """Of one image file."""

    size: Size
    format: PixelFormat
    lowest: int
    highest: int


def look(sample: Sample, stated: PixelFormat | None, cache: PlaneCache | None) -> ImageFacts:
    """Decode an image, unless its facts are known; `stated` is what its pixels are where the file cannot tell.

    Raises:
        DataError: it cannot be read.
    """
    key = {"kind": "facts", "image": sample.digest, "formats": list(_FORMATS), "stated": stated}
    known = None if cache is None else cache.get(key)
    if known is not None and known.shape == (5,):
        width, height, index, lowest, highest = (int(value) for value in known)
        return ImageFacts(size=Size(width, height), format=_FORMATS[index], lowest=lowest, highest=highest)
    frame = read_image(sample.path, stated)
    facts = ImageFacts(
        size=frame.size, format=frame.format, lowest=int(frame.pixels.min()), highest=int(frame.pixels.max())
    )
    if cache is not None and unchanged(sample):
        values = [*facts.size, _FORMATS.index(facts.format), facts.lowest, facts.highest]
        cache.put(key, np.array(values, np.int64))
    return facts
