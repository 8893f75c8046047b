"""Owns the study of small defects: which of them a squashed frame shows, and which the same frame in tiles.

Frames are of the demo product at a camera's full resolution, with one pit each: a disc of the face, half as bright. A
pit counts as found where its frame scores above every good frame of the test, so that no good part would be rejected.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.commands.arguments import write_bytes
from edge_runtime.errors import EngineError
from edge_runtime.imaging.frames import Size, encode_png, read_image
from edge_runtime.imaging.overlay import displayable
from edge_runtime.inspector import Inspector
from trainer.bench.measured import takt
from trainer.demo.product import render

_FACE = (0.16, 0.38)  # of the frame's shorter side: the ring of the part's face that pits lie on
_SHOWN_PX = 192  # side of the picture's crops
_ENLARGED = 2
_GOOD, _PIT = 1_000, 2_000  # seeds of parts that no fit saw, from here on


@dataclass(frozen=True, kw_only=True, slots=True)
class Pit:
    """One defective frame."""

    path: Path
    diameter_px: int
    x: int
    y: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is rendered and how it is looked at."""

    folder: Path  # frames, bundles and picture stay here; frames that are there are not rendered again
    frame: Size
    diameters_px: tuple[int, ...]
    each: int  # frames of each diameter
    train: int
    good: int
    tile: int
    flags: tuple[str, ...]  # more of `takt build`, the same for both


def bench_defects(study: Study) -> Iterator[str]:
    """Lines of Markdown: how many pits of each size are found, squashed and in tiles; then where the picture is."""
    pits = render_frames(study)
    ways = {
        "squashed to 256x256": ("--size", "256x256"),
        f"scale 1, tiles of {study.tile}": ("--tile", str(study.tile)),
    }
    inspectors = [_build(study, name, flags) for name, flags in zip(("squashed", "tiled"), ways.values(), strict=True)]
    found = {title: _hits(study, inspector, pits) for title, inspector in zip(ways, inspectors, strict=True)}
    yield f"| pit, px of {study.frame} | {' | '.join(found)} |"
    yield "|---" * (1 + len(found)) + "|"
    for diameter in study.diameters_px:
        of_size = [
            [hit for pit, hit in zip(pits, hits, strict=True) if pit.diameter_px == diameter] for hits in found.values()
        ]
        cells = [f"{sum(hits)} of {len(hits)}" for hits in of_size]
        yield f"| {diameter} | {' | '.join(cells)} |"
    yield ""
    picture = study.folder / "pits.png"
    smallest = next((pit for pit, hit in zip(pits, list(found.values())[-1], strict=True) if hit), pits[0])
    write_bytes(picture, encode_png(_picture(smallest, inspectors)))
    yield f"{picture}: a pit of {smallest.diameter_px} px, and the maps {' and '.join(found)} over it."


def render_frames(study: Study) -> list[Pit]:
    """The data set; a frame that is there already stays."""
    data, size = study.folder / "data", study.frame
    for index in range(study.train):
        _write(data / "train/good" / f"{index:03}.png", partial(_part, index, size))
    for index in range(study.good):
        _write(data / "test/good" / f"{index:03}.png", partial(_part, _GOOD + index, size))
    pits = []
    for index in range(study.each * len(study.diameters_px)):
        diameter = study.diameters_px[index // study.each]
        x, y = _place(index, size)
        pit = Pit(path=data / "test/pit" / f"{diameter:03}-{index:03}.png", diameter_px=diameter, x=x, y=y)
        shape = _disc(pit, size)
        _write(pit.path, partial(_spoiled, _PIT + index, size, shape))
        _write(
            data / "ground_truth/pit" / f"{pit.path.stem}_mask.png", partial(np.multiply, shape.astype(np.uint8), 255)
        )
        pits.append(pit)
    return pits


def _write(path: Path, draw: Callable[[], NDArray[np.uint8]]) -> None:
    if not path.exists():
        write_bytes(path, encode_png(draw()))


def _part(seed: int, size: Size) -> NDArray[np.uint8]:
    return render(seed, width=size.width, height=size.height).image


def _place(index: int, size: Size) -> tuple[int, int]:
    """Where on the face of the part, which lies in the middle of the frame."""
    draw = np.random.default_rng(index)
    radius, angle = draw.uniform(*_FACE) * min(size), draw.uniform(0, 2 * np.pi)
    return round(size.width / 2 + radius * np.cos(angle)), round(size.height / 2 + radius * np.sin(angle))


def _disc(pit: Pit, size: Size) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: size.height, : size.width]
    return np.asarray((columns - pit.x) ** 2 + (rows - pit.y) ** 2 <= (pit.diameter_px / 2) ** 2)


def _spoiled(seed: int, size: Size, shape: NDArray[np.bool_]) -> NDArray[np.uint8]:
    pixels = _part(seed, size)
    pixels[shape] //= 2
    return pixels


def _build(study: Study, name: str, flags: tuple[str, ...]) -> Inspector:
    bundle = study.folder / f"{name}.takt"
    takt(
        "build",
        str(study.folder / "data/train/good"),
        "--out",
        str(bundle),
        "--policy",
        "sigma:3",
        *flags,
        *study.flags,
    )
    return Inspector.open(bundle)


def _hits(study: Study, inspector: Inspector, pits: Sequence[Pit]) -> list[bool]:
    """Of each pit, whether its frame scores above every good frame of the test."""
    good = [_score(inspector, path) for path in sorted((study.folder / "data/test/good").glob("*.png"))]
    return [_score(inspector, pit.path) > max(good) for pit in pits]


def _score(inspector: Inspector, path: Path) -> float:
    """The image score.

    Raises:
        EngineError: there is none.
    """
    found = inspector.inspect_file(path)
    if found.score is None:
        raise EngineError(found.detail)
    return found.score


def _picture(pit: Pit, inspectors: Sequence[Inspector]) -> NDArray[np.uint8]:
    """(H, W, 3): the surroundings of a pit, enlarged, then the same under each map."""
    frame = read_image(pit.path)
    views: list[NDArray[np.uint8]] = [displayable(frame)]
    for inspector in inspectors:
        shown = inspector.overlay(frame, replace(inspector.inspect(frame), regions=()))
        if shown is not None:
            views.append(shown)
    half = _SHOWN_PX // 2
    left = min(max(pit.x - half, 0), max(frame.size.width - _SHOWN_PX, 0))
    top = min(max(pit.y - half, 0), max(frame.size.height - _SHOWN_PX, 0))
    crops = [view[top : top + _SHOWN_PX, left : left + _SHOWN_PX] for view in views]
    large = [crop.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1) for crop in crops]
    gap = np.full((large[0].shape[0], 2 * _ENLARGED, 3), 255, dtype=np.uint8)
    return np.hstack([part for crop in large for part in (crop, gap)][:-1])
