"""A client that begins connections at a fixed rate, whatever becomes of those before.

usage: openloop.py ADDRESS PORT RATE. From its start until its standard input ends: RATE times in a
second it connects, reads what the server says and closes; what is late is begun at once. Then it
prints how many it began, each failure by its kind, and how often each server answered, as JSON.
"""

import errno
import json
import selectors
import socket
import sys
import time
from collections import Counter

LIMIT_S = 30.0


class Client:
    def __init__(self, address: str, port: int) -> None:
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._place = address, port
        self.selector = selectors.DefaultSelector()
        self.began, self.open = 0, 0
        self.failures: Counter[str] = Counter()
        self.servers: Counter[str] = Counter()

    def begin(self) -> None:
        self.began += 1
        one = socket.socket(self._family, socket.SOCK_STREAM)
        one.setblocking(False)
        code = one.connect_ex(self._place)
        if code not in (0, errno.EINPROGRESS):
            self._end(one, errno.errorcode[code])
            return
        self.open += 1
        self.selector.register(one, selectors.EVENT_READ, time.monotonic())

    def read(self, key: selectors.SelectorKey) -> None:
        one = key.fileobj
        assert isinstance(one, socket.socket)
        self.selector.unregister(one)
        self.open -= 1
        try:
            said = one.recv(100).decode().strip()
        except OSError as error:
            self._end(one, type(error).__name__)
            return
        self.servers[said] += bool(said)
        self._end(one, "" if said else "closed without a word")

    def give_up(self) -> None:
        """What is open for longer than anybody waits has failed."""
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and time.monotonic() - key.data > LIMIT_S:
                self.selector.unregister(key.fileobj)
                self.open -= 1
                self._end(key.fileobj, "no answer")

    def _end(self, one: socket.socket, failure: str) -> None:
        one.close()
        if failure:
            self.failures[failure] += 1


def main() -> None:
    client, rate = Client(sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    client.selector.register(sys.stdin, selectors.EVENT_READ)
    started_s, asked_s, runs = time.monotonic(), 0.0, True
    while runs or client.open:
        due = int((time.monotonic() - started_s) * rate)
        while runs and client.began < due:
            client.begin()
        for key, _ in client.selector.select(0.0005 if runs else 0.1):
            if key.fileobj is sys.stdin:
                client.selector.unregister(sys.stdin)
                runs = False
            else:
                client.read(key)
        if time.monotonic() - asked_s > 1:
            asked_s = time.monotonic()
            client.give_up()
    print(json.dumps([client.began, client.failures, client.servers]))


if __name__ == "__main__":
    main()
