"""Owns what a frontend hangs on: it is written only when every slot, ring row and backend that it
counts on is there. A table that is full would else leave a Service that reaches some of the places
that it names and loses the rest. Never touches the kernel.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import cast

from weft.bpf.layout import Backend, Frontend, RingKey, SlotKey
from weft.proxy.apply.desired import Desired, RowKey

ANCHORED = "frontends"
_ANCHORS = ("slots", "rings", "backends")


def lacking(refused: Iterable[tuple[RowKey, str]], desired: Desired) -> Mapping[int, str]:
    """The services of which a row was refused, with the reason."""
    found: dict[int, str] = {}
    for place, why in refused:
        if place.table in _ANCHORS and (value := desired.value(place)) is not None:
            found[_service(place, cast(bytes, value))] = why
    return found


def held_back(
    frontends: Mapping[Hashable, object], lacking: Mapping[int, str]
) -> Mapping[Hashable, str]:
    """The frontends that are not to be written now, with the reason."""
    found: dict[Hashable, str] = {}
    for key, value in frontends.items() if lacking else ():
        row = Frontend.unpack(cast(bytes, value))
        why = lacking.get(row.service) or lacking.get(row.local_service)
        if why:
            found[key] = f"not all of its endpoints fit: {why}"
    return found


def _service(place: RowKey, value: bytes) -> int:
    key = cast(bytes, place.key)
    if place.table == "slots":
        return SlotKey.unpack(key).service
    return RingKey.unpack(key).service if place.table == "rings" else Backend.unpack(value).service
