"""Owns the life of a pod's link: made closed, opened, inspected, removed. Never enters a namespace.

The pod's side is configured through a rtnetlink socket that was opened inside its namespace.
Making a pair takes three exchanges; no step of an ADD dumps a table.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.cni import messages
from weft.cni.netlink import Message, NetlinkError, RouteSocket, parse_attributes
from weft.cni.node import LinkMode
from weft.cni.results import Interface
from weft.cni.spec import CniError, Code
from weft.cni.verbs import LinkPlan

_IFINFO = struct.Struct("=BxHiII")
_NS_GET_NSTYPE, _CLONE_NEWNET = 0xB703, 0x40000000
_SIOCGSKNS = 0x894C
_RUNNING = 1 << 6  # IFF_RUNNING: up, with carrier, and its queues are active
_CARRIER_TIMEOUT_S, _CARRIER_POLL_S = 2.0, 0.001
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_GROUP = 1, 3, 4, 5, 27
_OUR_GROUPS = {messages.LINK_GROUP, messages.DOOMED_GROUP}
_DUMP_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link as the kernel shows it. peer_ifindex: of the other end, in its own namespace."""

    ifindex: int
    name: str
    mac: str
    mtu_bytes: int
    peer_ifindex: int
    group: int
    is_up: bool
    is_running: bool


@dataclass(frozen=True, slots=True)
class PodNamespace:
    """A pod's network namespace and a rtnetlink socket that was opened inside it."""

    fd: int
    route: RouteSocket


@contextmanager
def pod_namespace(netns_fd: int, route_fd: int) -> Iterator[PodNamespace]:
    """Both descriptors stay the caller's. Raises CniError INVALID_NETNS unless they fit together.

    What was passed comes from a path that anyone may have planted: the kernel says what it is.
    """
    _check_namespace(netns_fd, route_fd)
    with RouteSocket(socket.socket(fileno=os.dup(route_fd))) as route:
        yield PodNamespace(netns_fd, route)


def _check_namespace(netns_fd: int, route_fd: int) -> None:
    try:
        is_network = fcntl.ioctl(netns_fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        is_network = False
    if not is_network:
        raise CniError(
            Code.INVALID_NETNS,
            "CNI_NETNS is no network namespace",
            "the path leads to something that is not a file of nsfs",
        )
    try:
        home_fd = fcntl.ioctl(route_fd, _SIOCGSKNS)
    except OSError as error:
        raise CniError(
            Code.INVALID_NETNS, "the passed socket has no network namespace", str(error)
        ) from error
    try:
        same = os.path.sameopenfile(home_fd, netns_fd)
    finally:
        os.close(home_fd)
    if not same:
        raise CniError(Code.INVALID_NETNS, "the passed socket lies in another network namespace")


def is_own_namespace(netns_fd: int) -> bool:
    own = Path("/proc/self/ns/net").stat()
    theirs = os.fstat(netns_fd)
    return (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino)


def make_link(pod: PodNamespace, plan: LinkPlan) -> int:
    """The pair, its pod side complete and its host end down; returns the host end's ifindex.

    Leaves nothing when it fails. Raises CniError: INTERFACE_EXISTS, WIRING_FAILED.
    """
    with RouteSocket.here() as host, _as_cni_errors(plan):
        bridge_ifindex = 0
        if plan.mode is LinkMode.BRIDGE:
            bridge_ifindex = _get(host, messages.get_link(plan.bridge)).ifindex
        wanted = messages.create(plan, pod.fd, bridge_ifindex)
        try:
            link = _get(host, *wanted)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            _clear_the_way(host, pod, plan)
            link = _get(host, *wanted)
        try:
            pod.route.exchange(messages.configure_pod(plan, link.peer_ifindex))
        except OSError:
            delete_links([plan.host_ifname])
            raise
    return link.ifindex


def open_link(pod: PodNamespace, plan: LinkPlan, host_ifindex: int) -> None:
    """Lets traffic through: host end up, the host's routes; returns once the pod can send.

    A link sends once the kernel has done its carrier work; asking for it does that work at once
    from 6.8 on (rtnl_getlink), before it comes by itself some milliseconds later.
    """
    with RouteSocket.here() as host, _as_cni_errors(plan):
        opening = messages.open_host(plan, host_ifindex)
        host.exchange([*opening, messages.get_link(plan.host_ifname)])
        deadline_s = time.monotonic() + _CARRIER_TIMEOUT_S
        while not _get(pod.route, messages.get_link(plan.ifname)).is_running:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{plan.ifname} has no carrier after {_CARRIER_TIMEOUT_S} s")
            time.sleep(_CARRIER_POLL_S)


def delete_links(names: Sequence[str]) -> None:
    """Removes links by one call for all of them; one that is not there is success.

    One by one each costs a grace period under the RTNL lock, as a group one for all.
    """
    with RouteSocket.here() as host:
        if len(names) == 1:
            _forgiving(host, messages.delete_link(names[0]))
            return
        for message in messages.doom(names):
            _forgiving(host, message)
        _forgiving(host, messages.delete_doomed())


def our_links() -> tuple[LinkState, ...]:
    """Every host end that we made and that is still there, doomed or not."""
    with RouteSocket.here() as host:
        answers = dump(host, messages.list_veths())
    return tuple(link for body in answers if (link := link_state(body)).group in _OUR_GROUPS)


def find_link(route: RouteSocket, name: str) -> LinkState | None:
    try:
        return _get(route, messages.get_link(name))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def ensure_bridge(name: str, mac: str, mtu_bytes: int, addresses: Sequence[Interface]) -> None:
    """A bridge that is up and holds `addresses`, the pods' gateways; made unless it is there."""
    with RouteSocket.here() as host:
        link = find_link(host, name)
        if link is None:
            try:
                host.exchange([messages.create_bridge(name, mac, mtu_bytes)])
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
            link = _get(host, messages.get_link(name))
        host.exchange([messages.bridge_address(link.ifindex, one) for one in addresses])


def dump(route: RouteSocket, message: Message) -> list[bytes]:
    """The bodies of a dump's answers; one that a change interrupted is asked again."""
    for attempt in range(_DUMP_ATTEMPTS):
        try:
            return [answer.body for answer in route.exchange([message])]
        except NetlinkError as error:
            if error.errno != errno.EAGAIN or attempt == _DUMP_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def link_state(body: bytes) -> LinkState:
    """Reads the body of an RTM_NEWLINK."""
    _, _, ifindex, flags, _ = _IFINFO.unpack_from(body)
    fields = dict(parse_attributes(body[_IFINFO.size :]))
    return LinkState(
        ifindex=ifindex,
        name=fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        mac=fields.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=number(fields.get(_IFLA_MTU)),
        peer_ifindex=number(fields.get(_IFLA_LINK)),
        group=number(fields.get(_IFLA_GROUP)),
        is_up=bool(flags & 1),
        is_running=bool(flags & _RUNNING),
    )


def number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0


def _get(route: RouteSocket, *asked: Message) -> LinkState:
    return link_state(route.exchange(asked)[-1].body)


def _forgiving(route: RouteSocket, message: Message) -> None:
    """Sends a message whose link may be gone: absent is success."""
    try:
        route.exchange([message])
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise


def _clear_the_way(host: RouteSocket, pod: PodNamespace, plan: LinkPlan) -> None:
    """One of the pair's names is taken: the pod's is never taken over, our own orphan goes.

    No lease names this host end (the caller made sure), so a link of our group under its name
    was left by a daemon that died between making it and writing its lease.
    """
    if find_link(pod.route, plan.ifname) is not None:
        raise CniError(
            Code.INTERFACE_EXISTS,
            f"the pod already has an interface {plan.ifname}",
            "it was not made by this attachment and is left as it is",
        )
    orphan = find_link(host, plan.host_ifname)
    if orphan is not None and orphan.group not in _OUR_GROUPS:
        raise CniError(
            Code.INTERFACE_EXISTS,
            f"the node already has a link {plan.host_ifname}",
            f"its group is {orphan.group:#x}, not ours: remove it or rename it",
        )
    delete_links([plan.host_ifname])


@contextmanager
def _as_cni_errors(plan: LinkPlan) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CniError(
            Code.WIRING_FAILED, f"cannot wire {plan.ifname} to {plan.host_ifname}", str(error)
        ) from error
