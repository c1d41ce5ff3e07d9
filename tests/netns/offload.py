"""Turns a link's help with checksums and segments off: every packet is summed and cut by software.

usage: offload.py LINK, inside the link's namespace. ETHTOOL_S* of linux/ethtool.h by SIOCETHTOOL.
"""

import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
IFNAMSIZ = 16
# Receive and transmit checksums, TSO, GSO, GRO.
SWITCHES = (0x15, 0x17, 0x1F, 0x24, 0x2C)


def turn_off(link: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in SWITCHES:
            value = bytearray(struct.pack("=II", command, 0))
            where = ctypes.addressof(ctypes.c_char.from_buffer(value))
            request = struct.pack(f"={IFNAMSIZ}sQ16x", link.encode(), where)
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)


if __name__ == "__main__":
    turn_off(sys.argv[1])
