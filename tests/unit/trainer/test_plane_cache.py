"""The tile cache: never stale, never half, and never the end of a fit."""

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.frames import make_planes, write_frame
from support.toys import make_region

from calibration.samples import Sample
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.imaging.frames import Pixels, Size
from trainer.data import plane_cache, planes
from trainer.data.facts import look
from trainer.data.plane_cache import PlaneCache
from trainer.data.planes import Planes

KEY: dict[str, object] = {"kind": "test", "image": "a"}
FRAME, CORE = Size(48, 32), Size(16, 16)
VALUES = np.random.default_rng(0).integers(0, 255, (6, 4, 3)).astype(np.uint8)


def entry(folder: Path) -> Path:
    """The one entry of a cache."""
    (path,) = folder.iterdir()
    return path


def frame(seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 255, (FRAME.height, FRAME.width)).astype(np.uint8)


def cut(source: Planes, sample: Sample) -> list[Pixels]:
    ((_, found),) = source.ahead([sample], workers=0, keep=False)
    return list(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_what_was_put_comes_back_in_another_build(tmp_path: Path, dtype: type) -> None:
    PlaneCache(tmp_path / "made" / "here").put(KEY, VALUES.astype(dtype)[:, ::-1])
    found = PlaneCache(tmp_path / "made" / "here").get(KEY)
    assert found is not None
    assert found.dtype == dtype
    assert np.array_equal(found, VALUES[:, ::-1])


def test_there_is_nothing_under_another_key_and_that_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    assert cache.get(KEY | {"image": "b"}) is None
    assert caplog.records == []


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [(plane_cache, "CACHE_VERSION", 2), (cv2, "__version__", "0.0")],
    ids=["version", "decoder"],
)
def test_an_entry_of_another_version_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object
) -> None:
    PlaneCache(tmp_path).put(KEY, VALUES)
    monkeypatch.setattr(where, name, value)
    assert PlaneCache(tmp_path).get(KEY) is None


def test_an_entry_that_says_another_version_in_its_place_is_refused(tmp_path: Path) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    path = entry(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"cache": 1', b'"cache": 2'))
    assert cache.get(KEY) is None


def test_any_changed_byte_is_noticed_told_and_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    path = entry(tmp_path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        found = cache.get(KEY)
        assert found is None or np.array_equal(found, VALUES), index  # a blank in the header may be another blank
        assert found is None or chr(whole[index]).isspace(), index
    assert [record.getMessage() for record in caplog.records] == [
        f"--tile-cache: {path} is damaged or half of an entry: it is made again"
    ]
    cache.put(KEY, VALUES)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_half_an_entry_is_refused(tmp_path: Path, share: float) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    path = entry(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert cache.get(KEY) is None
    path.write_bytes(whole + b"\0")
    assert cache.get(KEY) is None


def test_the_same_bytes_in_another_shape_are_refused(tmp_path: Path) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    path = entry(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"[6, 4, 3]", b"[4, 6, 3]"))
    assert cache.get(KEY) is None


def test_an_entry_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    cache = PlaneCache(tmp_path)
    cache.put(KEY, VALUES)
    first = entry(tmp_path)
    other = KEY | {"image": "b"}
    cache.put(other, VALUES + 1)
    (second,) = set(tmp_path.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert cache.get(other) is None


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(
        ConfigError, match=r"--tile-cache .*/file/cache: cannot be written to \(Not a directory\): choose"
    ):
        PlaneCache(tmp_path / "file" / "cache")
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_what_a_killed_build_left_is_swept_away_and_what_one_is_writing_is_not(tmp_path: Path) -> None:
    PlaneCache(tmp_path).put(KEY, VALUES)
    old, new = tmp_path / ".a.1-2.tmp", tmp_path / ".b.1-2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(entry_path := next(tmp_path.glob("*.plane")), (0, 0))
    PlaneCache(tmp_path)
    assert (old.exists(), new.exists(), entry_path.exists()) == (False, True, True)


FILL = """
import sys
import logging
from pathlib import Path
import numpy as np
from trainer.data.plane_cache import PlaneCache

logging.basicConfig(format="%(message)s")
cache = PlaneCache(Path(sys.argv[1]))
planes = [np.full((100, 100, 10), index, np.uint8) for index in range(8)]
for index, plane in enumerate(planes):
    cache.put({"image": index}, plane)
found = [cache.get({"image": index}) for index in range(8)]
print("found", [index for index in range(8) if found[index] is not None and (found[index] == planes[index]).all()])
"""


def test_a_disk_that_fills_ends_the_writing_with_one_line_and_leaves_no_half(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    folder = shlex.quote(str(mount))
    run = shlex.join([sys.executable, "-c", FILL, str(mount)])
    script = f"mount -t tmpfs -o size=350k tmpfs {folder} || exit 99\n{run} && ls -A {folder} | wc -l && ls -A {folder}"
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, f"`unshare -rm` and a tmpfs must be permitted: {done.stderr}"
    found, count, *left = done.stdout.splitlines()
    assert (found, count) == ("found [0, 1, 2]", "3")
    assert all(name.endswith(".plane") for name in left)
    assert done.stderr == (
        f"--tile-cache {mount}: cannot be written to any more (No space left on device): "
        "the fit goes on without; free space for the next one\n"
    )


SHARE = """
import sys
from pathlib import Path
import numpy as np
from trainer.data.plane_cache import PlaneCache

cache = PlaneCache(Path(sys.argv[1]))
planes = [np.full((64, 64, 3), index, np.uint8) for index in range(10)]
for turn in range(30):
    for index, plane in enumerate(planes):
        cache.put({"image": index}, plane)
        found = cache.get({"image": (index + turn) % 10})
        assert found is None or (found == (index + turn) % 10).all()
"""


def test_builds_that_write_the_same_entries_at_the_same_time_find_none_that_is_not_whole(tmp_path: Path) -> None:
    """A reader that met half an entry would say so on stderr."""
    command = [sys.executable, "-W", "error", "-c", SHARE, str(tmp_path)]
    builds = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(build.communicate(timeout=200)[1], build.returncode) for build in builds] == [("", 0)] * 3
    assert len(list(tmp_path.iterdir())) == 10
    assert all(PlaneCache(tmp_path).get({"image": index}) is not None for index in range(10))


def test_an_image_that_is_in_the_cache_is_not_read_again(tmp_path: Path) -> None:
    sample = write_frame(tmp_path / "a.png", frame())
    regions = (make_region("left", (0, 0, 16, 32)), make_region("right", (16, 0, 48, 32), plane=Size(16, 16)))
    fresh = cut(make_planes(FRAME, CORE, regions=regions), sample)
    cache = PlaneCache(tmp_path / "cache")
    facts = look(sample, None, cache)
    cut(make_planes(FRAME, CORE, regions=regions, cache=cache), sample)
    sample.path.unlink()

    found = cut(make_planes(FRAME, CORE, regions=regions, cache=PlaneCache(tmp_path / "cache")), sample)

    assert [np.array_equal(*both) for both in zip(found, fresh, strict=True)] == [True, True]
    assert look(sample, None, cache) == facts
    assert (facts.size, facts.lowest, facts.highest) == (FRAME, frame().min(), frame().max())


@pytest.mark.parametrize(
    "changed",
    [
        {"regions": (make_region("all", (0, 0, 48, 32), plane=Size(24, 16)),)},
        {"regions": (make_region("all", (1, 0, 48, 32), plane=Size(48, 32)),)},
    ],
    ids=["scale", "crop"],
)
def test_another_crop_or_scale_is_cut_anew(tmp_path: Path, changed: dict[str, tuple[object, ...]]) -> None:
    sample = write_frame(tmp_path / "a.png", frame())
    cache = PlaneCache(tmp_path / "cache")
    cut(make_planes(FRAME, CORE, cache=cache), sample)
    (found,) = cut(make_planes(FRAME, CORE, cache=cache, **changed), sample)  # type: ignore[arg-type]
    (fresh,) = cut(make_planes(FRAME, CORE, **changed), sample)  # type: ignore[arg-type]
    assert np.array_equal(found, fresh)


def test_a_changed_image_is_read_anew(tmp_path: Path) -> None:
    cache = PlaneCache(tmp_path / "cache")
    cut(make_planes(FRAME, CORE, cache=cache), write_frame(tmp_path / "a.png", frame(0)))
    (found,) = cut(make_planes(FRAME, CORE, cache=cache), write_frame(tmp_path / "a.png", frame(1)))
    assert np.array_equal(found[:, :, 0], frame(1))


def test_an_image_that_changes_while_a_build_runs_is_kept_under_no_digest(tmp_path: Path) -> None:
    """Else every later build would find the new pixels under the old image's name."""
    before = write_frame(tmp_path / "a.png", frame(0))
    cache = PlaneCache(tmp_path / "cache")
    write_frame(tmp_path / "a.png", frame(1))
    look(before, None, cache)
    cut(make_planes(FRAME, CORE, cache=cache), before)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_entry_is_made_again_from_the_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = write_frame(tmp_path / "a.png", frame())
    cache = PlaneCache(tmp_path / "cache")
    cut(make_planes(FRAME, CORE, cache=cache), sample)
    path = entry(tmp_path / "cache")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING):
        (found,) = cut(make_planes(FRAME, CORE, cache=cache), sample)
    assert np.array_equal(found[:, :, 0], frame())
    assert path.read_bytes() == whole
    assert len(caplog.records) == 1


def test_memory_comes_before_the_cache_and_holds_no_more_than_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes, "_MEMORY_BYTES", 2 * FRAME.width * FRAME.height)
    samples = [write_frame(tmp_path / f"{index}.png", frame(index)) for index in range(3)]
    source = make_planes(FRAME, CORE)
    assert len(list(source.ahead(samples, workers=2, keep=True))) == 3
    for sample in samples:
        sample.path.unlink()
    assert np.array_equal(cut(source, samples[1])[0][:, :, 0], frame(1))
    with pytest.raises(DataError, match=r"2\.png: cannot be read"):
        cut(source, samples[2])
