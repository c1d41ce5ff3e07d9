"""Owns the choice of a pod's addresses: in turn, least recently released first, after a cool-down.

Never reads a clock, a file or the kernel; the lease file replays into an `AddressBook`. The cost
of a choice does not depend on how many addresses are taken.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from weft.cni.node import Range
from weft.cni.spec import Address, CniError, Code, Key

COOLDOWN_S = 30.0

# Bounds memory where a range is endless (an IPv6 /64): what rested longest is forgotten first.
_RESTING_MAX = 65_536


def check_ranges(ranges: Sequence[Range]) -> None:
    """Raises CniError NO_RANGE or BAD_RANGE: none, too small to hold a pod, or overlapping."""
    if not ranges:
        raise CniError(
            Code.NO_RANGE,
            "this node has no range of pod addresses",
            "node.spec.podCIDRs is empty: is --allocate-node-cidrs on in the controller-manager?",
        )
    for one in ranges:
        if one.max_prefixlen - one.prefixlen < 2:
            raise CniError(Code.BAD_RANGE, "a range is too small", f"{one} holds no pod address")
    for index, one in enumerate(ranges):
        for other in ranges[:index]:
            if one.version == other.version and one.overlaps(other):
                raise CniError(Code.BAD_RANGE, "ranges overlap", f"{other} and {one}")


def gateway_of(network: Range) -> Address:
    """The node's own address inside a range: its first host address."""
    return network[1]


def is_assignable(network: Range, address: Address) -> bool:
    """Inside the range, and neither its network, nor its gateway, nor its IPv4 broadcast."""
    return address in network and _first(network) <= int(address) <= _last(network)


def _first(network: Range) -> int:
    return int(network.network_address) + 2


def _last(network: Range) -> int:
    return int(network.broadcast_address) - (network.version == 4)


def capacity(network: Range) -> int:
    return _last(network) - _first(network) + 1


@dataclass(slots=True)
class _Pool:
    """The addresses of one range that nobody holds: those never used yet, then those released.

    Addresses below `cursor` are held or stand in `released`, which keeps the order of release.
    """

    network: Range
    cursor: int
    released: dict[Address, float] = field(default_factory=dict)


class AddressBook:
    """Who holds which address, and which addresses rest. All operations take constant time."""

    def __init__(self, cooldown_s: float = COOLDOWN_S) -> None:
        self._cooldown_s = cooldown_s
        self._owners: dict[Address, Key] = {}
        self._released: dict[Address, float] = {}
        self._pools: dict[Range, _Pool] = {}

    def owner(self, address: Address) -> Key | None:
        return self._owners.get(address)

    def restore(self, owner: Key, addresses: Iterable[Address]) -> None:
        """Takes addresses without asking whether a range holds them (replay of the lease file)."""
        for address in addresses:
            self._own(address, owner)

    def allocate(
        self,
        owner: Key,
        ranges: Sequence[Range],
        wanted: Sequence[Address],
        heard_s: float = math.inf,
    ) -> tuple[Address, ...]:
        """One address per family of `ranges`, IPv4 first; `wanted` ones are taken as they are.

        An address released after `heard_s` is not given again (PodNetwork).

        Raises CniError and takes nothing: RANGE_EXHAUSTED, ADDRESS_OUTSIDE_RANGES, ADDRESS_TAKEN,
        NO_RANGE, BAD_RANGE.
        """
        check_ranges(ranges)
        for address in wanted:
            self._check_wanted(address, ranges)
        chosen: list[Address] = []
        for version in sorted({one.version for one in ranges}):
            family = [one for one in ranges if one.version == version]
            asked = next((one for one in wanted if one.version == version), None)
            chosen.append(asked or self._next(family, heard_s))
        for address in chosen:
            self._own(address, owner)
        return tuple(chosen)

    def release(self, owner: Key, addresses: Iterable[Address], now_s: float) -> None:
        """Addresses rest from `now_s` on; one that `owner` does not hold stays as it is."""
        for address in addresses:
            if self._owners.get(address) == owner:
                del self._owners[address]
                self.rest(address, now_s)

    def rest(self, address: Address, released_at_s: float) -> None:
        self._forget(address)
        self._released[address] = released_at_s
        for pool in self._pools.values():
            if is_assignable(pool.network, address):
                pool.released[address] = released_at_s
        if len(self._released) > _RESTING_MAX:
            self._forget(next(iter(self._released)))

    def resting(self, now_s: float) -> dict[Address, float]:
        """Addresses whose cool-down is not over, with the time of their release."""
        released = list(self._released.items())
        return {address: at for address, at in released if now_s - at < self._cooldown_s}

    def _own(self, address: Address, owner: Key) -> None:
        self._owners[address] = owner
        self._forget(address)

    def _forget(self, address: Address) -> None:
        if self._released.pop(address, None) is not None:
            for pool in self._pools.values():
                pool.released.pop(address, None)

    def _check_wanted(self, address: Address, ranges: Sequence[Range]) -> None:
        if not any(is_assignable(one, address) for one in ranges):
            raise CniError(
                Code.ADDRESS_OUTSIDE_RANGES,
                f"the requested address {address} cannot be given to a pod",
                f"it is no host address of {_listed(ranges)} or is the node's own there",
            )
        holder = self._owners.get(address)
        if holder is not None:
            raise CniError(
                Code.ADDRESS_TAKEN, f"the requested address {address} is taken", f"by {holder}"
            )

    def _next(self, ranges: Sequence[Range], heard_s: float) -> Address:
        """Never used, else rested longest; from a dry family also one that should rest longer."""
        pools = [self._pool(one) for one in ranges]
        for pool in pools:
            fresh = self._fresh(pool)
            if fresh is not None:
                return fresh
        oldest = [next(iter(pool.released.items())) for pool in pools if pool.released]
        address, released_at_s = min(oldest, key=lambda entry: entry[1], default=(None, 0.0))
        if address is not None and released_at_s <= heard_s:
            return address
        raise self._exhausted(ranges, resting=address is not None)

    def _exhausted(self, ranges: Sequence[Range], *, resting: bool) -> CniError:
        held = sum(any(address in one for one in ranges) for address in self._owners)
        advice = (
            "the others were released while the API server was away: they wait for it"
            if resting
            else "delete pods, or give the node a larger or a further podCIDR"
        )
        return CniError(
            Code.RANGE_EXHAUSTED,
            f"no free address in {_listed(ranges)}",
            f"{held} of {sum(map(capacity, ranges))} addresses are held; {advice}",
        )

    def _fresh(self, pool: _Pool) -> Address | None:
        last = _last(pool.network)
        while pool.cursor <= last:
            address = pool.network[pool.cursor - int(pool.network.network_address)]
            if address not in self._owners and address not in self._released:
                return address
            pool.cursor += 1
        return None

    def _pool(self, network: Range) -> _Pool:
        pool = self._pools.get(network)
        if pool is None:
            inside = {a: at for a, at in self._released.items() if is_assignable(network, a)}
            pool = self._pools[network] = _Pool(network, _first(network), inside)
        return pool


def _listed(ranges: Sequence[Range]) -> str:
    return ", ".join(map(str, ranges))
