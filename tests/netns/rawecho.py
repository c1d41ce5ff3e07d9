"""Packets of a bare IP protocol: one side sends them back, the other asks.

usage: rawecho.py serve VERSION PROTOCOL READY-FILE | rawecho.py ask ADDRESS PROTOCOL HEX.
ask prints what came back. serve answers with what it got, after a name that says whom it saw.
"""

import socket
import sys
from pathlib import Path

FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}


def payload(family: int, packet: bytes) -> bytes:
    """A raw IPv4 socket gives the header too."""
    return packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet


def serve(version: str, proto: int, ready: str) -> None:
    family = FAMILIES[version]
    with socket.socket(family, socket.SOCK_RAW, proto) as bare:
        Path(ready).touch()
        while True:
            packet, (peer, *_) = bare.recvfrom(65536)
            got = payload(family, packet)
            # SCTP's two ports change places; of the others these bytes are whatever they are.
            got = got[2:4] + got[:2] + got[4:] if proto == socket.IPPROTO_SCTP else got
            bare.sendto(got + peer.encode(), (peer, 0))


def ask(address: str, proto: int, data: bytes) -> None:
    family = FAMILIES["6" if ":" in address else "4"]
    with socket.socket(family, socket.SOCK_RAW, proto) as bare:
        bare.settimeout(2)
        bare.connect((address, 0))
        bare.send(data)
        print(payload(family, bare.recv(65536))[len(data) :].decode())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        ask(sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
