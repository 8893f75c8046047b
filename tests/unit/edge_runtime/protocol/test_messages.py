"""The rules that headers keep by themselves."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.headers import EXAMPLES, FRAME

from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import messages as m

EXAMPLE = {type(one): one for one in EXAMPLES}
PROTOCOL = Path(__file__).parents[4] / "docs" / "protocol.md"


@pytest.mark.parametrize("name", ["plc", "0", "a" * 64, "A-b_c.9"])
def test_a_name_is_letters_digits_dots_dashes(name: str) -> None:
    assert m.ClientHello(name=name, instance="0" * 32).name == name


@pytest.mark.parametrize("name", ["", "a" * 65, "@plc", "-a", "a b", "a/b", "ä", "a\n", "../x"])
def test_a_name_is_nothing_that_could_be_a_path_a_stream_or_two_names(name: str) -> None:
    with pytest.raises(ValidationError):
        m.ClientHello(name=name, instance="0" * 32)


@pytest.mark.parametrize("trigger_id", ["", "a" * 129, "a b", "ä", "a\n", "\x7f"])
def test_an_id_is_printable_ascii_without_space(trigger_id: str) -> None:
    with pytest.raises(ValidationError):
        m.Queued(epoch=1, trigger_id=trigger_id)


def test_a_grab_has_room_for_the_longest_client_and_id() -> None:
    grab = m.Grab(epoch=1, trigger_id=f"@{'c' * 64}/{'~' * 128}")
    assert m.Frame(epoch=1, trigger_id=grab.trigger_id, counter=1, frame=None).trigger_id == grab.trigger_id


@pytest.mark.parametrize("epoch", [-1, 2**63, 1.0, "1", True, None])
def test_a_count_is_a_whole_number_that_a_journal_can_hold(epoch: object) -> None:
    with pytest.raises(ValidationError):
        m.Heartbeat(epoch=epoch)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_nan_or_infinite(score: float) -> None:
    with pytest.raises(ValidationError):
        m.Answer.model_validate({**dict(EXAMPLE[m.Answer]), "score": score})


@pytest.mark.parametrize("deadline_ms", [0, -1, 600_001])
def test_a_deadline_is_a_millisecond_to_ten_minutes(deadline_ms: int) -> None:
    with pytest.raises(ValidationError):
        m.Trigger(epoch=1, trigger_id="t", camera="top", deadline_ms=deadline_ms)


@pytest.mark.parametrize(("pixel_format", "nbytes"), [("mono8", 6), ("mono16", 12), ("rgb8", 18), ("bgr16", 36)])
def test_bytes_of_a_frame(pixel_format: str, nbytes: int) -> None:
    assert m.FrameSpec(width=3, height=2, pixel_format=PixelFormat(pixel_format)).nbytes == nbytes


def test_a_header_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        FRAME.width = 5  # type: ignore[misc]


def test_numbers_of_types_are_grouped_by_socket_and_each_is_used_once() -> None:
    assert len(m.TYPES) == len(m.MESSAGES)
    everywhere = {m.Heartbeat, m.Refused}
    for accepted, group in (
        (m.AT_TRIGGERS, 1),
        (m.AT_FRAMES, 2),
        (m.AT_RECORDS, 3),
        (m.AT_CONTROL, 4),
        (m.AT_WORKERS, 6),
    ):
        assert all(number >> 4 == group or model in everywhere for number, model in accepted.items())
        assert all(m.MESSAGES[number] is model for number, model in accepted.items())


def test_the_protocol_page_names_every_type_of_message() -> None:
    text = PROTOCOL.read_text(encoding="utf-8").lower()
    missing = [f"0x{number:02x}" for number in m.MESSAGES if number < 0x60 and not re.search(f"0x{number:02x}", text)]
    assert not missing
