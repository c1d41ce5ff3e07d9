"""A server for a lab's pod: answers every TCP connection and UDP datagram with its name.

usage: answer.py NAME PORT [NAME OF THE READY FILE]. The answer is "NAME PEER-ADDRESS\\n". A TCP
connection stays open and is answered line by line until the peer closes it.
"""

import socketserver
import sys
import threading
from pathlib import Path
from socket import AF_INET6


class Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(greeting(self.client_address[0]))
        for line in self.rfile:
            self.wfile.write(line)


class Udp(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(greeting(self.client_address[0]))


class TcpServer(socketserver.ThreadingTCPServer):
    address_family = AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


class UdpServer(socketserver.ThreadingUDPServer):
    address_family = AF_INET6
    daemon_threads = True


def greeting(peer: str) -> bytes:
    return f"{sys.argv[1]} {peer.removeprefix('::ffff:')}\n".encode()


def main() -> None:
    port = int(sys.argv[2])
    servers = [TcpServer(("::", port), Tcp), UdpServer(("::", port), Udp)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if len(sys.argv) > 3:
        Path(sys.argv[3]).touch()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
