"""What holds for every tile plan."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toys import scramble

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.tiles import TilePlan, reflect

few = settings(max_examples=60, deadline=None)


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    """Any plan: planes from a single pixel, cores larger than the plane, halos wider than the core."""
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    cells = st.integers(1, 6)
    return TilePlan(
        plane=Size(draw(st.integers(1, 70)), draw(st.integers(1, 70))),
        core=Size(draw(cells) * stride, draw(cells) * stride),
        halo=draw(st.integers(0, 5)) * stride,
        stride=stride,
    )


def pixels_of(plan: TilePlan, channels: int = 1) -> np.ndarray:
    return scramble(plan.plane.height, plan.plane.width, channels)


@few
@given(plans())
def test_cutting_and_pasting_gives_every_cell_back_in_its_place(plan: TilePlan) -> None:
    pixels = pixels_of(plan)
    stitched = np.full((plan.grid.height, plan.grid.width), np.nan, np.float32)
    out = np.empty((plan.input.height, plan.input.width, 1), np.uint8)
    for tile in range(plan.count):
        plan.cut(pixels, tile, out)
        plan.paste(out[:: plan.stride, :: plan.stride, 0].astype(np.float32), tile, stitched)
    assert np.array_equal(stitched, pixels[:: plan.stride, :: plan.stride, 0])


@few
@given(plans())
def test_a_tile_is_a_window_of_the_plane_mirrored_at_its_borders(plan: TilePlan) -> None:
    pixels = pixels_of(plan, channels=3)
    out = np.empty((plan.input.height, plan.input.width, 3), np.uint8)
    mirror = cv2.BORDER_REFLECT_101
    for tile in range(plan.count):
        out.fill(255)
        plan.cut(pixels, tile, out)
        top = tile // plan.columns * plan.core.height - plan.halo
        left = tile % plan.columns * plan.core.width - plan.halo
        rows = [cv2.borderInterpolate(top + y, plan.plane.height, mirror) for y in range(plan.input.height)]
        columns = [cv2.borderInterpolate(left + x, plan.plane.width, mirror) for x in range(plan.input.width)]
        assert np.array_equal(out, pixels[np.ix_(rows, columns)])


@few
@given(plans(), st.sampled_from([np.uint8, np.uint16]), st.sampled_from([1, 3]))
def test_a_tile_is_cut_alike_from_a_view_of_a_larger_frame_and_of_swapped_channels(
    plan: TilePlan, dtype: type[np.uint8 | np.uint16], channels: int
) -> None:
    frame = scramble(plan.plane.height + 5, plan.plane.width + 7, channels, dtype)
    view = frame[2 : 2 + plan.plane.height, 3 : 3 + plan.plane.width, ::-1]
    view.flags.writeable = False
    batch = np.zeros((2, plan.input.height, plan.input.width, channels), dtype)
    for tile in range(plan.count):
        plan.cut(view, tile, batch[1])
        top = tile // plan.columns * plan.core.height - plan.halo
        left = tile % plan.columns * plan.core.width - plan.halo
        rows = reflect(np.arange(top, top + plan.input.height), plan.plane.height)
        columns = reflect(np.arange(left, left + plan.input.width), plan.plane.width)
        assert np.array_equal(batch[1], view[np.ix_(rows, columns)])
    assert not batch[0].any()


@few
@given(plans())
def test_every_pixel_belongs_to_exactly_one_core(plan: TilePlan) -> None:
    coverage = plan.coverage().repeat(plan.stride, axis=0).repeat(plan.stride, axis=1)
    assert coverage.shape >= (plan.plane.height, plan.plane.width)
    assert (coverage == 1).all()


@few
@given(plans())
def test_every_cell_is_kept_by_exactly_one_tile(plan: TilePlan) -> None:
    ones = np.ones((plan.input.height // plan.stride, plan.input.width // plan.stride), np.float32)
    written = np.zeros((plan.grid.height, plan.grid.width), np.float32)
    for tile in range(plan.count):
        stitched = np.zeros_like(written)
        plan.paste(ones, tile, stitched)
        assert stitched.sum() == plan.kept(tile).sum() >= 1
        written += stitched
    assert (written == 1).all()


@few
@given(plans())
def test_taking_is_the_inverse_of_pasting_on_the_cells_that_are_kept(plan: TilePlan) -> None:
    chosen = scramble(plan.grid.height, plan.grid.width, 1)[:, :, 0] > 100
    back = np.zeros((plan.grid.height, plan.grid.width), np.float32)
    for tile in range(plan.count):
        out = np.zeros((plan.input.height // plan.stride, plan.input.width // plan.stride), np.bool_)
        plan.take(chosen, tile, out)
        assert not (out & ~plan.kept(tile)).any()
        plan.paste(out.astype(np.float32), tile, back)
    assert np.array_equal(back > 0, chosen)


@few
@given(st.integers(1, 50), st.integers(-500, 500))
def test_a_reflected_index_is_one_that_opencv_names(length: int, index: int) -> None:
    expected = cv2.borderInterpolate(index, length, cv2.BORDER_REFLECT_101)
    assert reflect(np.array([index]), length)[0] == expected
