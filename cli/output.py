"""Messages as tables or as JSON documents with apiVersion and kind."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from weft.cli.listings import Listing
from weft.cli.text import columns, terminal_width

API_VERSION = "weft/v1"


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it; fields that are empty or zero included."""
    fields: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return fields


def print_document(kind: str, fields: dict[str, Any], *, indent: int | None = 2) -> None:
    """One JSON document; without `indent` in one line."""
    document = {"apiVersion": API_VERSION, "kind": kind, **fields}
    # ASCII: what is not is escaped, controls and bidirectional marks included.
    print(json.dumps(document, indent=indent), flush=indent is None)


def print_listing(listing: Listing, messages: Iterable[Message], output: str) -> None:
    """All of a listing's messages as `output` (table, wide, json) says."""
    if output == "json":
        print_document(listing.kind, {"items": [plain(message) for message in messages]})
        return
    wide = output == "wide"
    shown = listing.shown(wide=wide)
    rows = [[column.cell(message) for column in shown] for message in messages]
    titles = [column.title for column in shown]
    width = None if wide else terminal_width()
    print("\n".join(columns(titles, rows, width=width)))
