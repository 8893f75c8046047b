"""Which tiles of which image are trained on, and that they are counted to the last cell."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.frames import make_planes, make_tiles, write_frame
from support.toys import make_region

from calibration.samples import Sample
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Size
from trainer.data.planes import Planes
from trainer.data.selection import Selection, TileRule, check_left, select

FRAME, CORE = Size(72, 40), Size(32, 16)  # 3 x 3 tiles, of which the last column and the last row are incomplete
OTSU = TileRule(foreground="otsu", share=0.1)


def frame(*places: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Dark, with bright parts."""
    pixels = np.full((FRAME.height, FRAME.width), 20, np.uint8)
    for place in places:
        pixels[place] = 200
    return pixels


def chosen(rule: TileRule, planes: Planes, *samples: Sample) -> tuple[Selection, list[list[list[int]]]]:
    """The selection, and by image and region the numbers of its tiles."""
    selection = select(rule, planes, samples, workers=0, quiet=True)
    return selection, [[sorted(region) for region in selection.of(sample)] for sample in samples]


def iterated(planes: Planes, selection: Selection, samples: list[Sample]) -> tuple[int, int]:
    """Tiles and cells that count, as they come out."""
    batches = list(make_tiles(planes, selection, samples, workers=2))
    return sum(len(batch.tiles) for batch in batches), sum(int(batch.kept.sum()) for batch in batches)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """A part on tile 0 alone, one across tiles 4 and 5, and none."""
    places = [(slice(2, 12), slice(2, 20)), (slice(18, 30), slice(40, 70))]
    frames = [frame(places[0]), frame(places[1]), np.full_like(frame(), 21)]
    return [write_frame(tmp_path / f"{index}.png", pixels) for index, pixels in enumerate(frames)]


def test_each_image_gives_the_tiles_that_show_its_own_part(samples: list[Sample]) -> None:
    planes = make_planes(FRAME, CORE)
    selection, tiles = chosen(OTSU, planes, *samples)
    assert tiles == [[[0]], [[4, 5]], [[]]]
    assert selection.with_tiles(samples) == samples[:2]  # the third is not read again in any epoch
    found = make_tiles(planes, selection, samples)
    assert (found.count, found.cells) == (3, 8 + 8 + 2)  # tile 5 owns 8 of its 32 columns
    assert iterated(planes, selection, samples) == (found.count, found.cells)


def test_the_share_is_the_least_that_counts(samples: list[Sample]) -> None:
    planes = make_planes(FRAME, CORE)
    share = 180 / 512  # of tile 0: 10 rows of 18 pixels, and 32x16 in the core
    assert chosen(TileRule(foreground="otsu", share=share), planes, samples[0])[1] == [[[0]]]
    assert chosen(TileRule(foreground="otsu", share=np.nextafter(share, 1)), planes, samples[0])[1] == [[[]]]


def test_a_mask_gives_every_image_the_same_tiles(samples: list[Sample]) -> None:
    mask = np.zeros((FRAME.height, FRAME.width), np.bool_)
    mask[16:32, :32] = True  # tile 3
    planes = make_planes(FRAME, CORE)
    selection, tiles = chosen(TileRule(foreground="m.png", mask=mask, share=0.1), planes, *samples)
    assert tiles == [[[3]]] * 3
    assert selection.chosen is None  # no image was looked at
    assert iterated(planes, selection, samples) == (3, 24) == (selection.tiles(samples), selection.count_cells(samples))


def test_regions_take_their_own_part_of_the_mask_and_of_the_frame(samples: list[Sample]) -> None:
    regions = (make_region("left", (0, 0, 32, 32)), make_region("right", (40, 8, 72, 40), plane=Size(64, 64)))
    planes = make_planes(FRAME, CORE, regions=regions)
    mask = np.zeros((FRAME.height, FRAME.width), np.bool_)
    mask[16:20, 56:60] = True  # on the right plane, twice as large: 16:24, 32:40; tile 3 of 2 x 4
    rule = TileRule(foreground="m.png", mask=mask, share=0.1)
    assert chosen(rule, planes, samples[0])[1] == [[[], [3]]]
    assert chosen(OTSU, planes, *samples)[1] == [[[0], []], [[], [2, 3, 4, 5]], [[], []]]


@pytest.mark.parametrize(("incomplete", "tiles"), [(True, list(range(9))), (False, [0, 1, 3, 4])])
def test_tiles_whose_core_reaches_beyond_the_plane_may_be_left_out(
    samples: list[Sample], *, incomplete: bool, tiles: list[int]
) -> None:
    planes = make_planes(FRAME, CORE)
    selection, found = chosen(TileRule(incomplete=incomplete), planes, *samples)
    assert found == [[tiles]] * 3
    assert iterated(planes, selection, samples) == (selection.tiles(samples), selection.count_cells(samples))


def test_the_valid_area_holds_beside_the_foreground(samples: list[Sample]) -> None:
    valid = np.ones((FRAME.height, FRAME.width), np.bool_)
    valid[:, 64:] = False  # all of tile 5
    regions = (make_region("all", (0, 0, *FRAME), valid_area="m"),)
    planes = make_planes(FRAME, CORE, regions=regions, valid_areas={"m": valid})
    assert chosen(OTSU, planes, *samples)[1] == [[[0]], [[4]], [[]]]


def test_a_selection_that_leaves_nothing_is_refused_with_the_numbers(samples: list[Sample]) -> None:
    planes = make_planes(FRAME, CORE)
    rule = TileRule(foreground="otsu", share=0.9, incomplete=False)
    selection, _ = chosen(rule, planes, *samples)
    with pytest.raises(DataError) as caught:
        check_left(rule, selection, planes, samples, "fit")
    assert str(caught.value) == (
        "--foreground otsu --foreground-share 0.9 --incomplete-tiles out: none of the 27 tiles of 3 fit image(s) is left; "
        "the cores of 15 reach beyond the plane; 90 % of a core must be foreground, the others show 56.2 % at most: "
        "give a smaller --tile or --incomplete-tiles in, or a smaller --foreground-share, another --foreground or none"
    )


def test_what_is_left_is_told(samples: list[Sample]) -> None:
    planes = make_planes(FRAME, CORE)
    selection, _ = chosen(OTSU, planes, *samples)
    assert check_left(OTSU, selection, planes, samples, "fit") == (3, 27)


def test_a_mask_of_another_size_is_refused_with_both() -> None:
    rule = TileRule(foreground="m.png", mask=np.ones((40, 70), np.bool_), share=0.1)
    rule.check_mask(Size(70, 40))
    with pytest.raises(
        ConfigError, match=r"--foreground m\.png: the mask is 70x40, the frame 72x40: draw it on a frame"
    ):
        rule.check_mask(FRAME)
