"""What `line.toml` and `camera.toml` may say, and how they are told what they may not."""

from pathlib import Path

import pytest

from edge_runtime.bundle.recipe import GraphRole
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.formats import PixelFormat
from edge_runtime.protocol.messages import Transport, TriggerMode
from edge_runtime.service.config import SourceKind, SourceSpec, parse_source, read_camera, read_line

TOP = 'station = "press-4"\nrun_dir = "run"\nendpoint = "tcp://127.0.0.1:5600"\n'
CAMERA = '[[camera]]\nname = "top"\nbundle = "part.takt"\nsource = "folder:images"\n'


def line(folder: Path, text: str) -> Path:
    path = folder / "line.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_short_file_gets_its_defaults_and_paths_count_from_its_folder(tmp_path: Path) -> None:
    config = read_line(line(tmp_path, TOP + CAMERA))
    (camera,) = config.camera
    assert config.run_dir == tmp_path / "run"
    assert camera.bundle == tmp_path / "part.takt"
    assert camera.source == f"folder:{tmp_path / 'images'}"
    assert (camera.trigger, camera.deadline_ms, camera.slots, camera.pairing_ms) == (TriggerMode.SOFTWARE, 1000, 4, 200)
    assert not camera.early_reject
    assert (config.workers, config.threads, config.journal_days, config.hang_ms) == (1, None, 30, 10_000)
    assert config.graph is GraphRole.TILE
    assert config.artefact is None
    assert config.endpoints.triggers == "tcp://127.0.0.1:5600"


def test_the_format_of_a_folders_files_is_stated_as_data_sheets_write_it(tmp_path: Path) -> None:
    (camera,) = read_line(line(tmp_path, TOP + CAMERA + 'pixel_format = "BayerRG12"\n')).camera
    assert camera.pixel_format is PixelFormat.BAYER_RG12
    file = tmp_path / "camera.toml"
    text = 'endpoint = "tcp://127.0.0.1:5600"\nname = "top"\nsource = "folder:x"\npixel_format = "Mono10"\n'
    file.write_text(text, encoding="utf-8")
    assert read_camera(file).pixel_format is PixelFormat.MONO10
    file.write_text(text.replace("folder:x", "usb:0"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"camera\.toml: .*pixel_format mono10 with source usb"):
        read_camera(file)


def test_a_camera_may_reject_early_and_says_so_with_a_boolean_only(tmp_path: Path) -> None:
    (camera,) = read_line(line(tmp_path, TOP + CAMERA + "early_reject = true\n")).camera
    assert camera.early_reject
    with pytest.raises(ConfigError, match="early_reject"):
        read_line(line(tmp_path, TOP + CAMERA + 'early_reject = "yes"\n'))


def test_a_station_may_run_whole_frames(tmp_path: Path) -> None:
    assert read_line(line(tmp_path, TOP + 'graph = "frame"\n' + CAMERA)).graph is GraphRole.FRAME


def test_threads_and_artefact_are_taken_as_qualify_prints_them(tmp_path: Path) -> None:
    config = read_line(line(tmp_path, 'threads = 2\nartefact = "openvino-bf16"\n' + TOP + CAMERA))
    assert (config.threads, config.artefact) == (2, "openvino-bf16")


def test_absolute_paths_stay_and_urls_are_no_paths(tmp_path: Path) -> None:
    text = CAMERA.replace("part.takt", "/srv/part.takt").replace("folder:images", "rtsp:rtsp://u:p@cam/1")
    (camera,) = read_line(line(tmp_path, TOP + text)).camera
    assert camera.bundle == Path("/srv/part.takt")
    assert camera.source == "rtsp:rtsp://u:p@cam/1"
    assert str(camera.parsed_source) == "rtsp:rtsp://cam/1"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('station = "press-4"', 'station = ""', "station: String should have at least 1 character"),
        ("run_dir", "rundir", "rundir: no such key"),
        ('"tcp://127.0.0.1:5600"', '"tcp://10.0.0.1:5600"', "endpoint: 10.0.0.1 is not this host's loopback"),
        ('name = "top"', 'name = "to p"', "camera.0.name"),
        ('name = "top"', 'name = "@top"', "camera.0.name"),
        ("folder:images", "disk:images", "camera.0.source: source 'disk:images': expected folder:DIR"),
        ("folder:images", "folder:", "camera.0.source: source 'folder:': expected folder:DIR"),
        ("folder:images", "client:x", "camera.0.source: source 'client:x': expected folder:DIR"),
        ("folder:images", "usb:first", "expected usb:N with the number"),
        ("folder:images", "rtsp:http://cam", "expected rtsp: and a URL"),
        ('source = "folder:images"', 'source = "client"\ntrigger = "stream"', "leave `trigger` out"),
        ('source = "folder:images"', 'source = "process"\nslots = 0', "camera.0.slots"),
        ('source = "folder:images"', 'source = "process"\ndeadline_ms = 1.5', "camera.0.deadline_ms"),
        ('source = "folder:images"', 'source = "process"\ndeadline_ms = inf', "camera.0.deadline_ms"),
        ('source = "folder:images"', 'source = "process"\npairing_ms = 2026-01-01', "camera.0.pairing_ms"),
        (
            '"folder:images"',
            '"folder:images"\npixel_format = "Mono12p"',
            "camera.0.pixel_format: 'Mono12p' is no pixel",
        ),
        ('"folder:images"', '"usb:0"\npixel_format = "mono12"', "it goes with folder:DIR; leave it out"),
        ("[[camera]]", "[camera]", "camera:"),
        ("[[camera]]", 'graph = "whole"\n[[camera]]', "graph: Input should be 'tile' or 'frame'"),
        ("[[camera]]", "[[camera]", "is not TOML"),
        (CAMERA, "", "camera: Field required"),
        (CAMERA, CAMERA + CAMERA, "are not unique"),
    ],
)
def test_what_may_not_be_said_is_named_with_the_file(tmp_path: Path, before: str, after: str, said: str) -> None:
    text = TOP + CAMERA
    assert before in text
    path = line(tmp_path, text.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        read_line(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_all_faults_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_line(line(tmp_path, TOP.replace("station", "stati0n") + CAMERA.replace("name", "nam")))
    for said in (
        "station: Field required",
        "stati0n: no such key",
        "camera.0.name: Field",
        "camera.0.nam: no such key",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "binary"])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "line.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_line(path)


def test_a_camera_file_is_read_and_takes_real_sources_only(tmp_path: Path) -> None:
    path = tmp_path / "camera.toml"
    text = 'endpoint = "tcp://localhost:5600"\nname = "top"\nsource = "video:a.mp4"\ntransport = "message"\n'
    path.write_text(text, encoding="utf-8")
    config = read_camera(path)
    assert config.transport is Transport.MESSAGE
    assert config.parsed_source == SourceSpec(SourceKind.VIDEO, str(tmp_path / "a.mp4"))
    assert config.endpoints.frames == "tcp://127.0.0.1:5601"
    path.write_text(text.replace("video:a.mp4", "client"), encoding="utf-8")
    with pytest.raises(ConfigError, match="a camera process takes"):
        read_camera(path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("process", "process"),
        ("usb:3", "usb:3"),
        ("rtsp:rtsp://user:secret@cam:554/a", "rtsp:rtsp://cam:554/a"),
        ("rtsp:rtsp://cam/a", "rtsp:rtsp://cam/a"),
        ("folder:a:b", "folder:a:b"),
    ],
)
def test_a_source_is_shown_without_a_password(text: str, shown: str) -> None:
    assert str(parse_source(text)) == shown
