"""The cast of the packet tests: addresses of both families, and rows written as sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from tests.packet.packets import ACK, SYN, TCP, UDP, Address, Packet, echo, read_network
from tests.packet.runner import Node, Outcome
from weft.bpf.layout import (
    UNSPECIFIED,
    Backend,
    Flow,
    Frontend,
    FrontendKey,
    PodLink,
    PortKey,
    Prefix,
    PrefixFlag,
    PrefixKey,
    SettingFlag,
    Settings,
    Slot,
    SlotKey,
    Tuple,
    Uplink,
    Verdict,
    VerdictKey,
    Workload,
    pack_address,
    pack_u32,
    pack_u64,
    unpack_u32,
)

Network: TypeAlias = IPv4Network | IPv6Network
MAC_A, MAC_B = bytes.fromhex("020000000a0a"), bytes.fromhex("020000000b0b")
HOST_MAC = bytes.fromhex("0200000000ff")
LINK, OTHER_LINK, UPLINK = 1, 777, 1
SNAT_PORTS = (61_000, 61_999)
OVERLAY_PORT, ASK_PORT = 8472, 8474
# Whatever the kernel's is: limits only stretch or shrink by it.
HZ = 250
SERVICE = 0x5EC1
INGRESS, EGRESS = 0x1111, 0x2222


@dataclass(frozen=True, slots=True)
class Addresses:
    """One family's. a, b: pods of this node; c: a pod of the node at `peer_node`."""

    a: Address
    b: Address
    c: Address
    own_range: Network
    peer_range: Network
    gateway: Address
    peer_node: Address
    uplink: Address
    vip: Address
    services: Network
    outside: Address
    mask: Address


def _addresses(**words: str) -> Addresses:
    parsed = {k: ip_network(v) if "/" in v else ip_address(v) for k, v in words.items()}
    return Addresses(**parsed)  # type: ignore[arg-type]


ADDRESSES: Mapping[int, Addresses] = {
    4: _addresses(
        a="10.1.1.10", b="10.1.1.11", c="10.1.2.10", own_range="10.1.1.0/24",
        peer_range="10.1.2.0/24", gateway="10.1.1.1", peer_node="192.0.2.2", uplink="192.0.2.1",
        vip="10.96.0.10", services="10.96.0.0/16", outside="198.51.100.7", mask="169.254.1.1",
    ),
    6: _addresses(
        a="fd00:1:1::10", b="fd00:1:1::11", c="fd00:1:2::10", own_range="fd00:1:1::/64",
        peer_range="fd00:1:2::/64", gateway="fd00:1:1::1", peer_node="2001:db8::2",
        uplink="2001:db8::1", vip="fd00:96::a", services="fd00:96::/112",
        outside="2001:db8:f::7", mask="fe80::1",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """A port class's member: a protocol and a port, or all its ports (None)."""

    port_class: int
    proto: int
    port: int | None

    def key(self, number: int) -> PortKey:
        bits = 64 + 16 + (0 if self.port is None else 16)
        return PortKey(bits, number & 0xFFFFFFFF, number >> 32, self.proto, self.port or 0)


class Scene:
    """A node's rows, one family's addresses, and packets between them."""

    def __init__(self, node: Node, at: Addresses) -> None:
        self.node, self.at = node, at

    @property
    def version(self) -> int:
        return self.at.a.version

    def settings(self, **changes: object) -> None:
        row = Settings(
            host_netns=0,
            overlay_ifindex=LINK,
            flags=SettingFlag.OVERLAY | SettingFlag.MASQUERADE,
            overlay_vni=7,
            hz=HZ,
            snat_port_min=SNAT_PORTS[0],
            snat_port_max=SNAT_PORTS[1],
            event_sample=0,
            gateway4=ADDRESSES[4].gateway,
            gateway6=ADDRESSES[6].gateway,
            overlay_port=OVERLAY_PORT,
            ask_port=ASK_PORT,
            hold_from_pod=0,
            hold_to_pod=0,
            bridge_ifindex=0,
            node4=UNSPECIFIED,
            node6=UNSPECIFIED,
            bridge_mac=bytes(6),
        )
        self.node.put("settings", 0, replace(row, **changes))  # type: ignore[arg-type]

    def pod(
        self,
        address: Address,
        *,
        mac: bytes = MAC_A,
        ifindex: int = LINK,
        flags: int = 0,
        ingress: tuple[int, int] = (0, 0),
        egress: tuple[int, int] = (0, 0),
        holder: int = 1,
    ) -> None:
        """A local pod; ingress, egress: set and revision that judge it; holder: who it is."""
        sides = (ingress[0], revision(ingress[1], holder), egress[0], revision(egress[1], holder))
        row = Workload(*sides, ifindex, flags, mac, HOST_MAC)
        self.node.put("workloads", pack_address(address), row)
        # Where a scene has all its pods on one link, it is the first one's.
        if self.node.tables["pod_links"].lookup(pack_u32(ifindex)) is None:
            ends = {4: UNSPECIFIED, 6: UNSPECIFIED} | {self.version: address}
            self.node.put("pod_links", ifindex, PodLink(ends[4], ends[6]))

    def two_pods(self, **of_b: object) -> None:
        self.pod(self.at.a)
        self.pod(self.at.b, mac=MAC_B, **of_b)  # type: ignore[arg-type]

    def service(self, proto: int, *backends: Address, port: int = 80, target: int = 8080) -> None:
        """The VIP's port; backend ids are 1, 2, ... in their order."""
        self.node.put(
            "frontends", FrontendKey(self.at.vip, 0, 0), Frontend(SERVICE, 0, 0, 0, 0, 0, 0)
        )
        for number, address in enumerate(backends):
            self.node.put("backends", number + 1, Backend(SERVICE, 0))
            slot = Slot(number + 1, address, target)
            self.node.put("slots", SlotKey(SERVICE, number), slot)
        frontend = Frontend(SERVICE, 0, len(backends), 0, 0, 0, 0)
        self.node.put("frontends", FrontendKey(self.at.vip, port, proto), frontend)

    def replace_backend(self, address: Address) -> None:
        """The service's one endpoint is another now."""
        self.node.put("backends", 2, Backend(SERVICE, 0))
        self.node.put("slots", SlotKey(SERVICE, 0), Slot(2, address, 8080))

    def prefix(
        self,
        network: Network,
        flags: int,
        node: Address = UNSPECIFIED,
        ifindex: int = 0,
        mtu: int = 0,
    ) -> None:
        self.node.put("prefixes", prefix_key(network), Prefix(node, flags, ifindex, mtu))

    def local_range(self) -> None:
        self.prefix(self.at.own_range, PrefixFlag.LOCAL | PrefixFlag.NO_MASQUERADE)

    def remote_range(self, node: Address | None = None, mtu: int = 0) -> None:
        flags = PrefixFlag.REMOTE | PrefixFlag.NO_MASQUERADE
        self.prefix(self.at.peer_range, flags, node or self.at.peer_node, mtu=mtu)

    def direct_range(self, ifindex: int = UPLINK) -> None:
        """The peer's node is the next hop on a link of ours."""
        flags = PrefixFlag.REMOTE | PrefixFlag.NO_MASQUERADE | PrefixFlag.DIRECT
        self.prefix(self.at.peer_range, flags, self.at.peer_node, ifindex)

    def remove_pod(self, address: Address) -> None:
        self.node.tables["workloads"].delete([pack_address(address)])

    def peer(self, address: Address, peer: int) -> None:
        self.node.put("peers", pack_address(address), pack_u64(peer))

    def block(self, network: Network, peer: int) -> None:
        self.node.put("blocks", prefix_key(network), pack_u64(peer))

    def rule_set(self, number: int, allow: Mapping[int, int], ports: Iterable[Port] = ()) -> None:
        """allow: peer class -> bits of port classes; class 0 stands for every other peer."""
        for port in ports:
            self.node.put("ports", port.key(number), pack_u32(port.port_class))
        for peer, bits in allow.items():
            self.node.put("verdicts", VerdictKey(number, peer), _verdict(bits))

    def uplink(self) -> None:
        four, six = ADDRESSES[4].uplink, ADDRESSES[6].uplink
        self.node.put("uplinks", UPLINK, Uplink(four, six, 0))

    def flow(self, packet: Packet) -> Flow:
        """The flow that `packet`, as translated, belongs to; it must be there."""
        rows = self.node.rows("flows")
        one, other = _tuple(packet), _tuple(answer(packet))
        return Flow.unpack(rows.get(one.pack()) or rows[other.pack()])

    def network_of(self, address: Address, bits: int) -> Network:
        """The range of as many leading bits; IPv6 ranges are longer by the same share."""
        length = bits if address.version == 4 else bits * 4
        return ip_network((address, length), strict=False)

    def embedded(self, error: Packet) -> Packet:
        """What an ICMP error is about."""
        return read_network(error.data[4:], self.version)

    def age(self, table: str, seconds: int) -> None:
        """Every row of a state table was seen that much earlier; `seen` is its last field."""
        for key, value in self.node.rows(table).items():
            seen = (unpack_u32(value[-4:]) - seconds * HZ) % (1 << 32)
            self.node.put(table, key, value[:-4] + pack_u32(seen))

    def tcp(self, src: Address, dst: Address, *, flags: int = SYN, dport: int = 80) -> Packet:
        data = b"" if flags & SYN else b"hello"
        one = Packet(src=src, dst=dst, proto=TCP, sport=4000, dport=dport, flags=flags, data=data)
        return self._of(src, one)

    def udp(self, src: Address, dst: Address, *, dport: int = 80) -> Packet:
        one = Packet(src=src, dst=dst, proto=UDP, sport=4000, dport=dport, data=b"question?")
        return self._of(src, one)

    def ping(self, src: Address, dst: Address, *, reply: bool = False) -> Packet:
        return self._of(src, echo(Packet(src=src, dst=dst, proto=0), 0x77, reply=reply))

    def _of(self, src: Address, packet: Packet) -> Packet:
        macs = {self.at.a: MAC_A, self.at.b: MAC_B}
        return replace(packet, eth_src=macs.get(src, HOST_MAC), eth_dst=HOST_MAC)

    def send(self, packet: Packet) -> Outcome:
        """From the pod that is its source."""
        return self.node.run("from_pod", packet.frame)


def revision(judged: int, holder: int = 1) -> int:
    """As the workloads planner writes it."""
    return holder << 40 | judged


def _verdict(bits: int) -> Verdict:
    return Verdict(tuple(bits >> 64 * word & (1 << 64) - 1 for word in range(4)))


def _tuple(packet: Packet) -> Tuple:
    return Tuple(packet.src, packet.dst, packet.sport, packet.dport, packet.proto)


def prefix_key(network: Network) -> PrefixKey:
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return PrefixKey(bits, network.network_address)


def answer(packet: Packet, *, flags: int = SYN | ACK) -> Packet:
    """What its receiver sends back, from its own link."""
    macs = {MAC_A: MAC_B, MAC_B: MAC_A}
    swapped = replace(
        packet, src=packet.dst, dst=packet.src, sport=packet.dport, dport=packet.sport
    )
    source = macs.get(packet.eth_src, HOST_MAC)
    flags = flags if packet.proto == TCP else 0
    return replace(swapped, eth_src=source, eth_dst=HOST_MAC, flags=flags)
