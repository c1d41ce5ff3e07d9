"""Owns the repair of what leads the node to its pods: for a routed one a route and a neighbour per
address, for one on the bridge its place there.

weft.cni makes them with a pod's link and knows no later hand; other daemons (systemd-networkd)
delete routes that they do not know. Never touches a link that is down: its pod is being made.
"""

import errno
import logging
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from weft.proxy.apply.netlink import conversation, settled
from weft.proxy.model.objects import Address, Workload
from weft.proxy.model.world import Mode, World
from weft.proxy.plan.node import BRIDGE, host_sources

log = logging.getLogger(__name__)

NAME = "pod routes"
PROTOCOL = 87
"""rtm_protocol of these routes (weft.cni.messages.ROUTE_PROTOCOL)."""

_FAMILIES = {4: 2, 6: 10}
_TABLE_MAIN = 254
_SCOPE_LINK = 253
_NUD_PERMANENT = 0x80
_IFF_UP = 1


def repair(world: World) -> int:
    """Put back what is missing; how many that were. Raises OSError."""
    with conversation() as netlink:
        bridged = world.settings.mode is Mode.BRIDGE
        said = _rejoin(netlink, world) if bridged else _lead(netlink, world)
    if said:
        log.warning("drift", extra={"table": NAME, "rows": len(said), "first": said[:5]})
    return len(said)


def _lead(netlink: Any, world: World) -> list[str]:
    """Routes and neighbours of routed pods that were put back."""
    have = settled(lambda: set(_routes(netlink)) & set(_neighbours(netlink)))
    lost = [
        (workload, address)
        for workload in world.workloads()
        for address in workload.addresses
        if (address, workload.ifindex) not in have
    ]
    put_back = [at for at in lost if _is_up(_link(netlink, at[0].ifindex))]
    for workload, address in put_back:
        _put_back(netlink, world, workload, address)
    return [str(address) for _, address in put_back]


def _rejoin(netlink: Any, world: World) -> list[str]:
    """Pods' links that were put on the bridge again: one made anew has none of its ports."""
    bridge = next(iter(netlink.link_lookup(ifname=BRIDGE)), None)
    joined = []
    for workload in world.workloads() if bridge is not None else ():
        link = _link(netlink, workload.ifindex)
        if _is_up(link) and link.get("IFLA_MASTER") != bridge:
            netlink.link("set", index=workload.ifindex, master=bridge)
            joined.append(workload.key)
    return joined


def _routes(netlink: Any) -> Iterator[tuple[Address, int]]:
    for family in _FAMILIES.values():
        for message in netlink.get_routes(family=family, proto=PROTOCOL, table=_TABLE_MAIN):
            yield ip_address(message.get("RTA_DST")), message.get("RTA_OIF")


def _neighbours(netlink: Any) -> Iterator[tuple[Address, int]]:
    for family in _FAMILIES.values():
        for message in netlink.get_neighbours(family=family):
            if message["state"] == _NUD_PERMANENT:
                yield ip_address(message.get("NDA_DST")), message["ifindex"]


def _link(netlink: Any, ifindex: int) -> Any:
    """None where it is gone."""
    try:
        found = netlink.link("get", index=ifindex)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return None
    return found[0] if found else None


def _is_up(link: Any) -> bool:
    return link is not None and bool(link["flags"] & _IFF_UP)


def _put_back(netlink: Any, world: World, workload: Workload, address: Address) -> None:
    own = next((one for one in host_sources(world) if one.version == address.version), None)
    source = {"prefsrc": str(own)} if own is not None else {}
    scope = {"scope": _SCOPE_LINK} if address.version == 4 else {}
    netlink.neigh(
        "replace", family=_FAMILIES[address.version], dst=str(address), ifindex=workload.ifindex,
        lladdr=workload.mac.hex(":"), state=_NUD_PERMANENT,
    )  # fmt: skip
    netlink.route(
        "replace", dst=f"{address}/{address.max_prefixlen}", oif=workload.ifindex,
        proto=PROTOCOL, table=_TABLE_MAIN, **source, **scope,
    )  # fmt: skip
