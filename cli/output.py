"""Messages as tables or as JSON documents with apiVersion and kind."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from weft.cli.listings import Listing
from weft.cli.text import columns, terminal_width

API_VERSION = "weft/v1"


def plain(message: Message) -> dict[str, Any]:
    """A message as its readers want JSON: numbers as numbers, states in lower case.

    Empty and zero fields are there, absent messages are not. (protobuf's own mapping makes 64-bit
    numbers strings.)
    """
    return {
        field.json_name: _value(getattr(message, field.name), field.enum_type, field.is_repeated)
        for field in message.DESCRIPTOR.fields
        if field.is_repeated or field.message_type is None or message.HasField(field.name)
    }


def _value(value: Any, enum: Any, repeated: bool) -> Any:
    # enum: an EnumDescriptor of either of protobuf's implementations, or None.
    if repeated:
        return [_value(item, enum, False) for item in value]
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value)
    return enum.values_by_number[value].name.lower() if enum is not None else value


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
    print_table(listing, messages, wide=output == "wide")


def print_table(listing: Listing, items: Iterable[object], *, wide: bool) -> None:
    """All `items`, which need not be messages, as lines under their columns' titles."""
    shown = listing.shown(wide=wide)
    rows = [[column.cell(item) for column in shown] for item in items]
    titles = [column.title for column in shown]
    width = None if wide else terminal_width()
    print("\n".join(columns(titles, rows, width=width)))
