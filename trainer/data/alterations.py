"""Owns changes to a texture's colours and contrasts, of which DRAEM draws three for every anomaly."""

from collections.abc import Callable

import cv2
import numpy as np

from trainer.data.textures import Texture

DRAWN = 3


def alter(rng: np.random.Generator, texture: Texture) -> Texture:
    """Change a texture (H, W, 3) in [0, 1] in three drawn ways; the result is in [0, 1]."""
    for index in rng.permutation(len(ALTERATIONS))[:DRAWN]:
        texture = np.clip(ALTERATIONS[int(index)](rng, texture), 0, 1).astype(np.float32)
    return texture


def _posterise(rng: np.random.Generator, texture: Texture) -> Texture:
    levels = np.float32(2 ** int(rng.integers(1, 5)))
    return np.asarray(np.minimum(np.floor(texture * levels), levels - 1) / (levels - 1), np.float32)


def _solarise(rng: np.random.Generator, texture: Texture) -> Texture:
    return np.where(texture >= np.float32(rng.uniform(0.12, 0.5)), 1 - texture, texture)


def _sharpen(rng: np.random.Generator, texture: Texture) -> Texture:
    blurred = cv2.GaussianBlur(texture, (5, 5), 0)
    return np.asarray(texture + np.float32(rng.uniform(0.5, 3)) * (texture - blurred), np.float32)


def _equalise(_: np.random.Generator, texture: Texture) -> Texture:
    whole = np.asarray(np.round(texture * 255), np.uint8)
    channels = [cv2.equalizeHist(np.ascontiguousarray(whole[:, :, channel])) for channel in range(3)]
    return np.stack(channels, axis=2).astype(np.float32) / np.float32(255)


def _stretch(_: np.random.Generator, texture: Texture) -> Texture:
    low, high = texture.min(axis=(0, 1)), texture.max(axis=(0, 1))
    return np.asarray((texture - low) / np.maximum(high - low, np.float32(1 / 255)), np.float32)


def _brighten(rng: np.random.Generator, texture: Texture) -> Texture:
    gains = np.float32(rng.uniform(0.5, 1.5)), rng.uniform(-0.12, 0.12, 3).astype(np.float32)
    return np.asarray(texture * gains[0] + gains[1], np.float32)


def _tint(rng: np.random.Generator, texture: Texture) -> Texture:
    """Turn channels round and move the saturation."""
    turned = np.roll(texture, int(rng.integers(3)), axis=2)
    grey = turned.mean(axis=2, keepdims=True)
    return np.asarray(grey + np.float32(rng.uniform(0, 2)) * (turned - grey), np.float32)


ALTERATIONS: tuple[Callable[[np.random.Generator, Texture], Texture], ...] = (
    _posterise,
    _sharpen,
    _solarise,
    _equalise,
    _brighten,
    _tint,
    _stretch,
)
