"""A client that asks by one UDP socket all its life, a question a line on standard input.

usage: correspondent.py KIND ADDRESS PORT [SENT-TO-BEFORE]. KIND: connected, or unconnected, which
sends to the address each time. Each line is answered by one: the server's name or the error's. A
connected socket that fails is connected anew, the same one, and the question asked again.
SENT-TO-BEFORE: an address that the socket asks once, unconnected, before anything else.
"""

import socket
import sys

LIMIT_S = 0.3


def main() -> None:
    kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    place = address, port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.settimeout(LIMIT_S)
        if len(sys.argv) > 4:
            own.sendto(b"?", (sys.argv[4], port))
            own.recv(512)
        if kind == "connected":
            own.connect(place)
        for _ in sys.stdin:
            print(asked(own, kind, place), flush=True)


def asked(own: socket.socket, kind: str, place: tuple[str, int]) -> str:
    for _ in range(2):
        try:
            if kind == "connected":
                own.send(b"?")
            else:
                own.sendto(b"?", place)
            return own.recv(512).split()[0].decode()
        except TimeoutError:
            return "silence"
        except OSError as error:
            said = type(error).__name__
            if kind == "connected":
                own.connect(place)
                # What ended the socket is told once more, whatever it is asked next.
                own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return said


if __name__ == "__main__":
    main()
