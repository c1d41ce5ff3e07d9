"""Owns the way from what the API or a manifest says to records, one code path for both.

`decode` reads one object, `decode_list` a page of a list, `decode_event` a line of a watch,
`decode_manifest` a parsed manifest. An object that cannot be understood is a Broken, which a reader
reports while it goes on with what it knew of it; only a page or a line that is not one raises.
Never opens a file or a connection.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import DecodeError, Raw, ValidationError, convert
from msgspec.json import Decoder

from weft.proxy.model.decode_records import RECORDS, record_of, ref_of
from weft.proxy.model.objects import Broken, Kind, Record, Ref
from weft.proxy.model.shapes import Bookmark, EventShape, ListShape, Object, StatusShape

_DECODERS = {kind: Decoder(shape) for kind, (shape, _) in RECORDS.items()}
_ANY_OBJECT, _ANYTHING = Decoder(Object), Decoder(Any)
_LIST, _EVENT = Decoder(ListShape), Decoder(EventShape)
_BOOKMARK, _STATUS = Decoder(Bookmark), Decoder(StatusShape)

_MANIFESTS: Mapping[tuple[str, str], Kind] = {
    ("v1", "Service"): Kind.SERVICE,
    ("discovery.k8s.io/v1", "EndpointSlice"): Kind.SLICE,
    ("v1", "Pod"): Kind.POD,
    ("v1", "Namespace"): Kind.NAMESPACE,
    ("v1", "Node"): Kind.NODE,
    ("networking.k8s.io/v1", "NetworkPolicy"): Kind.POLICY,
    ("networking.k8s.io/v1", "ServiceCIDR"): Kind.SERVICE_CIDR,
}


class EventType(StrEnum):
    """meta/v1 WatchEvent.type."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class Status(NamedTuple):
    """meta/v1 Status of an ERROR event: an HTTP code (410: expired) and the server's words."""

    code: int
    message: str


class WatchEvent(NamedTuple):
    """One line of a watch. `object` is a Status for ERROR and None for BOOKMARK.

    `resource_version`: where a new watch goes on after this event; "" for ERROR.
    """

    type: EventType
    object: Record | Broken | Status | None
    resource_version: str


class ListPage(NamedTuple):
    """One page of a list; `next_page` is the `continue` token, "" on the last page."""

    resource_version: str
    next_page: str
    records: list[Record | Broken]


def decode(kind: Kind, data: bytes | Raw) -> Record | Broken:
    """One object of `kind` from its JSON."""
    try:
        return record_of(kind, _DECODERS[kind].decode(data))
    except (DecodeError, ValueError) as error:
        return Broken(kind, _name_of(kind, data), str(error))


def decode_list(kind: Kind, data: bytes) -> ListPage:
    """A page of a list of `kind`. msgspec.DecodeError when it is no list."""
    page = _LIST.decode(data)
    records = [decode(kind, item) for item in page.items or ()]
    return ListPage(page.metadata.resource_version, page.metadata.next_page, records)


def decode_event(kind: Kind, line: bytes) -> WatchEvent:
    """A line of a watch of `kind`. msgspec.DecodeError or ValueError when it is none."""
    event = _EVENT.decode(line)
    said = EventType(event.type)
    if said is EventType.ERROR:
        status = _STATUS.decode(event.object)
        return WatchEvent(said, Status(status.code, status.message), "")
    version = _BOOKMARK.decode(event.object).metadata.resource_version
    record = None if said is EventType.BOOKMARK else decode(kind, event.object)
    return WatchEvent(said, record, version)


def decode_manifest(manifest: Mapping[str, Any]) -> tuple[Kind, Record] | Broken | None:
    """One parsed manifest; None for a kind that Weft does not read."""
    kind = _MANIFESTS.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))
    if kind is None:
        return None
    try:
        return kind, record_of(kind, convert(manifest, RECORDS[kind][0]))
    except (ValidationError, ValueError) as error:
        return Broken(kind, _name_in(kind, manifest), str(error))


def manifests_in(document: Any) -> Iterator[Mapping[str, Any]]:
    """The manifests of a parsed document: itself, or the items of a `kind: List` as kubectl dumps.

    Anything that is no map (an empty document) holds none.
    """
    if not isinstance(document, Mapping):
        return
    items = document.get("items")
    if str(document.get("kind")).endswith("List") and isinstance(items, list):
        for item in items:
            yield from manifests_in(item)
    else:
        yield document


def _name_of(kind: Kind, data: bytes | Raw) -> Ref:
    try:
        return ref_of(kind, _ANY_OBJECT.decode(data).metadata)
    except (DecodeError, ValueError):
        return Ref("", "")


def _name_in(kind: Kind, manifest: Mapping[str, Any]) -> Ref:
    try:
        return ref_of(kind, convert(manifest, Object).metadata)
    except (ValidationError, ValueError):
        return Ref("", "")
