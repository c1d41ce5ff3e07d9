"""What a mesh's proxy sees of a connection that netfilter redirected to it, and a client for it.

usage: mesh.py serve PORT READY-FILE | ask ADDRESS PORT. The server answers with the address and
port that were dialled before the redirect; the client prints the answer, or the error.
"""

import socket
import struct
import sys
import threading
from pathlib import Path

TIMEOUT_S = 5.0
# linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h
_SO_ORIGINAL_DST = 80
_LEVELS = {socket.AF_INET: socket.SOL_IP, socket.AF_INET6: socket.IPPROTO_IPV6}


def dialled(connection: socket.socket) -> str:
    raw = connection.getsockopt(_LEVELS[connection.family], _SO_ORIGINAL_DST, 28)
    (port,) = struct.unpack_from("!H", raw, 2)
    address = raw[4:8] if connection.family == socket.AF_INET else raw[8:24]
    return f"{socket.inet_ntop(connection.family, address)} {port}"


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(dialled(connection).encode())


def listeners(port: int) -> list[socket.socket]:
    """One of each family: a mapped connection has no original destination."""
    found = []
    for family, place in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((place, port))
        one.listen()
        found.append(one)
    return found


def ask(address: str, port: int) -> str:
    with socket.create_connection((address, port), TIMEOUT_S) as stream:
        stream.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: stream.recv(1 << 10), b"")).decode().strip()


def main() -> None:
    what, *words = sys.argv[1:]
    if what == "serve":
        threads = [threading.Thread(target=serve, args=[one]) for one in listeners(int(words[0]))]
        for thread in threads:
            thread.start()
        Path(words[1]).touch()
        return
    try:
        print(ask(words[0], int(words[1])))
    except OSError as error:
        print(repr(error))


if __name__ == "__main__":
    main()
