"""Owns what stays in the World of the API server's own endpoints when its slices go empty.

API servers write default/kubernetes themselves: while they restart, or lose their leases, a family
of it may name nobody. What is known then is still the best guess, and pods that look for the API
server while it comes back find it (projectcalico/calico felix does so too). Pure.
"""

from collections.abc import Iterable

from weft.proxy.model.index import Key, service_of
from weft.proxy.model.objects import EndpointSlice, Record, Ref
from weft.proxy.model.world import World

API_SERVER = Ref("default", "kubernetes")
Move = tuple[Key, Record | None]


class LastKnown:
    """The slices of the API server of which World keeps more than the API says, with its word."""

    def __init__(self) -> None:
        self._said: dict[Key, Record | None] = {}

    def __len__(self) -> int:
        return len(self._said)

    def moves(self, world: World, key: Key, record: Record | None) -> list[Move]:
        """What becomes of World's slices when the API says that `record` is at `key`."""
        held = world.slices_of(API_SERVER)
        known: dict[Key, Record | None] = {piece.ref: piece for piece in held}
        if not (key in known or key in self._said or _is_ours(record)):
            return [(key, record)]
        self._said[key] = record
        said = [piece for piece in (known | self._said).values() if _is_ours(piece)]
        lost = _served(held) - _served(said)
        kept = {k for k in self._said if k in known and _served((known[k],)) & lost}
        moves = [(k, one) for k, one in self._said.items() if k not in kept]
        self._said = {k: one for k, one in self._said.items() if k in kept}
        return moves


def _is_ours(record: Record | None) -> bool:
    return isinstance(record, EndpointSlice) and API_SERVER in service_of(record)


def _served(slices: Iterable[Record | None]) -> frozenset[int]:
    """The families in which somebody could be reached."""
    return frozenset(
        endpoint.address.version
        for piece in slices
        if isinstance(piece, EndpointSlice)
        for endpoint in piece.endpoints
        if endpoint.ready or (endpoint.serving and endpoint.terminating)
    )
