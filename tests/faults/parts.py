"""Parts whose truth anybody can tell from their names: `d200-7` has its brightest pixel at 200 and must be rejected."""

import random
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 96, 64
LIMIT = 128  # of the stub bundle: from here on a part is defective
WHITE = 255  # the stub's score is not finite
_WHITE_SHARE = 0.03


class Truth(NamedTuple):
    """What the one right answer is."""

    verdict: str
    reason: str | None
    score: float | None


def truth_of(value: int) -> Truth:
    """The right answer for a frame whose brightest pixel has this value."""
    if value >= WHITE:
        return Truth("ERROR", "NOT_FINITE", None)
    return Truth("REJECT" if value >= LIMIT else "ACCEPT", None, float(value))


def name_part(value: int, serial: str) -> str:
    """`g060-SERIAL` for good parts, `d200-SERIAL` for defective ones, `n255-SERIAL` for what no score fits."""
    letter = {"ACCEPT": "g", "REJECT": "d", "ERROR": "n"}[truth_of(value).verdict]
    return f"{letter}{value:03d}-{serial}"


def value_of(name: str) -> int:
    """The brightest pixel of a part, or of a frame's file, from its name."""
    if name[:1] not in {"g", "d", "n"} or not name[1:4].isdecimal():
        message = f"{name!r} is not named as a part of this campaign"
        raise ValueError(message)
    return int(name[1:4])


def draw_value(draw: random.Random) -> int:
    """As many good parts as defective ones, a few white, none so near the limit that it could be argued about."""
    if draw.random() < _WHITE_SHARE:
        return WHITE
    return draw.randrange(8, LIMIT - 4) if draw.random() < 0.5 else draw.randrange(LIMIT + 4, WHITE)


def paint(value: int, draw: random.Random) -> NDArray[np.uint8]:
    """(H, W) mono8: a dark frame with one bright cell of exactly this value somewhere."""
    frame = np.full((HEIGHT, WIDTH), value // 2, dtype=np.uint8)
    row, column = draw.randrange(HEIGHT - 8), draw.randrange(WIDTH - 8)
    frame[row : row + 8, column : column + 8] = value
    return frame


def write_folder(folder: Path, seed: int, count: int = 24) -> None:
    """Images for a folder camera, named like parts."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for index in range(count):
        value = draw_value(draw)
        cv2.imwrite(str(folder / f"{name_part(value, f'{index:03d}')}.png"), paint(value, draw))
