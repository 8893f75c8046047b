"""What holds for every resize."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toys import scramble

from edge_runtime.imaging.frames import Size
from edge_runtime.imaging.resize import resize

few = settings(max_examples=60, deadline=None)
sides = st.integers(1, 60)
dtypes = st.sampled_from([np.uint8, np.uint16])


@few
@given(sides, sides, sides, sides, dtypes, st.integers(0, 65_535))
def test_a_constant_image_stays_constant_at_every_size(
    height: int, width: int, to_height: int, to_width: int, dtype: type, value: int
) -> None:
    value = value % (int(np.iinfo(dtype).max) + 1)
    resized = resize(np.full((height, width, 1), value, dtype), Size(to_width, to_height))
    assert resized.shape == (to_height, to_width, 1)
    assert (resized == value).all()


@few
@given(sides, sides, sides, sides, dtypes)
def test_no_pixel_leaves_the_range_of_the_image(
    height: int, width: int, to_height: int, to_width: int, dtype: type
) -> None:
    pixels = scramble(height, width, 1, dtype)
    resized = resize(pixels, Size(to_width, to_height))
    assert pixels.min() <= resized.min()
    assert resized.max() <= pixels.max()


@few
@given(sides, sides, sides, sides, dtypes)
def test_a_channel_is_resized_as_if_it_were_alone(
    height: int, width: int, to_height: int, to_width: int, dtype: type
) -> None:
    pixels = scramble(height, width, 3, dtype)
    size = Size(to_width, to_height)
    together = resize(pixels, size)
    alone = [resize(pixels[:, :, [channel]], size)[:, :, 0] for channel in range(3)]
    assert np.array_equal(together, np.stack(alone, axis=2))
