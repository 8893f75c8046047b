"""What holds for every map."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from support.toys import scramble

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.maps import list_regions, rescale, smooth, upsample

few = settings(max_examples=60, deadline=None)
sides = st.integers(1, 24)
seeds = st.integers(0, 10_000)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)


@few
@given(sides, sides, st.sampled_from([1, 2, 4, 8]), st.floats(-8, 16), st.floats(-1e6, 1e6, width=32))
def test_a_constant_map_is_upsampled_to_the_same_constant(
    height: int, width: int, stride: int, offset: float, value: float
) -> None:
    grid = np.full((height, width), value, np.float32)
    plane = upsample(grid, stride=stride, offset=offset, plane=Size(width * stride, height * stride))
    assert (plane == np.float32(value)).all()


@few
@given(seeds, sides, sides, st.integers(1, 60), st.integers(1, 60))
def test_neither_rescaling_nor_smoothing_leaves_a_maps_range(
    seed: int, height: int, width: int, to_height: int, to_width: int
) -> None:
    plane = noise(seed, height, width)
    for changed in (rescale(plane, Size(to_width, to_height)), smooth(plane, 2.0)):
        assert plane.min() - 1e-5 <= changed.min()
        assert changed.max() <= plane.max() + 1e-5


@few
@given(sides, sides, st.integers(1, 300))
def test_regions_are_those_that_scipy_labels(height: int, width: int, smallest_px: int) -> None:
    region_map = scramble(height, width, 1)[:, :, 0].astype(np.float32)
    region_map[scramble(width, height, 1)[:, :, 0].T > 240] = np.nan
    smallest_px = 1 + smallest_px % 5
    labels, count = ndimage.label(region_map >= 150, structure=np.ones((3, 3)))
    expected = set()
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        area, peak = int((labels == label).sum()), float(region_map[labels == label].max())
        if area >= smallest_px:
            size = (columns.stop - columns.start, rows.stop - rows.start)
            expected.add((columns.start + 7, rows.start + 9, *size, area, peak))
    found = list_regions(region_map, 150.0, smallest_px=smallest_px, name="cap", origin=(7, 9))
    assert len(found) == len(expected) <= count
    assert {(part.x, part.y, part.width, part.height, part.area_px, part.peak) for part in found} == expected
    peaks = [part.peak for part in found]
    assert peaks == sorted(peaks, reverse=True)


@few
@given(seeds, sides, sides, st.integers(0, 9), st.integers(0, 9))
def test_regions_of_one_peak_are_listed_in_the_order_in_which_the_whole_map_is_labelled(
    seed: int, height: int, width: int, above: int, left: int
) -> None:
    drawn = np.random.default_rng(seed).random((height, width)) < 0.3
    region_map = np.pad(drawn, ((above, 0), (left, 0))).astype(np.float32)
    _, _, stats, _ = cv2.connectedComponentsWithStats(region_map.astype(np.uint8), connectivity=8)
    found = list_regions(region_map, 1.0, smallest_px=1, name="cap", origin=(0, 0))
    assert [[part.x, part.y, part.width, part.height, part.area_px] for part in found] == stats[1:].tolist()
