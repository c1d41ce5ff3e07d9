"""Sends datagrams in fragments of its own making, in a chosen order; run inside a namespace.

usage: fragmented.py ask ADDRESS PORT ORDER...      a datagram for each order, echoed whole
       fragmented.py ping ADDRESS ORDER...          the same with ICMP echo
       fragmented.py serve PORT ORDER READY-FILE    echoes datagrams, in that order
       fragmented.py later ADDRESS PORT             only what follows a first that never comes
       fragmented.py inject SOURCE ADDRESS PORT ORDERS [FROM TO VNI]   as another's, in a tunnel
       fragmented.py catch PORT COUNT READY-FILE    prints how many came whole
An order is "201": the last fragment first. `ask` and `ping` print the orders that came back whole.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count
from pathlib import Path

PAYLOAD = bytes(range(256)) * 12
# Of what follows the network header; a multiple of 8 that fits any tunnel.
FRAGMENT_BYTES = 1104
TIMEOUT_S = 5.0
VXLAN_PORT = 8472
UDP, ICMP, ICMP6, FRAGMENT = 17, 1, 58, 44
# Of datagrams, 16 bits: no two that are under way between two ends have one.
ASKER_IDS, SERVER_IDS = 3, 13


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own_address(to: str) -> str:
    with socket.socket(family_of(to), socket.SOCK_DGRAM) as probe:
        probe.connect((to, 9))
        return str(probe.getsockname()[0])


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport(proto: int, src: str, dst: str, head: bytes, at: int, data: bytes) -> bytes:
    """Header and data, its checksum put at offset `at`."""
    ends = ip_address(src).packed + ip_address(dst).packed
    pseudo = b"" if proto == ICMP else ends + struct.pack("!II", len(head + data), proto)
    value = checksum(pseudo + head + data) or 0xFFFF
    return head[:at] + struct.pack("!H", value) + head[at + 2 :] + data


def identifiers(number: int, bits: int) -> Iterator[int]:
    """Of a process or a port. None is 0, in whose place raw(7) puts another."""
    return count((number << bits) + 1)


_identifiers = identifiers(os.getpid(), ASKER_IDS)


def pieces(
    proto: int, src: str, dst: str, body: bytes, piece_bytes: int = FRAGMENT_BYTES
) -> list[bytes]:
    """IP packets that together carry `body`."""
    ident = next(_identifiers) & 0xFFFF
    ends = ip_address(src).packed + ip_address(dst).packed
    made = []
    for at in range(0, len(body), piece_bytes):
        part = body[at : at + piece_bytes]
        more = at + len(part) < len(body)
        if ":" in src:
            head = struct.pack("!IHBB", 6 << 28, 8 + len(part), FRAGMENT, 64) + ends
            head += struct.pack("!BBHI", proto, 0, at | more, ident)
        else:
            flags = at // 8 | 0x2000 * more
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), ident, flags, 64, proto, 0)
            head = head[:10] + struct.pack("!H", checksum(head + ends)) + ends
        made.append(head + part)
    return made


def send(dst: str, packets: list[bytes], order: str) -> None:
    with socket.socket(family_of(dst), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for digit in order:
            raw.sendto(packets[int(digit)], (dst, 0))


def datagram(src: str, sport: int, dst: str, dport: int, data: bytes) -> list[bytes]:
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    return pieces(UDP, src, dst, transport(UDP, src, dst, head, 6, data))


def whole(orders: list[str], dst: str, port: int) -> Iterator[str]:
    src = own_address(dst)
    with socket.socket(family_of(dst), socket.SOCK_DGRAM) as answers:
        answers.bind(("", 0))
        answers.settimeout(TIMEOUT_S)
        for order in orders:
            send(dst, datagram(src, answers.getsockname()[1], dst, port, PAYLOAD), order)
            try:
                data, peer = answers.recvfrom(1 << 16)
            except TimeoutError:
                continue
            if data == PAYLOAD and peer[0] == dst:
                yield order


def whole_echoes(orders: list[str], dst: str) -> Iterator[str]:
    src = own_address(dst)
    proto, kind, reply = (ICMP6, 128, 129) if ":" in dst else (ICMP, 8, 0)
    with socket.socket(family_of(dst), socket.SOCK_RAW, proto) as answers:
        answers.settimeout(TIMEOUT_S)
        for number, order in enumerate(orders):
            head = struct.pack("!BBHHH", kind, 0, 0, 0x5EC1, number)
            send(dst, pieces(proto, src, dst, transport(proto, src, dst, head, 2, PAYLOAD)), order)
            wanted = struct.pack("!HH", 0x5EC1, number) + PAYLOAD
            try:
                while True:
                    data = answers.recv(1 << 16)
                    data = data if proto == ICMP6 else data[20:]
                    if data[0] == reply and data[4:] == wanted:
                        yield order
                        break
            except TimeoutError:
                continue


def serve(port: int, order: str, ready: Path) -> None:
    global _identifiers
    _identifiers = identifiers(port, SERVER_IDS)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", port))
        ready.touch()
        while True:
            data, peer = server.recvfrom(1 << 16)
            to = str(peer[0]).removeprefix("::ffff:")
            send(to, datagram(own_address(to), port, to, peer[1], data), order)


def inject(src: str, dst: str, port: int, orders: list[str], tunnel: list[str]) -> None:
    """From and to port `port`, as if `src` had sent it; tunnel: both ends and the VNI, or empty."""
    for order in orders:
        packets = datagram(src, port, dst, port, PAYLOAD)
        if tunnel:
            packets = [tunnelled(packet, *tunnel) for packet in packets]
        send(tunnel[1] if tunnel else dst, packets, order)


def tunnelled(packet: bytes, near: str, far: str, vni: str) -> bytes:
    """In an Ethernet frame in VXLAN (RFC 7348)."""
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    macs = bytes.fromhex("0200000000020200000000aa")
    frame = macs + struct.pack("!H", ethertype) + packet
    body = struct.pack("!II", 0x08000000, int(vni) << 8) + frame
    head = struct.pack("!HHHH", 50_000, VXLAN_PORT, 8 + len(body), 0)
    (outer,) = pieces(UDP, near, far, head + body, len(head + body))
    return outer


def catch(port: int, wanted: int, ready: Path) -> int:
    found = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
        listener.bind(("::", port))
        listener.settimeout(TIMEOUT_S * 2)
        ready.touch()
        try:
            while found < wanted:
                found += listener.recv(1 << 16) == PAYLOAD
        except TimeoutError:
            pass
    return found


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "ask":
        print(*whole(rest[2:], rest[0], int(rest[1])))
    elif what == "ping":
        print(*whole_echoes(rest[1:], rest[0]))
    elif what == "later":
        send(rest[0], datagram(own_address(rest[0]), 4000, rest[0], int(rest[1]), PAYLOAD), "1")
    elif what == "inject":
        inject(rest[0], rest[1], int(rest[2]), rest[3].split(","), rest[4:])
    elif what == "catch":
        print(catch(int(rest[0]), int(rest[1]), Path(rest[2])))
    else:
        serve(int(rest[0]), rest[1], Path(rest[2]))


if __name__ == "__main__":
    main()
