"""A server that takes and gives bulk, and a client for it, as processes of a lab's namespaces.

usage: bulk.py serve PORT READY-FILE | tcp ADDRESS PORT BYTES | udp ADDRESS PORT BYTES |
closed ADDRESS PORT. TCP: the client sends and the server says how much came and its hash, whole
segments being handed down uncut. UDP: a datagram comes back as it is. closed: one datagram to where
nobody listens. The client prints "ok" and the peer that answered, "refused", or another error.
"""

import errno
import hashlib
import socket
import socketserver
import sys
import threading
from pathlib import Path

TIMEOUT_S = 5.0
REFUSED = "refused"
_PATTERN = bytes(range(256)) * 256


class Tcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        digest, total = hashlib.sha256(), 0
        while data := self.request.recv(1 << 16):
            digest.update(data)
            total += len(data)
        self.request.sendall(f"{total} {digest.hexdigest()}".encode())


class Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, server = self.request
        server.sendto(data, self.client_address)


class TcpServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


class UdpServer(socketserver.ThreadingUDPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    max_packet_size = 1 << 16


def serve(port: int, ready: Path) -> None:
    servers = [TcpServer(("::", port), Tcp), UdpServer(("::", port), Udp)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    ready.touch()
    for thread in threads:
        thread.join()


def pattern(size: int) -> bytes:
    return (_PATTERN * (size // len(_PATTERN) + 1))[:size]


def send_stream(address: str, port: int, size: int) -> str:
    data = pattern(size)
    with socket.create_connection((address, port), TIMEOUT_S) as stream:
        peer = stream.getpeername()[0]
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: stream.recv(1 << 16), b"")).decode()
        wanted = f"{size} {hashlib.sha256(data).hexdigest()}"
        return f"ok {peer}" if answer == wanted else f"got {answer}"


def send_datagram(address: str, port: int, size: int) -> str:
    data = pattern(size)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(TIMEOUT_S)
        one.sendto(data, (address, port))
        answer, peer = one.recvfrom(1 << 16)
        return f"ok {peer[0]}" if answer == data else f"got {len(answer)} bytes"


def knock(address: str, port: int) -> str:
    """A connected socket: Linux tells an unconnected one of no ICMP error."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(TIMEOUT_S)
        one.connect((address, port))
        one.send(b"?")
        return f"got {one.recv(100)!r}"


def main() -> None:
    what, *words = sys.argv[1:]
    try:
        match what:
            case "serve":
                serve(int(words[0]), Path(words[1]))
            case "tcp":
                print(send_stream(words[0], int(words[1]), int(words[2])))
            case "udp":
                print(send_datagram(words[0], int(words[1]), int(words[2])))
            case "closed":
                print(knock(words[0], int(words[1])))
    except OSError as error:
        print(REFUSED if error.errno == errno.ECONNREFUSED else repr(error))


if __name__ == "__main__":
    main()
