import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.cameras import grey, write_images

from edge_runtime.camera import folder as folder_module
from edge_runtime.camera.folder import FolderSource
from edge_runtime.errors import CameraError, DataError
from edge_runtime.imaging.frames import Frame, PixelFormat, read_image


def opened(folder: Path, **settings: int) -> FolderSource:
    source = FolderSource(folder, period_s=0.1, **settings)
    source.open()
    return source


def labels(source: FolderSource, count: int) -> list[str | None]:
    return [source.grab().label for _ in range(count)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that were decoded."""
    names: list[str] = []

    def counted(path: Path, stated: PixelFormat | None = None) -> Frame:
        names.append(path.name)
        return read_image(path, stated)

    monkeypatch.setattr(folder_module, "read_image", counted)
    return names


def test_images_of_a_folder_and_its_subfolders_come_in_name_order_and_from_the_start_again(tmp_path: Path) -> None:
    write_images(tmp_path, b=2, d=4)
    write_images(tmp_path / "c", x=3)
    write_images(tmp_path / ".hidden", a=9)
    write_images(tmp_path, **{".a": 9})
    (tmp_path / "notes.txt").write_text("no image")
    assert labels(opened(tmp_path), 5) == ["b.png", "c/x.png", "d.png", "b.png", "c/x.png"]


def test_frames_are_the_pixels_of_the_file_in_the_channel_order_of_bundles(tmp_path: Path) -> None:
    bgr = np.dstack([grey(10), grey(20), grey(30)])
    cv2.imwrite(str(tmp_path / "colour.png"), bgr)
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((6, 8), 40_000, dtype=np.uint16))
    source = opened(tmp_path)
    colour, deep = source.grab().frame, source.grab().frame
    assert colour.format is PixelFormat.RGB8
    assert colour.pixels[0, 0].tolist() == [30, 20, 10]
    assert deep.format is PixelFormat.MONO16
    assert int(deep.pixels[0, 0]) == 40_000


def test_a_frame_that_comes_again_is_not_decoded_again(tmp_path: Path, reads: list[str]) -> None:
    write_images(tmp_path, a=1, b=2)
    labels(opened(tmp_path), 6)
    assert reads == ["a.png", "b.png"]


def test_a_file_that_was_written_again_is_decoded_again(tmp_path: Path) -> None:
    write_images(tmp_path, a=1)
    source = opened(tmp_path)
    assert int(source.grab().frame.pixels[0, 0]) == 1
    write_images(tmp_path, a=7)
    os.utime(tmp_path / "a.png", ns=(1, 1))  # a clock of coarse ticks may give both writings one time
    assert int(source.grab().frame.pixels[0, 0]) == 7


def test_decoded_frames_are_kept_within_bounds_and_the_least_used_go_first(tmp_path: Path, reads: list[str]) -> None:
    write_images(tmp_path, a=1, b=2, c=3)
    labels(opened(tmp_path, kept_bytes=2 * grey(0).nbytes), 4)
    assert reads == ["a.png", "b.png", "c.png", "a.png"]  # a went when c came
    reads.clear()
    labels(opened(tmp_path, kept_bytes=3 * grey(0).nbytes), 4)
    assert reads == ["a.png", "b.png", "c.png"]


def test_a_frame_larger_than_all_that_may_be_kept_is_given_all_the_same(tmp_path: Path) -> None:
    write_images(tmp_path, a=1)
    source = opened(tmp_path, kept_bytes=1)
    assert [int(source.grab().frame.pixels[0, 0]) for _ in range(2)] == [1, 1]


def test_new_files_are_seen_in_their_place(tmp_path: Path) -> None:
    write_images(tmp_path, a=1, c=3)
    source = opened(tmp_path)
    assert labels(source, 1) == ["a.png"]
    write_images(tmp_path, b=2)
    write_images(tmp_path / "bb", x=2)
    assert labels(source, 4) == ["b.png", "bb/x.png", "c.png", "a.png"]


def test_a_new_file_is_found_at_the_end_even_where_the_folder_shows_no_change(tmp_path: Path) -> None:
    write_images(tmp_path, a=1)
    os.utime(tmp_path, ns=(5, 5))
    source = opened(tmp_path)
    assert labels(source, 1) == ["a.png"]
    write_images(tmp_path, b=2)
    os.utime(tmp_path, ns=(5, 5))
    assert labels(source, 2) == ["b.png", "a.png"]


def test_a_file_that_went_is_passed_over(tmp_path: Path) -> None:
    write_images(tmp_path, a=1, b=2, c=3)
    os.utime(tmp_path, ns=(5, 5))
    source = opened(tmp_path)
    assert labels(source, 1) == ["a.png"]
    (tmp_path / "b.png").unlink()
    os.utime(tmp_path, ns=(5, 5))
    assert labels(source, 2) == ["c.png", "a.png"]


def test_a_truncated_image_is_one_bad_image_and_the_next_one_follows(tmp_path: Path) -> None:
    write_images(tmp_path, a=1, b=2, c=3)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    source = opened(tmp_path)
    assert labels(source, 1) == ["a.png"]
    with pytest.raises(DataError, match=r"b\.png: .*truncated"):
        source.grab()
    assert labels(source, 1) == ["c.png"]


def test_a_folder_that_vanishes_says_so_and_goes_on_with_the_next_image_when_it_returns(tmp_path: Path) -> None:
    home, away = tmp_path / "images", tmp_path / "away"
    write_images(home, a=1, b=2, c=3)
    source = opened(home)
    assert labels(source, 1) == ["a.png"]
    source.check()
    home.rename(away)
    for call in (source.check, source.grab, source.open):
        with pytest.raises(CameraError, match="is not there: put it back"):
            call()
    away.rename(home)
    source.open()
    source.check()
    assert labels(source, 2) == ["b.png", "c.png"]


def test_a_folder_without_images_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no image"):
        opened(tmp_path)
    write_images(tmp_path, a=1)
    source = opened(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(CameraError, match="holds no image"):
        source.grab()
