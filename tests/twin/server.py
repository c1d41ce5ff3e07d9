"""Answers every TCP connection and UDP datagram with its name and the source that it sees.

usage: server.py NAME PORT READY-FILE. One thread, and a connection is closed at once: it is asked
thousands of times (deploy/netlab/answer.py has a thread for each and keeps them open).
"""

import contextlib
import selectors
import socket
import sys
from pathlib import Path


def greeting(name: str, peer: str) -> bytes:
    return f"{name} {peer.removeprefix('::ffff:')}\n".encode()


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    listener = socket.create_server(
        ("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
    )
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    ready = selectors.DefaultSelector()
    for one in (listener, datagrams):
        ready.register(one, selectors.EVENT_READ)
    Path(sys.argv[3]).touch()
    while True:
        for key, _ in ready.select():
            # Who asked may have given up.
            with contextlib.suppress(OSError):
                if key.fileobj is datagrams:
                    _, peer = datagrams.recvfrom(512)
                    datagrams.sendto(greeting(name, peer[0]), peer)
                else:
                    connection, peer = listener.accept()
                    with connection:
                        connection.sendall(greeting(name, peer[0]))


if __name__ == "__main__":
    main()
