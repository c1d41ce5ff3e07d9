"""Owns CHECK's comparison: what an ADD promised against what the kernel shows now.

Tolerates what later members of a chain may change: the MAC, further addresses and routes, qdiscs.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from weft.cni import messages, wiring
from weft.cni.netlink import NetlinkError, RouteSocket, family, parse_attributes
from weft.cni.node import LinkMode
from weft.cni.results import Interface
from weft.cni.spec import Address, Attachment
from weft.cni.wiring import LinkState, PodNamespace

_IFADDR_BYTES, _RTMSG_BYTES = 8, 12
_IFADDR_INDEX = struct.Struct("=4xI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5


@dataclass(frozen=True, slots=True)
class Seen:
    """One attachment in the kernel. default_families: IP versions with a default route by it.

    routed_by: the link by which the node reaches each address, 0 where it cannot.
    """

    host: LinkState | None
    pod: LinkState | None
    addresses: frozenset[Interface]
    default_families: frozenset[int]
    routed_by: tuple[tuple[Address, int], ...]


def inspect(pod: PodNamespace, attachment: Attachment) -> Seen:
    """Asks both namespaces. Raises OSError."""
    with RouteSocket.here() as host:
        host_end = wiring.find_link(host, attachment.host_ifname)
        routed_by = tuple((one, _route_link(host, one)) for one in attachment.addresses)
    pod_end = wiring.find_link(pod.route, attachment.ifname)
    if pod_end is None:
        return Seen(host_end, None, frozenset(), frozenset(), routed_by)
    addresses = wiring.dump(pod.route, messages.list_addresses(pod_end.ifindex))
    families = {one.version for one in attachment.addresses}
    return Seen(
        host=host_end,
        pod=pod_end,
        addresses=frozenset(_addresses(addresses, pod_end.ifindex)),
        default_families=frozenset(
            one for one in families if _has_default(pod.route, one, pod_end.ifindex)
        ),
        routed_by=routed_by,
    )


def disagreements(
    attachment: Attachment, previous: Sequence[Interface], mode: LinkMode, seen: Seen
) -> tuple[str, ...]:
    """What is not as promised, in words; empty when all is well."""
    host_ifname, ifname = attachment.host_ifname, attachment.ifname
    found: list[str] = []
    for address in previous:
        if address.ip not in attachment.addresses:
            found.append(f"prevResult says {address}, which this attachment does not hold")
    if seen.host is None:
        found.append(f"the host end {host_ifname} is gone")
    elif not seen.host.is_up:
        found.append(f"the host end {host_ifname} is down")
    if seen.pod is None:
        return (*found, f"the pod has no interface {ifname}")
    if not seen.pod.is_up:
        found.append(f"{ifname} is down")
    if seen.host is not None and seen.host.peer_ifindex != seen.pod.ifindex:
        found.append(f"{ifname} is not the other end of {host_ifname}")
    found += _address_problems(attachment, previous, mode, seen)
    return tuple(found)


def _address_problems(
    attachment: Attachment, previous: Sequence[Interface], mode: LinkMode, seen: Seen
) -> list[str]:
    found = [f"{attachment.ifname} lacks {one}" for one in previous if one not in seen.addresses]
    present = {one.ip for one in seen.addresses}
    for address in attachment.addresses:
        if address not in present and address not in {one.ip for one in previous}:
            found.append(f"{attachment.ifname} lacks {address}")
        if address.version not in seen.default_families:
            found.append(f"no IPv{address.version} default route by {attachment.ifname}")
    host_ifindex = seen.host.ifindex if seen.host else 0
    for address, ifindex in seen.routed_by:
        if mode is LinkMode.ROUTED and ifindex != host_ifindex:
            found.append(f"the node's route to {address} does not lead to {attachment.host_ifname}")
    return found


def _addresses(bodies: Sequence[bytes], ifindex: int) -> list[Interface]:
    found: list[Interface] = []
    for body in bodies:
        if _IFADDR_INDEX.unpack_from(body)[0] != ifindex:
            continue
        fields = dict(parse_attributes(body[_IFADDR_BYTES:]))
        raw = fields.get(_IFA_LOCAL) or fields[_IFA_ADDRESS]
        found.append(ip_interface((ip_address(raw), body[1])))
    return found


def _has_default(route: RouteSocket, version: int, ifindex: int) -> bool:
    ip_family = socket.AF_INET if version == 4 else socket.AF_INET6
    for body in wiring.dump(route, messages.list_routes(ip_family, ifindex)):
        fields = dict(parse_attributes(body[_RTMSG_BYTES:]))
        is_default = body[1] == 0 and _RTA_GATEWAY in fields
        if is_default and wiring.number(fields.get(_RTA_OIF)) == ifindex:
            return True
    return False


def _route_link(host: RouteSocket, address: Address) -> int:
    """The link by which the node sends to `address`, 0 where it has no route."""
    try:
        answer = host.exchange([messages.get_route(address)])[0]
    except NetlinkError:
        return 0
    assert answer.body[0] == family(address)
    return wiring.number(answer.attributes(_RTMSG_BYTES).get(_RTA_OIF))
