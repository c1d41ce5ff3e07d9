"""Owns the repair of what leads the node to its routed pods: a route and a neighbour for each.

weft.cni makes both with a pod's link and knows no later hand; other daemons (systemd-networkd)
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
from weft.proxy.plan.node import host_sources

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
    """Put back what is missing; how many routes that were. Raises OSError."""
    if world.settings.mode is Mode.BRIDGE:
        return 0
    with conversation() as netlink:
        have = settled(lambda: set(_routes(netlink)))
        lost = [
            (workload, address)
            for workload in world.workloads()
            for address in workload.addresses
            if (address, workload.ifindex) not in have
        ]
        put_back = [at for at in lost if _is_up(netlink, at[0].ifindex)]
        for workload, address in put_back:
            _put_back(netlink, world, workload, address)
    if put_back:
        said = [str(address) for _, address in put_back[:5]]
        log.warning("drift", extra={"table": NAME, "rows": len(put_back), "first": said})
    return len(put_back)


def _routes(netlink: Any) -> Iterator[tuple[Address, int]]:
    for family in _FAMILIES.values():
        for message in netlink.get_routes(family=family, proto=PROTOCOL, table=_TABLE_MAIN):
            yield ip_address(message.get("RTA_DST")), message.get("RTA_OIF")


def _is_up(netlink: Any, ifindex: int) -> bool:
    try:
        found = netlink.link("get", index=ifindex)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return False
    return bool(found and found[0]["flags"] & _IFF_UP)


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
