"""A client that stays and asks many questions at once, until its standard input ends.

usage: asker.py, then lines of JSON: [SECONDS, [[ADDRESS, PORT, tcp|udp, TRIES, SERVERS], ...]].
Each line is answered by one of JSON: a list of different answers for each question, every one
"SERVER SOURCE-SEEN", "refused", "silent" or an error's name. A question is asked by new sockets, as
often as said or until that many servers have answered.
"""

import asyncio
import contextlib
import errno
import json
import socket
import sys

AT_ONCE, PATIENCE = 64, 4
Question = tuple[str, int, str, int, int]
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


async def exchange(address: str, port: int, kind: str) -> str:
    """UDP on a connected socket: Linux tells an unconnected one of no ICMP error."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[kind]) as one:
        one.setblocking(False)
        await loop.sock_connect(one, (address, port))
        if kind == "udp":
            # Netfilter tells a socket of the node that its datagram was dropped, or refused: then
            # the reason follows.
            with contextlib.suppress(PermissionError):
                await loop.sock_sendall(one, b"?")
        return (await loop.sock_recv(one, 512)).decode().strip()


async def once(address: str, port: int, kind: str, limit_s: float) -> str:
    try:
        async with asyncio.timeout(limit_s):
            return await exchange(address, port, kind)
    except (TimeoutError, PermissionError):
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


async def ask(question: Question, limit_s: float) -> set[str]:
    """Ends at the second silence in a row: the third would be no news."""
    address, port, kind, tries, servers = question
    said: set[str] = set()
    silences = 0
    for _ in range(tries):
        answer = await once(address, port, kind, limit_s)
        said.add(answer)
        silences = silences + 1 if answer == "silent" else 0
        if silences == 2 or len({one.split()[0] for one in said if " " in one}) >= servers:
            break
    return said


async def ask_patiently(question: Question, limit_s: float, free: asyncio.Semaphore) -> list[str]:
    """Who was silent may have been busy: it is asked once more, for longer; who then answers some
    of the time, up to three times."""
    async with free:
        said = await ask(question, limit_s)
    for _ in range(3):
        if "silent" not in said:
            break
        async with free:
            said = await ask(question, PATIENCE * limit_s)
        if said == {"silent"}:
            break
    return sorted(said)


async def ask_all(limit_s: float, questions: list[Question]) -> list[list[str]]:
    free = asyncio.Semaphore(AT_ONCE)
    return list(await asyncio.gather(*(ask_patiently(one, limit_s, free) for one in questions)))


def main() -> None:
    for line in sys.stdin:
        limit_s, questions = json.loads(line)
        print(json.dumps(asyncio.run(ask_all(limit_s, [*map(tuple, questions)]))), flush=True)


if __name__ == "__main__":
    main()
