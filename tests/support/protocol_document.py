"""The generated end of `docs/protocol.md`: golden bytes and JSON Schemas, from the code.

To bring the page up to date: `python tests/support/protocol_document.py`, then read the difference.
"""

import json
import sys
from pathlib import Path

from pydantic.json_schema import models_json_schema

from edge_runtime.protocol.messages import MESSAGES, Header

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "protocol.md"
GOLDEN = ROOT / "tests" / "contract" / "golden_wire"
START = "## 14. Golden bytes"
INTERNAL = 0x60  # types from here on go between the broker and its own workers
PREAMBLE_BYTES = 7


def public_messages() -> dict[int, type[Header]]:
    """Messages that others send or get, by type."""
    return {number: model for number, model in MESSAGES.items() if number < INTERNAL}


def wire_name(model: type[Header]) -> str:
    """`ClientHello` as the page writes it: CLIENT_HELLO."""
    name = model.__name__
    return "".join(f"_{letter}" if letter.isupper() and index else letter for index, letter in enumerate(name)).upper()


def golden_section() -> list[str]:
    """Each message's example: the preamble in hexadecimal digits, the header as it stands."""
    lines = [
        START,
        "",
        "One example of each message, byte for byte what the service sends. The first line is part 1 in hexadecimal digits, the",
        "second part 2. An implementation that reads these, and writes headers with the same content, speaks the protocol; the order",
        "of keys and white space do not matter.",
        "",
    ]
    for model in public_messages().values():
        content = (GOLDEN / f"{model.__name__}.bin").read_bytes()
        preamble, header = content[:PREAMBLE_BYTES], content[PREAMBLE_BYTES:]
        lines += [f"{wire_name(model)}:", "", "```text", preamble.hex(" "), header.decode(), "```", ""]
    return lines


def schema_section() -> list[str]:
    """JSON Schemas of all headers, those that they share stated once."""
    models = public_messages()
    _, schemas = models_json_schema([(model, "validation") for model in models.values()], by_alias=True)
    return [
        "## 15. JSON Schemas",
        "",
        "JSON Schema 2020-12. Each message's header is the definition of the same name; a number without fraction is no `number` where",
        "`integer` stands. `description` speaks of what the schema cannot say.",
        "",
        "| message | definition |",
        "|---|---|",
        *(f"| {wire_name(model)} | `#/$defs/{model.__name__}` |" for model in models.values()),
        "",
        "```json",
        json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schemas}, indent=1, ensure_ascii=False
        ),
        "```",
    ]


def page(current: str) -> str:
    """The page with its generated end made anew."""
    head, mark, _ = current.partition(START)
    if not mark:
        head = head.rstrip() + "\n\n"
    return head + "\n".join([*golden_section(), *schema_section()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
