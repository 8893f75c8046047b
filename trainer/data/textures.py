"""Owns textures: pictures of a folder, or drawn ones of several families, for whatever must not look like a good part.

Drawn textures are Takt's own formulas and carry nobody's licence. They are less various than photographs: a folder of
pictures serves better where there is one.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import IMAGE_SUFFIXES, PixelFormat, Size, read_image
from edge_runtime.imaging.resize import resize
from trainer.data.perlin import perlin

Texture: TypeAlias = NDArray[np.float32]  # (H, W, 3) RGB in [0, 1]
_Field: TypeAlias = NDArray[np.float32]  # (H, W), any range

_SEEDS = 2**62


class Textures(Protocol):
    """A source of textures."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Texture:
        """One texture, all chance from `rng`."""


class DrawnTextures:
    """Textures of formulas: clouds, marble, stripes, checks, cells, specks and fibres in random colours."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Texture:
        """One texture of a drawn family."""
        family = FAMILIES[int(rng.integers(len(FAMILIES)))]
        return _coloured(rng, family(rng, height, width))


class PictureTextures:
    """The pictures of a folder and of those below it, each scaled to what is asked for."""

    def __init__(self, folder: Path) -> None:
        """List the pictures.

        Raises:
            ConfigError: there is no such folder, or no picture in it.
        """
        self._paths = find_pictures(folder, flag="--textures")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Texture:
        """One picture.

        Raises:
            DataError: it cannot be read.
        """
        path = self._paths[int(rng.integers(len(self._paths)))]
        return np.asarray(read_picture(path, Size(width, height)), np.float32) / np.float32(255)


def texture_source(folder: Path | None) -> Textures:
    """Pictures of a folder, or drawn textures where there is none.

    Raises:
        ConfigError: the folder cannot be used.
    """
    return DrawnTextures() if folder is None else PictureTextures(folder)


def seeded(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator whose seed is drawn from torch's, so that a checkpoint of that one holds all chance."""
    return np.random.default_rng(int(torch.randint(_SEEDS, (), generator=generator, device=generator.device)))


def draw_textures(source: Textures, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(count, 3, H, W) in [0, 1] on the generator's device."""
    rng = seeded(generator)
    stacked = np.stack([source.draw(rng, *size) for _ in range(count)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).to(generator.device)


def find_pictures(folder: Path, *, flag: str) -> tuple[Path, ...]:
    """Image files of a folder and of those below it, sorted.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
    """
    found = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()))
    if not found:
        message = f"{flag} {folder}: {'holds no picture' if folder.is_dir() else 'is no folder'}: give a folder of photographs"
        raise ConfigError(message)
    return found


def read_picture(path: Path, size: Size) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of 8 bits, scaled to a size.

    Raises:
        DataError: it cannot be read.
    """
    frame = read_image(path)
    deep = frame.format.dtype != np.uint8
    pixels = resize(np.ascontiguousarray(frame.as_format(PixelFormat.RGB16 if deep else PixelFormat.RGB8)), size)
    return np.asarray(pixels >> 8 if deep else pixels, dtype=np.uint8)


def _fractal(rng: np.random.Generator, height: int, width: int, *, coarsest: int) -> _Field:
    """Noise of four octaves, each finer and fainter."""
    field = np.zeros((height, width), np.float32)
    for octave in range(4):
        cells = coarsest * 2**octave
        field += perlin(rng, height, width, cells=(cells, cells), angle=0.0) * np.float32(0.6**octave)
    return field


def _clouds(rng: np.random.Generator, height: int, width: int) -> _Field:
    return _fractal(rng, height, width, coarsest=int(rng.integers(1, 9)))


def _marble(rng: np.random.Generator, height: int, width: int) -> _Field:
    veins = _wave(rng, height, width, low=2, high=10)
    warp = _fractal(rng, height, width, coarsest=int(rng.integers(2, 5)))
    return np.asarray(np.sin(veins + np.float32(rng.uniform(2, 6)) * warp), np.float32)


def _stripes(rng: np.random.Generator, height: int, width: int) -> _Field:
    sharpness = np.float32(rng.uniform(1, 8))
    return np.asarray(np.tanh(sharpness * np.sin(_wave(rng, height, width, low=3, high=40))), np.float32)


def _checks(rng: np.random.Generator, height: int, width: int) -> _Field:
    first, second = (np.sin(_wave(rng, height, width, low=2, high=24)) for _ in range(2))
    return np.asarray(np.sign(first) * np.sign(second), np.float32)


def _cells(rng: np.random.Generator, height: int, width: int) -> _Field:
    """Each pixel takes the value of the nearest of some drawn points: stones, scales, crystals."""
    count = int(rng.integers(8, 48))
    y, x = rng.uniform(0, height, count), rng.uniform(0, width, count)
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    nearest = ((rows - y) ** 2 + (columns - x) ** 2).argmin(axis=2)
    return np.asarray(rng.uniform(-1, 1, count)[nearest], np.float32)


def _specks(rng: np.random.Generator, height: int, width: int) -> _Field:
    cells = int(rng.integers(8, 48))
    noise = perlin(rng, height, width, cells=(cells, cells), angle=0.0)
    return np.asarray(noise > np.float32(rng.uniform(0.0, 0.5)), np.float32) + np.float32(0.1) * _grain(
        rng, height, width
    )


def _fibres(rng: np.random.Generator, height: int, width: int) -> _Field:
    """Noise that is drawn out in one direction: brushed metal, wood, hair."""
    cells = (int(rng.integers(1, 4)), int(rng.integers(24, 64)))
    return perlin(rng, height, width, cells=cells, angle=rng.uniform(0, math.pi)) + np.float32(0.2) * _grain(
        rng, height, width
    )


def _grain(rng: np.random.Generator, height: int, width: int) -> _Field:
    return rng.standard_normal((height, width), np.float32)


def _wave(rng: np.random.Generator, height: int, width: int, *, low: float, high: float) -> _Field:
    """Phase of a plane wave in a drawn direction, `low` to `high` periods a side."""
    angle, periods, phase = rng.uniform(0, math.pi), rng.uniform(low, high), rng.uniform(0, 2 * math.pi)
    rows = np.linspace(0, 2 * math.pi * periods * math.sin(angle), height)[:, None]
    columns = np.linspace(0, 2 * math.pi * periods * math.cos(angle), width)[None, :]
    return np.asarray(rows + columns + phase, np.float32)


FAMILIES: tuple[Callable[[np.random.Generator, int, int], _Field], ...] = (
    _clouds,
    _marble,
    _stripes,
    _checks,
    _cells,
    _specks,
    _fibres,
)


def _coloured(rng: np.random.Generator, field: _Field) -> Texture:
    """Run a field through three drawn colours."""
    low, high = float(field.min()), float(field.max())
    level = (field - low) / max(high - low, 1e-6)
    colours = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    grey = colours.mean(axis=1, keepdims=True)
    colours = grey + np.float32(rng.uniform(0, 1)) * (colours - grey)  # most surfaces are less gaudy
    stops = np.array([0.0, rng.uniform(0.3, 0.7), 1.0])
    return np.stack([np.interp(level, stops, colours[:, channel]) for channel in range(3)], axis=2).astype(np.float32)
