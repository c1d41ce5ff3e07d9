"""Owns the API's last state on disk: what a restart without an API server plans from.

A cache of the API and nothing else: it fills what the kernel lacks, never changes or deletes a row
(weft.proxy.apply.gate), and whatever of it does not read is as if it had never been written.
"""

import logging
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from weft.proxy.model.lastknown import API_SERVER
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
    ServiceCIDR,
)
from weft.proxy.model.world import Key, Record, World
from weft.proxy.watch.events import Listed, Moved, key_of

log = logging.getLogger(__name__)

FORMAT = 1
API_SERVERS = "api-servers.json"
RECORDS: Mapping[Kind, type] = {
    Kind.NODE: Node,
    Kind.NAMESPACE: Namespace,
    Kind.POD: Pod,
    Kind.POLICY: NetworkPolicy,
    Kind.SERVICE: Service,
    Kind.SLICE: EndpointSlice,
    Kind.SERVICE_CIDR: ServiceCIDR,
}
"""What is kept: the kinds that come from the API."""

_PARSED: Mapping[type, Callable[[str], object]] = {
    IPv4Address: ip_address,
    IPv6Address: ip_address,
    IPv4Network: ip_network,
    IPv6Network: ip_network,
}
_Load = Callable[[Any], Any]


def save(path: Path, world: World) -> None:
    """Write the API's part of `world` by rename, and beside it the API server's own endpoints.
    Raises OSError.
    """
    node = world.settings.node
    _write(path, node, {kind: list(world.table(kind).values()) for kind in RECORDS})
    _write(path.with_name(API_SERVERS), node, {Kind.SLICE: list(world.slices_of(API_SERVER))})


def _write(path: Path, node: str, tables: Mapping[Kind, list[Any]]) -> None:
    data = msgspec.json.encode({"format": FORMAT, "node": node, "tables": tables}, enc_hook=str)
    fresh = path.with_suffix(".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(fresh, "wb", opener=_private) as file:
        file.write(data)
    fresh.replace(path)


def load(path: Path, node: str) -> Iterator[Listed]:
    """The kinds of the checkpoint, marked as cached; nothing when it cannot be used."""
    yield from _read(path, node, RECORDS)


def load_api_servers(path: Path, node: str) -> Iterator[Moved]:
    """The API server's endpoints as last known, beside the checkpoint `path`. They go into the
    World before anything lists, so that they stay (model.lastknown) where its slices are empty when
    the daemon starts; a file of their own, since every start reads it.
    """
    for listed in _read(path.with_name(API_SERVERS), node, (Kind.SLICE,)):
        yield from (Moved(Kind.SLICE, key, record) for key, record in listed.records.items())


def _read(path: Path, node: str, kinds: Iterable[Kind]) -> Iterator[Listed]:
    try:
        body = msgspec.json.decode(path.read_bytes())
        if (body["format"], body["node"]) != (FORMAT, node):
            raise ValueError(f"format {body['format']} of node {body['node']}")
        listed = [_listed(kind, body["tables"].get(kind, [])) for kind in kinds]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        log.warning("checkpoint unusable", extra={"path": str(path), "error": repr(error)})
        return
    yield from listed


def _listed(kind: Kind, items: list[Any]) -> Listed:
    load_one = _loader(RECORDS[kind])
    records: dict[Key, Record] = {}
    for item in items:
        record = cast(Record, load_one(item))
        records[key_of(record)] = record
    return Listed(kind, records, cached=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@cache
def _loader(hint: Any) -> _Load:
    """How a value of a record's type comes back from what msgspec made of it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PARSED:
        return _PARSED[hint]
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        each = _loader(arguments[0])
        return lambda values: tuple(map(each, values))
    if is_dataclass(hint):
        return _record(hint)
    if isinstance(hint, type) and issubclass(hint, tuple):
        return lambda values: hint(*values)
    if isinstance(hint, type) and issubclass(hint, StrEnum | bytes):
        return hint
    return lambda value: value


def _union(arguments: tuple[Any, ...]) -> _Load:
    """A value or None; addresses of either family; a port by number or name."""
    inner = [one for one in arguments if one is not type(None)]
    if any(one in _PARSED or one not in (int, str) for one in inner):
        each = _loader(inner[0])
        return lambda value: None if value is None else each(value)
    return lambda value: value


def _record(of: Any) -> _Load:
    hints = get_type_hints(of)
    loaders = {one.name: _loader(hints[one.name]) for one in fields(of)}

    def load_record(values: Mapping[str, Any]) -> Any:
        return of(**{name: loaders[name](value) for name, value in values.items()})

    return load_record
