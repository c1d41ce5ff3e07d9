"""Packets as bytes, and bytes as packets: what the tests send and what they read back.

Owns building and reading Ethernet, ARP, IPv4, IPv6, TCP, UDP and ICMP. Checksums are right when a
packet is built and told when one is read. Knows nothing of the programs under test.
"""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION = 0, 43, 44, 59, 60
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ECHO = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
UNREACHABLE = {4: 3, 6: 1}
PORT_UNREACHABLE = {4: 3, 6: 4}
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
TOO_BIG = {4: (3, 4), 6: (2, 0)}
_DONT_FRAGMENT, _MORE_FRAGMENTS = 0x4000, 0x2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One IP packet in an Ethernet frame. data: what follows the transport header, of ICMP what
    follows its checksum. sport, dport: of ICMP its type and code. offset: of a fragment, in bytes.
    whole: IPv4 that no router may fragment. tcp_options: in words of 4 bytes.
    options: IPv4's, or IPv6's hop-by-hop header. behind: IPv6's other extension headers, by their
    numbers; they follow the fragment header, and only the first fragment has them.
    checksums_hold: of a packet that was read, its own and not what it embeds."""

    src: Address
    dst: Address
    proto: int
    sport: int = 0
    dport: int = 0
    flags: int = 0
    sequence: int = 1000
    acknowledged: int = 0
    data: bytes = b""
    eth_src: bytes = bytes(6)
    eth_dst: bytes = bytes(6)
    options: bytes = b""
    tcp_options: bytes = b""
    whole: bool = False
    behind: tuple[tuple[int, bytes], ...] = ()
    more: bool = False
    offset: int = 0
    ident: int = 0
    hops: int = 64
    no_checksum: bool = False
    checksums_hold: bool = True

    @property
    def version(self) -> int:
        return self.src.version

    @property
    def packet_ends(self) -> tuple[Address, int, Address, int]:
        return self.src, self.sport, self.dst, self.dport

    @property
    def transport(self) -> bytes:
        """The transport header and what follows, checksummed."""
        if self.offset:
            return self.data
        if self.proto == TCP:
            length = 0x50 + len(self.tcp_options) * 4
            numbers = (self.sport, self.dport, self.sequence, self.acknowledged, length, self.flags)
            head, at = struct.pack("!HHIIBBHHH", *numbers, 64000, 0, 0) + self.tcp_options, 16
        elif self.proto == UDP:
            head = struct.pack("!HHHH", self.sport, self.dport, 8 + len(self.data), 0)
            at = 6
        elif self.proto in (ICMP, ICMP6):
            head, at = struct.pack("!BBH", self.sport, self.dport, 0), 2
        else:
            return self.data
        if self.no_checksum:
            return head + self.data
        value = checksum(self.pseudo(len(head + self.data)) + head + self.data)
        return head[:at] + struct.pack("!H", value) + head[at + 2 :] + self.data

    def pseudo(self, length: int) -> bytes:
        """What the transport checksum covers of the network header; ICMP's covers nothing."""
        if self.proto == ICMP:
            return b""
        return self.src.packed + self.dst.packed + struct.pack("!II", length, self.proto)

    @property
    def network(self) -> bytes:
        """The packet without its frame."""
        return self._ipv4() if self.version == 4 else self._ipv6()

    def _ipv4(self) -> bytes:
        body, words = self.transport, 5 + len(self.options) // 4
        fragment = (_MORE_FRAGMENTS if self.more else 0) | self.offset // 8
        fragment |= _DONT_FRAGMENT if self.whole else 0
        head = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x40 | words, 0, words * 4 + len(body), self.ident, fragment),
            *(self.hops, self.proto, 0, self.src.packed, self.dst.packed),
        )
        head += self.options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body

    def _ipv6(self) -> bytes:
        body, following = self.transport, self.proto
        for number, header in reversed(self.behind):
            if not self.offset:
                body = bytes([following]) + header[1:] + body
            following = number
        if self.more or self.offset:
            where = self.offset | int(self.more)
            body = struct.pack("!BBHI", following, 0, where, self.ident) + body
            following = FRAGMENT
        if self.options:
            body = bytes([following]) + self.options[1:] + body
            following = HOP_BY_HOP
        head = struct.pack("!IHBB", 6 << 28, len(body), following, self.hops)
        return head + self.src.packed + self.dst.packed + body

    @property
    def frame(self) -> bytes:
        return ethernet(self.eth_dst, self.eth_src, _ETHERTYPES[self.version], self.network)


def ethernet(dst: bytes, src: bytes, ethertype: int, payload: bytes) -> bytes:
    return dst + src + struct.pack("!H", ethertype) + payload


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(request: Packet, ident: int, *, reply: bool = False) -> Packet:
    """`request` as an ICMP echo of the identifier `ident`."""
    kinds = ECHO_REPLY if reply else ECHO
    proto = ICMP if request.version == 4 else ICMP6
    data = struct.pack("!HH", ident, 1) + b"ping"
    return replace(request, proto=proto, sport=kinds[request.version], dport=0, data=data)


def too_big(src: Address, dst: Address, about: bytes) -> Packet:
    """An ICMP error that says which MTU `about` does not fit: fragmentation needed (RFC 1191), or
    packet too big (RFC 4443 3.2)."""
    mtu = struct.pack("!I", 1280)
    if src.version == 4:
        return Packet(src=src, dst=dst, proto=ICMP, sport=UNREACHABLE[4], dport=4, data=mtu + about)
    return Packet(src=src, dst=dst, proto=ICMP6, sport=2, data=mtu + about)


def unreachable(src: Address, dst: Address, about: bytes) -> Packet:
    """An ICMP port unreachable that embeds the packet `about` (from its IP header on)."""
    proto = ICMP if src.version == 4 else ICMP6
    kind, code = UNREACHABLE[src.version], PORT_UNREACHABLE[src.version]
    return Packet(src=src, dst=dst, proto=proto, sport=kind, dport=code, data=bytes(4) + about)


def arp(mac: bytes, sender: Address, target: Address, *, frame_mac: bytes = b"") -> bytes:
    """Who has `target`? Tell `sender` at `mac`, in a frame from the same MAC unless said so."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    body += mac + sender.packed + bytes(6) + target.packed
    return ethernet(b"\xff" * 6, frame_mac or mac, 0x0806, body)


def read(frame: bytes) -> Packet:
    """A frame that holds one IP packet; raises ValueError for others."""
    version = 4 if _u16(frame, 12) == _ETHERTYPES[4] else 6
    packet = read_network(frame[14:], version)
    return replace(packet, eth_dst=frame[:6], eth_src=frame[6:12])


def read_network(data: bytes, version: int) -> Packet:
    """An IP packet, also one that an ICMP error embeds and cuts."""
    if version == 4:
        words = data[0] & 15
        head, body = data[: words * 4], data[words * 4 : _u16(data, 2)]
        base = Packet(
            src=IPv4Address(data[12:16]),
            dst=IPv4Address(data[16:20]),
            proto=data[9],
            hops=data[8],
            ident=_u16(data, 4),
            whole=bool(_u16(data, 6) & _DONT_FRAGMENT),
            more=bool(_u16(data, 6) & _MORE_FRAGMENTS),
            offset=(_u16(data, 6) & 0x1FFF) * 8,
            checksums_hold=checksum(head) == 0,
        )
        return _with_transport(base, body)
    base = Packet(
        src=IPv6Address(data[8:24]), dst=IPv6Address(data[24:40]), proto=data[6], hops=data[7]
    )
    body = data[40 : 40 + _u16(data, 4)]
    while base.proto in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT) and not base.offset:
        length = 8
        if base.proto == FRAGMENT:
            where = _u16(body, 2)
            base = replace(base, more=bool(where & 1), offset=where & 0xFFF8)
        else:
            length = (body[1] + 1) * 8
        base, body = replace(base, proto=body[0]), body[length:]
    return _with_transport(base, body)


def embedded_header_holds(error: Packet) -> bool:
    """Whether the IP header that an ICMP error embeds has a right checksum; IPv6 has none."""
    return error.version == 6 or checksum(error.data[4:24]) == 0


def _with_transport(base: Packet, body: bytes) -> Packet:
    if base.offset:
        return replace(base, data=body)
    packet = replace(base, data=body)
    if base.proto == TCP and len(body) >= 20:
        sequence, acknowledged = struct.unpack_from("!II", body, 4)
        packet = replace(
            packet,
            flags=body[13],
            sequence=sequence,
            acknowledged=acknowledged,
            tcp_options=body[20 : (body[12] >> 4) * 4],
            data=body[(body[12] >> 4) * 4 :],
        )
    elif base.proto == UDP:
        packet = replace(packet, data=body[8:], no_checksum=_u16(body, 6) == 0)
    if base.proto in (ICMP, ICMP6):
        packet = replace(packet, sport=body[0], dport=body[1], data=body[4:])
    elif base.proto in (TCP, UDP):
        packet = replace(packet, sport=_u16(body, 0), dport=_u16(body, 2))
    return replace(packet, checksums_hold=base.checksums_hold and _holds(packet, body))


def _holds(packet: Packet, body: bytes) -> bool:
    """Whether the transport checksum is right; a first fragment's covers what is not there."""
    if packet.more or packet.no_checksum or packet.proto not in (TCP, UDP, ICMP, ICMP6):
        return True
    return checksum(packet.pseudo(len(body)) + body) == 0


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
