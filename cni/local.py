"""Owns CNI without a daemon (cnitool, Podman): the node's part read from the configuration itself.

No eBPF and no policy: every pod may talk. Where a daemon serves, this is never used.
"""

import ctypes
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_interface, ip_network
from pathlib import Path

from weft.cni import verbs, wiring
from weft.cni.ipam import gateway_of
from weft.cni.node import LinkMode, PodNetwork
from weft.cni.plugin import Descriptors
from weft.cni.spec import Attachment, CniError, Code, NetworkConfig

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_IPV6_CONF = Path("/proc/sys/net/ipv6/conf")


class AllowAll:
    """A `Node` without a datapath: what is attached may send and receive at once."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config

    async def attached(self, attachment: Attachment) -> None:
        log.info("%s attached as %s", attachment.key, ", ".join(map(str, attachment.addresses)))

    async def detached(self, attachment: Attachment) -> None:
        log.info("%s detached", attachment.key)

    async def missing(self, attachment: Attachment) -> tuple[str, ...]:
        return ()

    def network(self) -> PodNetwork:
        """Raises CniError INVALID_CONFIG, naming the key, where `mode` or `ranges` do not read."""
        config = self._config
        try:
            mode = LinkMode(config.mode)
        except ValueError as error:
            words = " or ".join(LinkMode)
            raise CniError(Code.INVALID_CONFIG, f"mode is {config.mode!r}, not {words}") from error
        try:
            ranges = tuple(ip_network(text) for text in config.ranges)
        except ValueError as error:
            raise CniError(Code.INVALID_CONFIG, "cannot read `ranges`", str(error)) from error
        return PodNetwork(ranges, mode, config.mtu_bytes, config.bridge)


def prepare_host(network: PodNetwork) -> None:
    """What a daemon would have done before: forwarding, and in bridge mode the bridge."""
    for version in {one.version for one in network.ranges}:
        _forward(version)
    if network.mode is LinkMode.BRIDGE:
        gateways = [ip_interface((gateway_of(one), one.prefixlen)) for one in network.ranges]
        mac = verbs.bridge_mac(network.bridge)
        wiring.ensure_bridge(network.bridge, mac, network.mtu_bytes, gateways)


def _forward(version: int) -> None:
    if version == 4:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return
    # A router ignores advertisements unless accept_ra is 2: without it uplinks lose their routes.
    for accept in _IPV6_CONF.glob("*/accept_ra"):
        with suppress(OSError):
            if accept.read_text().strip() == "1":
                accept.write_text("2")
    (_IPV6_CONF / "all/forwarding").write_text("1")


@contextmanager
def open_namespace(path: str) -> Iterator[Descriptors]:
    """What the shim does in C: the namespace, and a rtnetlink socket opened inside it.

    Raises OSError. Enters the namespace and comes back: for a process of one thread.
    """
    setns = ctypes.CDLL(None, use_errno=True).setns
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        netns_fd = os.open(path, flags)
        try:
            _enter(setns, netns_fd)
            try:
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
                route = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            finally:
                _enter(setns, own_fd)
            with route:
                yield Descriptors(netns_fd, route.fileno())
        finally:
            os.close(netns_fd)
    finally:
        os.close(own_fd)


def _enter(setns: "ctypes._NamedFuncPointer", fd: int) -> None:
    if setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
