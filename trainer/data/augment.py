"""Owns what a tile is seen as besides itself: mirrored, turned, in another light. Drawn by seed and place, never by order."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_runtime.imaging.frames import Pixels

GAIN = 0.1  # a light's gain lies between 1 - GAIN and 1 + GAIN
OFFSET = 0.05  # its offset between -OFFSET and OFFSET, shares of white

SeenTile: TypeAlias = tuple[Pixels, NDArray[np.bool_]]
_Kind = TypeVar("_Kind", bound=np.generic)


class Augmentation(StrEnum):
    """What `--augment` calls a kind."""

    FLIP_X = "flip_x"  # left and right swapped
    FLIP_Y = "flip_y"  # top and bottom swapped
    TURN = "turn"  # by one, two or three right angles
    LIGHT = "light"  # gain and offset

    @property
    def moves(self) -> bool:
        """Whether what the tile shows lies elsewhere afterwards."""
        return self is not Augmentation.LIGHT


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """How every tile is seen: as it is, then once per kind."""

    kinds: tuple[Augmentation, ...] = ()
    seed: int = 0
    white: int = 255  # the sensor's largest value

    @property
    def count(self) -> int:
        """How many views a tile has."""
        return 1 + len(self.kinds)

    def of(self, tile: Pixels, kept: NDArray[np.bool_], place: tuple[int, ...]) -> Iterator[SeenTile]:
        """All views of a tile with the cells that count in each.

        Args:
            tile: (H, W, C), core and halo.
            kept: (h, w) at the feature grid.
            place: numbers that no other tile of the fit has; what is drawn depends on them and the seed alone.
        """
        yield tile, kept
        for kind in self.kinds:
            rng = np.random.default_rng([self.seed, *place, list(Augmentation).index(kind)])
            match kind:
                case Augmentation.FLIP_X:
                    yield _whole(tile[:, ::-1]), _whole(kept[:, ::-1])
                case Augmentation.FLIP_Y:
                    yield _whole(tile[::-1]), _whole(kept[::-1])
                case Augmentation.TURN:
                    quarters = int(rng.integers(1, 4))
                    yield _whole(np.rot90(tile, quarters)), _whole(np.rot90(kept, quarters))
                case Augmentation.LIGHT:
                    yield self._lit(tile, rng), kept

    def _lit(self, tile: Pixels, rng: np.random.Generator) -> Pixels:
        gain, offset = rng.uniform(1 - GAIN, 1 + GAIN), self.white * rng.uniform(-OFFSET, OFFSET)
        lit = tile.astype(np.float32) * np.float32(gain) + np.float32(offset)
        return np.asarray(np.clip(np.rint(lit), 0, self.white).astype(tile.dtype))


def _whole(view: NDArray[_Kind]) -> NDArray[_Kind]:
    """Torch takes no negative strides."""
    return np.ascontiguousarray(view)
