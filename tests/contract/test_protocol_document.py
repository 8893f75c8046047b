"""`docs/protocol.md` is what other programs are written against: it says what the code does."""

import re

from support.protocol_document import PAGE, page, public_messages, wire_name

from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import Code, State

TEXT = PAGE.read_text(encoding="utf-8")


def test_golden_bytes_and_schemas_of_the_page_are_those_of_the_code() -> None:
    assert page(TEXT) == TEXT, "run: python tests/support/protocol_document.py"


def test_the_table_of_messages_is_complete_and_numbers_them_right() -> None:
    listed = dict(re.findall(r"^\| `0x([0-9a-f]{2})` \| ([A-Z_]+) \|", TEXT, flags=re.MULTILINE))

    assert listed == {f"{number:02x}": wire_name(model) for number, model in public_messages().items()}


def test_every_reason_every_code_and_every_state_is_explained() -> None:
    for word in (*Reason, *Code):
        assert re.search(rf"^\| `{word}` \| .+ \| .+ \|$", TEXT, flags=re.MULTILINE), word
    for state in State:
        assert state.value in TEXT
