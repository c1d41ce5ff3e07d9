"""A client that stays: asks servers of the lab, a question a line, until its standard input ends.

usage: asker.py, then lines "ADDRESS PORT tcp|udp SECONDS". Each is answered by a line: the server's
name, the address it saw and the one that the client believes to talk to; or "-" and the error.
"""

import socket
import sys


def over_tcp(address: str, port: int, limit_s: float) -> str:
    with socket.create_connection((address, port), limit_s) as connection:
        peer = connection.getpeername()[0]
        return f"{connection.makefile().readline().strip()} {peer}"


def over_udp(address: str, port: int, limit_s: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.settimeout(limit_s)
        connection.sendto(b"?", (address, port))
        answer, peer = connection.recvfrom(512)
        return f"{answer.decode().strip()} {peer[0]}"


def main() -> None:
    for line in sys.stdin:
        address, port, protocol, limit_s = line.split()
        call = over_udp if protocol == "udp" else over_tcp
        try:
            print(call(address, int(port), float(limit_s)), flush=True)
        except OSError as error:
            print(f"- {type(error).__name__}", flush=True)


if __name__ == "__main__":
    main()
