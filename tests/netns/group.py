"""One word to or from a multicast group. usage: group.py hear GROUP PORT READY-FILE SECONDS |
say GROUP PORT. `hear` prints who spoke, or "nothing"; its own word does not count.
"""

import contextlib
import socket
import struct
import sys
from pathlib import Path

LINK = "eth0"


def joined(group: str) -> socket.socket:
    six = ":" in group
    one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    packed = socket.inet_pton(one.family, group)
    index = socket.if_nametoindex(LINK)
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


def hear(group: str, port: int, ready: Path, limit_s: float) -> str:
    one = joined(group)
    one.bind(("", port))
    one.settimeout(limit_s)
    ready.touch()
    with contextlib.suppress(TimeoutError):
        return str(one.recvfrom(100)[1][0])
    return "nothing"


def main() -> None:
    what, group, port, *words = sys.argv[1:]
    if what == "hear":
        print(hear(group, int(port), Path(words[0]), float(words[1])))
    else:
        joined(group).sendto(b"hello", (group, int(port)))


if __name__ == "__main__":
    main()
