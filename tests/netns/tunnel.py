"""Two tun devices of one name in two namespaces, joined: links without an Ethernet header.

usage: tunnel.py NAMESPACE NAMESPACE NAME. Prints "ready" once both are there.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
CLONE_NEWNET = 0x40000000
PACKET_BYTES = 65536


def tun(namespace: str, name: str) -> int:
    """A device in `namespace`; it is there as long as the descriptor."""
    with open(namespace) as where:
        if ctypes.CDLL(None, use_errno=True).setns(where.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"enter {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def carry(source: int, target: int) -> None:
    """One packet; what a device that is down does not take is lost, as on a wire."""
    with contextlib.suppress(OSError):
        os.write(target, os.read(source, PACKET_BYTES))


def main() -> None:
    near, far = (tun(namespace, sys.argv[3]) for namespace in sys.argv[1:3])
    print("ready", flush=True)
    while True:
        for device in select.select([near, far], [], [])[0]:
            carry(device, far if device == near else near)


if __name__ == "__main__":
    main()
