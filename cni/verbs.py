"""Owns the verbs' decisions: names, MACs, the link and the result of an ADD, what GC frees.

Pure: the caller brings what the lease file and the kernel say. Never does any of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_interface

from weft.cni.ipam import gateway_of
from weft.cni.node import ROUTED_GATEWAYS, LinkMode, PodNetwork, Range
from weft.cni.results import AddResult, Interface, Link
from weft.cni.spec import Address, Attachment, CniError, Code, Key, NetworkConfig, Request

# One MAC for every host end, so that a pod's permanent neighbour entry can never be wrong.
ROUTED_HOST_MAC = "02:77:65:66:74:01"


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A veth pair before it exists. addresses and gateways pair up, one of each per family.

    In a bridge the addresses carry the range's prefix length; else they are /32 and /128.
    local_ranges: what pods reach by a route of its own where route_mtu_bytes narrows the default.
    """

    host_ifname: str
    host_mac: str
    ifname: str
    pod_mac: str
    mtu_bytes: int
    mode: LinkMode
    bridge: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    sources: tuple[Address, ...] = ()
    route_mtu_bytes: int = 0
    local_ranges: tuple[Range, ...] = ()


def host_ifname(key: Key) -> str:
    """`weft` and 44 bits of a hash: 15 characters, the kernel's most."""
    return "weft" + _digest(str(key))[:11]


def pod_mac(addresses: Sequence[Address]) -> str:
    """A locally administered MAC that is a function of the pod's first address.

    Whoever gets the address next gets the MAC too: nobody's neighbour table goes stale.
    """
    return _local_mac(f"pod {addresses[0]}")


def bridge_mac(name: str) -> str:
    return _local_mac(f"bridge {name}")


def plan_link(request: Request, network: PodNetwork, addresses: Sequence[Address]) -> LinkPlan:
    """The veth pair that gives the pod `addresses` in `network`."""
    name = host_ifname(request.key)
    routed = network.mode is LinkMode.ROUTED
    return LinkPlan(
        host_ifname=name,
        host_mac=ROUTED_HOST_MAC if routed else _local_mac(f"port {name}"),
        ifname=request.ifname,
        pod_mac=request.mac or pod_mac(addresses),
        mtu_bytes=network.mtu_bytes,
        mode=network.mode,
        bridge=network.bridge,
        addresses=tuple(_interface(one, network) for one in addresses),
        gateways=tuple(_gateway(one, network) for one in addresses),
        sources=network.sources,
        route_mtu_bytes=network.route_mtu_bytes,
        local_ranges=network.ranges if routed else (),
    )


def attachment_of(
    request: Request, plan: LinkPlan, host_ifindex: int, netns_cookie: int
) -> Attachment:
    return Attachment(
        container_id=request.container_id,
        ifname=request.ifname,
        netns=request.netns,
        pod_namespace=request.pod_namespace,
        pod_name=request.pod_name,
        pod_uid=request.pod_uid,
        addresses=tuple(one.ip for one in plan.addresses),
        host_ifname=plan.host_ifname,
        host_ifindex=host_ifindex,
        host_mac=plan.host_mac,
        pod_mac=plan.pod_mac,
        mtu_bytes=plan.mtu_bytes,
        network=request.config.name,
        netns_cookie=netns_cookie,
    )


def result_of(request: Request, plan: LinkPlan) -> AddResult:
    """Host end first, pod end second: the order that chained plugins look for (bandwidth)."""
    return AddResult(
        links=(
            Link(plan.host_ifname, plan.host_mac, plan.mtu_bytes, ""),
            Link(plan.ifname, plan.pod_mac, plan.mtu_bytes, request.netns),
        ),
        addresses=plan.addresses,
        gateways=plan.gateways,
        dns=request.config.dns,
    )


def refuse_chained(config: NetworkConfig) -> None:
    """Raises CniError INVALID_CONFIG for an ADD behind another plugin: we make the interface."""
    if bytes(config.prev_result) not in (b"", b"null"):
        raise CniError(
            Code.INVALID_CONFIG,
            f"{config.type} must be the first plugin of the network {config.name}",
            "the configuration carries a prevResult; move the plugin to the front of the list",
        )


def stale_keys(config: NetworkConfig, held: Iterable[Attachment]) -> tuple[Key, ...]:
    """What GC frees: attachments of this network that the runtime does not list as valid.

    Without either key nothing is known to be stale; an empty list frees the whole network.
    """
    listed = [one for one in (config.valid_attachments, config.attachments) if one is not None]
    if not listed:
        return ()
    valid = {Key(one.container_id, one.ifname) for part in listed for one in part}
    return tuple(one.key for one in held if one.network == config.name and one.key not in valid)


def _interface(address: Address, network: PodNetwork) -> Interface:
    """An address of its own, or in a bridge the range's prefix, on which its neighbours are."""
    prefix: int = address.max_prefixlen
    if network.mode is LinkMode.BRIDGE:
        prefix = next(one.prefixlen for one in network.ranges if address in one)
    return ip_interface((address, prefix))


def _gateway(address: Address, network: PodNetwork) -> Address:
    if network.mode is LinkMode.BRIDGE:
        return next(gateway_of(one) for one in network.ranges if address in one)
    return next(one for one in ROUTED_GATEWAYS if one.version == address.version)


def _local_mac(text: str) -> str:
    return "02:" + bytes.fromhex(_digest(text)[:10]).hex(":")


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
