"""A server that says its name to who connects, and closes; at SIGTERM it serves those that have
connected and ends. usage: greeter.py NAME PORT READY-FILE
"""

import selectors
import signal
import socket
import sys
from pathlib import Path


def main() -> None:
    name, port = sys.argv[1].encode() + b"\n", int(sys.argv[2])
    ended, tell = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: tell.send(b"x"))
    listening = socket.create_server(
        ("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
    )
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(ended, selectors.EVENT_READ)
    Path(sys.argv[3]).touch()
    runs = True
    while runs:
        runs = all(key.fileobj is not ended for key, _ in selector.select())
        greet(listening, name)


def greet(listening: socket.socket, name: bytes) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except BlockingIOError:
            return
        with client:
            client.send(name)


if __name__ == "__main__":
    main()
