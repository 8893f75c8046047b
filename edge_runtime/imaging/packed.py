"""Owns the packed forms of pixels: GenICam's `Mono10p`, `Mono12p`, `BayerRG12p` and their kin, taken apart.

Takt passes on words of 16 bits only. A driver that hands over packed buffers unpacks them here, before a frame is made.
"""

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.imaging.frames import Frame, Size

_GROUPS = {10: (4, 5), 12: (2, 3)}  # by depth: so many pixels lie in so many bytes


def unpack(data: bytes | memoryview | NDArray[np.uint8], size: Size, pixel_format: PixelFormat) -> Frame:
    """Take a packed buffer apart: a stream of bits, lowest first, without gaps between pixels or rows (PFNC's `p`).

    Not the older `Mono12Packed` of GigE Vision, whose bits lie elsewhere.

    Args:
        data: the buffer; bits left over in its last byte are ignored.
        size: of the frame.
        pixel_format: what is packed, one channel of 10 or 12 bits: MONO12 for a camera's `Mono12p`.

    Raises:
        DataError: the format has no packed form, or the buffer is not of the frame's length.
    """
    packed = np.frombuffer(data, dtype=np.uint8)
    group = _GROUPS.get(pixel_format.depth)
    if group is None or pixel_format.channels != 1:
        message = f"{pixel_format}: has no packed form here; give mono or Bayer of 10 or 12 bits, such as mono12"
        raise DataError(message)
    count = size.width * size.height
    expected = -(-count * pixel_format.depth // 8)
    if min(size) < 1 or packed.size != expected:
        message = (
            f"{packed.size} bytes of packed {pixel_format}, expected {expected} for {size}: "
            "check the frame's size, and that rows are sent without padding"
        )
        raise DataError(message)
    pixels, octets = group
    whole = np.zeros((-(-count // pixels), octets), dtype=np.uint64)
    whole.reshape(-1)[:expected] = packed
    words = np.zeros(len(whole), dtype=np.uint64)
    for index in range(octets):
        words |= whole[:, index] << np.uint64(8 * index)
    mask = np.uint64(2**pixel_format.depth - 1)
    apart = np.stack([words >> np.uint64(pixel_format.depth * index) & mask for index in range(pixels)], axis=1)
    return Frame(apart.astype(np.uint16).reshape(-1)[:count].reshape(size.height, size.width), pixel_format)
