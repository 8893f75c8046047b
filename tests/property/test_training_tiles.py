"""What is said of the tiles to train on is what comes out of them, whatever was chosen."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.frames import make_planes, make_tiles, write_frame

from edge_runtime.imaging.frames import Size
from trainer.data.augment import Augmentation
from trainer.data.selection import TileRule, select
from trainer.models.method import TileBatch

sizes = st.builds(Size, st.integers(8, 70), st.integers(8, 70))


def came(batches: Iterable[TileBatch]) -> list[tuple[bytes, bytes]]:
    """Every tile with its cells that count."""
    return [
        (tile.numpy().tobytes(), kept.numpy().tobytes())
        for batch in batches
        for tile, kept in zip(batch.tiles, batch.kept, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    frame=sizes,
    core=st.sampled_from([8, 16, 32]),
    halo=st.sampled_from([0, 8]),
    foreground=st.sampled_from(["none", "otsu", "mask.png"]),
    share=st.floats(0.01, 1),
    incomplete=st.booleans(),
    kinds=st.sets(st.sampled_from(list(Augmentation))),
    seed=st.integers(0, 2**16),
)
def test_count_and_cells_are_those_that_are_iterated_and_no_tile_is_one_that_inspection_has_not(
    *,
    frame: Size,
    core: int,
    halo: int,
    foreground: str,
    share: float,
    incomplete: bool,
    kinds: set[Augmentation],
    seed: int,
) -> None:
    """`count` and `cells` MUST be exact: methods predict memory and lay out arrays by them."""
    random = np.random.default_rng(seed)
    planes = make_planes(frame, Size(core, core), halo=halo)
    with TemporaryDirectory() as folder:
        samples = []
        for index in range(3):
            pixels = random.integers(0, 60, (frame.height, frame.width)).astype(np.uint8)
            pixels[random.integers(0, frame.height) :, : random.integers(1, frame.width + 1)] += 120
            samples.append(write_frame(Path(folder) / f"{index}.png", pixels))
        mask = random.random((frame.height, frame.width)) < share if foreground == "mask.png" else None
        rule = TileRule(foreground=foreground, mask=mask, share=share, incomplete=incomplete)
        selection = select(rule, planes, samples, workers=0, quiet=True)
        found = make_tiles(planes, selection, samples, kinds=sorted(kinds))
        everything = set(came(make_tiles(planes, select(TileRule(), planes, samples, workers=0, quiet=True), samples)))

        tiles = came(found)

        assert len(tiles) == found.count
        assert sum(np.frombuffer(kept, np.bool_).sum() for _, kept in tiles) == found.cells
        assert set(tiles[:: found.views]) <= everything
        assert tiles == came(found)
        assert sorted(tiles) == sorted(came(found.shuffled(seed)))
