"""What holds for every frame, region and plan that the scorer lays out."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toys import BrightnessEngine, make_recipe, scramble

from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.scorer import RegionScore, Scorer

few = settings(max_examples=40, deadline=None)
cores = st.builds(Size, st.integers(1, 8).map(lambda n: 8 * n), st.integers(1, 8).map(lambda n: 8 * n))
sizes = st.builds(Size, st.integers(1, 90), st.integers(1, 90))


def scored(frame: Frame, core: Size, halo: int, batch: int, reach: int) -> RegionScore:
    recipe = make_recipe(frame=frame.size, core=core, halo=halo, batch=batch)
    engine = BrightnessEngine(recipe, measure="mean", reach=reach)
    return Scorer(recipe, engine, valid_areas={}).score(frame).regions[0]


@few
@given(sizes, cores, st.sampled_from([0, 8, 16]), st.integers(1, 5))
def test_tiled_and_whole_frame_give_one_map_wherever_the_halo_is_exact(
    size: Size, core: Size, halo: int, batch: int
) -> None:
    frame = Frame(scramble(size.height, size.width, 1)[:, :, 0], PixelFormat.MONO8)
    whole = Size(-(-size.width // 8) * 8, -(-size.height // 8) * 8)
    tiled = scored(frame, core, halo, batch, reach=halo)
    assert np.array_equal(tiled.grid, scored(frame, whole, halo, 1, reach=halo).grid)


def shown(place: int, length: int) -> list[bool]:
    """For each cell along a side, whether it holds the pixel, as it is or mirrored at the far border."""
    return [
        place in {cv2.borderInterpolate(i, length, cv2.BORDER_REFLECT_101) for i in range(start, start + 8)}
        for start in range(0, length, 8)
    ]


@few
@given(sizes, cores, st.integers(1, 5), st.data())
def test_a_single_bright_pixel_is_found_wherever_it_lies(
    size: Size, core: Size, batch: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, size.width - 1)), data.draw(st.integers(0, size.height - 1))
    pixels = np.full((size.height, size.width), 40, np.uint8)
    pixels[y, x] = 200
    recipe = make_recipe(frame=size, core=core, halo=8, batch=batch)
    found = Scorer(recipe, BrightnessEngine(recipe), valid_areas={}).score(Frame(pixels, PixelFormat.MONO8))
    assert found.regions[0].image_score == 200
    rows, columns = (shown(place, length) for place, length in ((y, size.height), (x, size.width)))
    assert np.array_equal(found.regions[0].grid == 200, np.outer(rows, columns))
