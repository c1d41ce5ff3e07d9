"""The kernel's tables against the full plan, in words.

The central law, made visible: `weft dump` prints nothing on a node in order.
"""

import sys
import time
from collections.abc import AsyncIterator, Hashable
from dataclasses import fields, is_dataclass

from weft.bpf import layout
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.observe.reading import status_message

PLANNED = frozenset(
    {name for name, spec in layout.TABLES.items() if not spec.is_state} - {"events"}
    | {"links", "routes", "hooks", "nft"}
)
"""Tables whose rows follow from the plan."""

# Ids are hashes: people compare their hexadecimal digits.
_HEX_ABOVE = 2**32


async def compare_tables(
    view: View, request: pb.CompareTablesRequest
) -> AsyncIterator[pb.TableRow]:
    """Rows on which the kernel and the plan differ; with `all_rows` the equal ones too."""
    wanted = frozenset(request.tables)
    now_s = time.monotonic()
    for difference in await view.audit():
        table, key = difference.place
        if not wanted or table in wanted:
            row = _row(table, key, difference.planned, difference.actual)
            row.status.CopyFrom(status_message(view.status(table, key), now_s))
            yield row
    if request.all_rows:
        for table in sorted(wanted or PLANNED):
            async for row in _equal_rows(view, table):
                yield row


async def _equal_rows(view: View, table: str) -> AsyncIterator[pb.TableRow]:
    actual = await view.dump(table)
    for desired in await view.rows(table):
        if actual.get(desired.key) == desired.value:
            yield _row(table, desired.key, desired.value, desired.value)


def _row(table: str, key: Hashable, planned: object | None, actual: object | None) -> pb.TableRow:
    return pb.TableRow(
        table=table,
        key=key_text(table, key),
        desired="" if planned is None else value_text(table, planned),
        actual="" if actual is None else value_text(table, actual),
        difference=_difference(planned, actual),
    )


def _difference(planned: object | None, actual: object | None) -> "pb.TableRow.Difference":
    if planned == actual:
        return pb.TableRow.EQUAL
    if actual is None:
        return pb.TableRow.MISSING
    return pb.TableRow.UNWANTED if planned is None else pb.TableRow.DIFFERENT


def key_text(table: str, key: Hashable) -> str:
    """A row's key for people."""
    spec = layout.TABLES.get(table)
    return _text(_decoded(spec.key, key)) if spec and isinstance(key, bytes) else _text(key)


def value_text(table: str, value: object) -> str:
    """A row's value for people."""
    spec = layout.TABLES.get(table)
    return _text(_decoded(spec.value, value)) if spec and isinstance(value, bytes) else _text(value)


def _decoded(kind: str, data: bytes) -> object:
    if kind in ("u32", "u64"):
        return int.from_bytes(data, sys.byteorder)
    if kind == "Address":
        return layout.unpack_address(data)
    row: object = getattr(layout, kind).unpack(data)
    return row


def _text(value: object) -> str:
    if isinstance(value, layout.PrefixKey):
        v4 = value.addr.version == 4
        return f"{value.addr}/{value.prefix_len - (96 if v4 else 0)}"
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return " ".join(f"{name}={_text(item)}" for name, item in named.items())
    if isinstance(value, bool) or not isinstance(value, int | bytes | tuple | list):
        return str(value)
    if isinstance(value, bytes):
        return value.hex(":")
    if isinstance(value, int):
        return f"{value:016x}" if value >= _HEX_ABOVE else str(int(value))
    return ",".join(_text(item) for item in value)
