"""The demo product: renders good and defective parts and writes them as a dataset.

A part is a function of its seed alone. A defect adds to the part of that seed and
changes nothing outside its mask.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.demo import defects, drawing, optics
from trainer.demo.defects import Blemish, Contrast, Defect, DefectKind
from trainer.demo.drawing import Feature
from trainer.demo.optics import Light
from trainer.demo.placement import Plane, Pose, Window, feature_window
from trainer.demo.surface import Cut, Surface, machine, turned_body

__all__ = ["Contrast", "Defect", "DefectKind", "Part", "render", "write_dataset"]

MIN_SIDE = 64  # px; below this holes and mark are smaller than a pixel

_SHARE = 0.42  # outer radius, of the image's shorter side
_EDGE = 0.06  # share of a pixel that must be altered for it to count as defective


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One photographed part."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.uint8]  # (H, W), 255 where defective, else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    """A part before the camera sees it."""

    pose: Pose
    light: Light
    surface: Surface


def render(seed: int, *, width: int = 320, height: int = 320, defect: Defect | None = None) -> Part:
    """Render the part of a seed as an industrial camera would see it.

    Args:
        seed: Which part, 0 or more.
        width: Image width in px, at least `MIN_SIDE`.
        height: Image height in px, at least `MIN_SIDE`.
        defect: What is wrong with it; None renders a good part with an empty mask.

    Returns:
        The image and the mask. The same arguments give the same bytes, and where the
        mask is 0 a defective part equals the good part of its seed.

    Raises:
        ValueError: The seed is negative or the image too small.

    """
    if seed < 0 or min(width, height) < MIN_SIDE:
        message = f"cannot render seed {seed} at {width}x{height} px: use a seed >= 0 and sides >= {MIN_SIDE} px"
        raise ValueError(message)
    # a stream for each purpose: a defect draws from its own, so the part stays the same
    scene_seed, camera_seed, fault_seed = np.random.SeedSequence(seed).spawn(3)
    scene = _lay_out(scene_seed, width, height, {})
    camera = np.random.default_rng(camera_seed)
    blur = camera.uniform(0.50, 0.78)
    even = optics.falloff(scene.light, width, height)[..., None]
    radiance = optics.shade(scene.surface, scene.light) * even
    seen = optics.focus(radiance, blur)
    mask = np.zeros((height, width), np.uint8)
    if defect is not None:
        blemish = _spoil(fault_seed, scene_seed, scene, radiance, defect)
        box = blemish.window.box
        lit = optics.shade(blemish.surface, scene.light) * blemish.tint
        radiance[box] = lit * even[box]
        footprint = np.zeros((height, width), np.float32)
        footprint[box] = blemish.footprint
        near = _around(blemish.window)
        mask[near][optics.focus(footprint[near], blur) > _EDGE] = 255
        altered = optics.focus(radiance[near], blur)
        seen[near] = np.where(mask[near][..., None] > 0, altered, seen[near])
    noise = camera.standard_normal(seen.shape, np.float32)
    return Part(image=optics.expose(seen, noise), mask=mask)


def _around(window: Window) -> tuple[slice, slice]:
    """Index of a window with room for the lens to blur into."""
    room = 8  # px, beyond the reach of the widest blur
    rows, cols = window.box
    return (
        slice(max(0, rows.start - room), rows.stop + room),
        slice(max(0, cols.start - room), cols.stop + room),
    )


def _lay_out(
    seed: np.random.SeedSequence,
    width: int,
    height: int,
    left_in: Mapping[Feature, Plane],
) -> _Scene:
    """Put a part on the fixture under the lamp, features cut but for `left_in`."""
    rng = np.random.default_rng(seed)
    light = optics.draw_light(rng)
    side = min(width, height)
    # clipped: a locating fixture holds every part within its play
    right, down, grow, turn = np.clip(rng.normal(0, 1, 4), -2.2, 2.2).tolist()
    pose = Pose(
        width=width,
        height=height,
        x=(width - 1) / 2 + 0.006 * side * right,
        y=(height - 1) / 2 + 0.006 * side * down,
        radius=_SHARE * side * (1 + 0.004 * grow),
        angle=math.radians(0.9 * turn),
    )
    dust = rng.uniform(0.020, 0.055, len(drawing.FEATURES)).tolist()
    cuts = [
        Cut(feature=feature, dust=level, left_in=left_in.get(feature, 0.0))
        for feature, level in zip(drawing.FEATURES, dust, strict=True)
    ]
    surface = turned_body(rng, pose, optics.fixture(width, height), light.shadow)
    machine(surface, pose, light.shadow, cuts)
    return _Scene(pose=pose, light=light, surface=surface)


def _spoil(
    fault_seed: np.random.SeedSequence,
    scene_seed: np.random.SeedSequence,
    scene: _Scene,
    radiance: NDArray[np.float32],
    defect: Defect,
) -> Blemish:
    """Spoil a copy of the good scene, whose (H, W, 3) radiance is given."""
    rng = np.random.default_rng(fault_seed)
    amount = defects.strength(defect)
    match defect.kind:
        case DefectKind.SCRATCH:
            green = radiance[..., 1]
            return defects.scratch(rng, scene.pose, scene.surface, green, amount)
        case DefectKind.DENT:
            return defects.dent(rng, scene.pose, scene.surface, amount)
        case DefectKind.STAIN:
            return defects.stain(rng, scene.pose, scene.surface, amount)
        case DefectKind.MISSING:
            return _leave_out(rng, scene_seed, scene.pose, amount)


def _leave_out(
    rng: np.random.Generator,
    scene_seed: np.random.SeedSequence,
    pose: Pose,
    share: float,
) -> Blemish:
    """Make the same part again without one of its features."""
    feature, left_in, footprint = defects.uncut(rng, pose, share)
    again = _lay_out(scene_seed, pose.width, pose.height, {feature: left_in})
    window = feature_window(pose, feature)
    return Blemish(
        window=window,
        surface=again.surface.crop(window.rows, window.cols),
        tint=np.ones((*footprint.shape, 3), np.float32),
        footprint=footprint,
    )


def write_dataset(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 120,
    test_good: int = 30,
    per_defect: int = 4,
    width: int = 320,
    height: int = 320,
) -> None:
    """Write a dataset in MVTec AD's layout, every part of its own seed.

    Args:
        folder: Where `train`, `test` and `ground_truth` go; made if missing.
        seed: Which dataset.
        train: Good parts to train on.
        test_good: Good parts to test on.
        per_defect: Defective parts for each kind at each contrast.
        width: Image width in px.
        height: Image height in px.

    Raises:
        OSError: A folder or a file cannot be written.
        ValueError: The seed is negative or the image too small.

    """
    for group, (split, name, count, defect) in enumerate(_groups(train, test_good, per_defect)):
        images = folder / split / name
        images.mkdir(parents=True, exist_ok=True)
        masks = folder / "ground_truth" / name
        if defect is not None:
            masks.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            # keyed by place, so that more parts in one folder change no other folder
            key = np.random.SeedSequence(seed, spawn_key=(group, index))
            own = int(key.generate_state(1, np.uint64)[0])
            part = render(own, width=width, height=height, defect=defect)
            bgr = cv2.cvtColor(part.image, cv2.COLOR_RGB2BGR)
            _write_png(images / f"{index:03d}.png", np.asarray(bgr, np.uint8))
            if defect is not None:
                _write_png(masks / f"{index:03d}_mask.png", part.mask)


def _groups(train: int, test_good: int, per_defect: int) -> Iterator[tuple[str, str, int, Defect | None]]:
    """Split, folder, number of parts and defect of every folder of images."""
    yield "train", "good", train, None
    yield "test", "good", test_good, None
    for kind in DefectKind:
        for contrast in Contrast:
            defect = Defect(kind=kind, contrast=contrast)
            yield "test", f"{kind}_{contrast}", per_defect, defect


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image, BGR or grey; unlike `cv2.imwrite`, says why when it cannot."""
    encoded, data = cv2.imencode(".png", image)
    if not encoded:
        message = f"{path}: OpenCV could not encode a {image.shape} image as PNG"
        raise OSError(message)
    path.write_bytes(data.tobytes())
