"""Changed frames: the same pixels on every machine, inside the valid area, the original left alone."""

import hashlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.perturb import FITTED, HELD_OUT, Variant, paint_defect, perturb
from edge_runtime.imaging.geometry import Crop, Region

DIGESTS = [f"{number:064x}" for number in range(12)]
WHITE = {np.uint8: 255, np.uint16: 4095}
CHANGED = [Variant.PAINTED, Variant.SHIFTED, Variant.RELIT]


def frame(dtype: type = np.uint8, channels: int = 3) -> NDArray[np.uint8 | np.uint16]:
    """(60, 80, C): every pixel another value than its neighbours."""
    rows, columns, planes = np.ogrid[:60, :80, :channels]
    return ((rows * 7 + columns * 13 + planes * 29) * (WHITE[dtype] // 255) % (WHITE[dtype] + 1)).astype(dtype)


def region(name: str, crop: Crop, valid: NDArray[np.bool_] | None = None) -> Region:
    return Region(name=name, crop=crop, plane=crop.size, valid=valid)


WHOLE = region("frame", Crop(0, 0, 80, 60))
GOLDEN = {
    (Variant.PAINTED, np.uint8): "8eb0627f5e77b59c",
    (Variant.SHIFTED, np.uint8): "a663b4a6a10754e9",
    (Variant.RELIT, np.uint8): "dc8802d3964f1fd8",
    (Variant.PAINTED, np.uint16): "537160b1a98649c1",
    (Variant.RELIT, np.uint16): "1f7a5f635148ebef",
}


@pytest.mark.parametrize(("variant", "dtype"), GOLDEN, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_changed_frame_has_the_bytes_that_it_has_everywhere(variant: Variant, dtype: type) -> None:
    """A machine that seals must make the pixels of the machine that fitted: change this only with a new format."""
    changed = perturb(frame(dtype), variant, digest=DIGESTS[3], regions=[WHOLE], white=WHITE[dtype])
    assert hashlib.sha256(changed.tobytes()).hexdigest()[:16] == GOLDEN[variant, dtype]


@pytest.mark.parametrize("variant", CHANGED)
def test_the_original_stays_untouched_and_really_changes(variant: Variant) -> None:
    pixels = frame()
    before = pixels.copy()
    changed = perturb(pixels, variant, digest=DIGESTS[0], regions=[WHOLE], white=255)
    assert np.array_equal(pixels, before)
    assert (changed.shape, changed.dtype) == (pixels.shape, pixels.dtype)
    assert not np.array_equal(changed, pixels)


@pytest.mark.parametrize("variant", CHANGED)
def test_another_image_is_changed_otherwise(variant: Variant) -> None:
    made = [perturb(frame(), variant, digest=d, regions=[WHOLE], white=255).tobytes() for d in DIGESTS]
    assert len(set(made)) > 2  # a small frame can be shifted four ways


def test_the_original_is_the_frame_itself() -> None:
    pixels = frame()
    assert perturb(pixels, Variant.ORIGINAL, digest=DIGESTS[0], regions=[WHOLE], white=255) is pixels


@pytest.mark.parametrize("digest", DIGESTS)
def test_every_region_gets_a_defect_inside_its_own_valid_area(digest: str) -> None:
    valid = np.zeros((40, 30), np.bool_)
    valid[5:12, 3:9] = True
    sparse = np.zeros((20, 20), np.bool_)
    sparse[19, 0] = True
    regions = [
        region("left", Crop(0, 10, 30, 50), valid),
        region("right", Crop(50, 20, 80, 60)),
        region("dot", Crop(30, 0, 50, 20), sparse),
    ]
    pixels = frame()
    altered = (perturb(pixels, Variant.PAINTED, digest=digest, regions=regions, white=255) != pixels).any(axis=2)
    allowed = np.zeros((60, 80), np.bool_)
    for part in regions:
        crop = part.crop
        inside = np.ones((crop.size.height, crop.size.width), np.bool_) if part.valid is None else part.valid
        allowed[crop.y1 : crop.y2, crop.x1 : crop.x2] |= inside
        assert altered[crop.y1 : crop.y2, crop.x1 : crop.x2][inside].any()
    assert not altered[~allowed].any()


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_painted_defect_is_small_and_in_one_piece(digest: str) -> None:
    pixels = frame()
    altered = (perturb(pixels, Variant.PAINTED, digest=digest, regions=[WHOLE], white=255) != pixels).any(axis=2)
    assert cv2.connectedComponents(altered.astype(np.uint8), connectivity=8)[0] == 2
    assert 0 < altered.mean() < 0.1


@pytest.mark.parametrize(("level", "lighter"), [(30, True), (220, False)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_paint_goes_to_the_far_side_of_the_grey_scale(level: int, lighter: bool, dtype: type) -> None:  # noqa: FBT001
    white = WHITE[dtype]
    pixels = np.full((8, 8, 1), level * (white // 255), dtype)
    shape = np.zeros((8, 8), np.bool_)
    shape[2:4, 2:4] = True
    paint_defect(pixels, shape, white)
    painted, left = int(pixels[2, 2, 0]), int(pixels[0, 0, 0])
    assert abs(painted - left) > white // 2
    assert (painted > left) == lighter
    assert pixels.max() <= white
    assert (pixels[~shape] == left).all()


@pytest.mark.parametrize("digest", DIGESTS)
def test_relit_pixels_stay_at_or_below_white(digest: str) -> None:
    relit = perturb(frame(np.uint16), Variant.RELIT, digest=digest, regions=[WHOLE], white=4095)
    assert relit.max() <= 4095


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_shift_moves_both_ways_by_two_pixels_or_more(digest: str) -> None:
    pixels = frame()
    shifted = perturb(pixels, Variant.SHIFTED, digest=digest, regions=[WHOLE], white=255)
    moves = [
        (down, right)
        for down in range(-3, 4)
        for right in range(-3, 4)
        if np.array_equal(shifted[5:-5, 5:-5], pixels[5 + down : 55 + down, 5 + right : 75 + right])
    ]
    assert len(moves) == 1
    assert all(abs(move) >= 2 for move in moves[0])


def test_frames_of_the_fit_share_are_never_used_as_they_are() -> None:
    assert Variant.ORIGINAL not in FITTED
    assert {*HELD_OUT} == {Variant.ORIGINAL, Variant.PAINTED}
