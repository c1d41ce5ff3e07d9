"""One word to or from a multicast group, all hosts of a link (255.255.255.255) or one address.

usage: group.py hear GROUP PORT LINK READY-FILE SECONDS | say GROUP PORT LINK. `hear` prints who
spoke, or "nothing"; its own word does not count.
"""

import contextlib
import socket
import struct
import sys
from ipaddress import ip_address
from pathlib import Path


def joined(group: str, link: str) -> socket.socket:
    six = ":" in group
    one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    if not ip_address(group).is_multicast:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        return one
    packed = socket.inet_pton(one.family, group)
    index = socket.if_nametoindex(link)
    if six:
        request = packed + struct.pack("@I", index)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    else:
        request = packed + bytes(4) + struct.pack("@i", index)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + request[8:])
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    return one


def hear(group: str, port: int, link: str, ready: Path, limit_s: float) -> str:
    one = joined(group, link)
    one.bind(("", port))
    one.settimeout(limit_s)
    ready.touch()
    with contextlib.suppress(TimeoutError):
        return str(one.recvfrom(100)[1][0])
    return "nothing"


def main() -> None:
    what, group, port, link, *words = sys.argv[1:]
    if what == "hear":
        print(hear(group, int(port), link, Path(words[0]), float(words[1])))
    else:
        joined(group, link).sendto(b"hello", (group, int(port)))


if __name__ == "__main__":
    main()
