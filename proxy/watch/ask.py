"""Owns questions between nodes: whose is this address? The answers are sightings (model.sightings).

UDP on the node's InternalIPs. Never decides what an answer is worth and never blocks: an answer
that does not come is a packet that waits for the API's news, as all did before.

Who can forge what. A pod can send nothing to this port of any node (bpf/workload.bpf.c), and would
have to answer from a node's address. Who is off the path between two nodes can send with a node's
address, but must guess 128 random bits within 250 ms. Who is on that path, or is a node, could as
well send pods' packets through the tunnel; and of a node's word counts only what concerns addresses
of its own podCIDR and pods that the API puts on it. Questions are answered only to addresses that
are nodes', so a forged one tells its sender nothing. Word that an address was given on makes the
hearer ask, no more.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from weft.proxy.model.objects import Address, Kind, Node, Ref, Sighting
from weft.proxy.model.owners import holder, owner
from weft.proxy.model.sightings import pods_claiming, unresolved
from weft.proxy.model.world import World
from weft.proxy.watch.askwire import (
    NONCE_BYTES,
    Answer,
    GivenOn,
    Heard,
    Message,
    Question,
    decode,
    encode,
)
from weft.proxy.watch.events import Moved, Post

log = logging.getLogger(__name__)

AGAIN_S = 0.02
"""Then after twice as long, and so on."""
GIVE_UP_S = 0.25
"""As long as the datapath holds a packet (bpf/include/hold.h)."""
IN_FLIGHT_MAX = 512
"""With GIVE_UP_S also a limit of some 2,000 addresses a second."""
PER_CAUSE_MAX = 128
"""Of those at most this many for packets of one local pod, or on the word of one node: one that
scans or makes up leaves others theirs.
"""
ANSWERS_PER_S = 5_000
ANNOUNCED_FOR_S = (0.05, 0.1, 0.15)
"""Word of an address given on is sent as often as this, and waited for so long each time."""
BIND_RETRY_S = 5.0

# include/uapi/linux/in.h, in6.h: bind before a link has the address. Python names neither.
_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}

WaitUntil = Callable[[Callable[[], bool], float], Awaitable[bool]]


@dataclass(slots=True, eq=False)
class _Asked:
    """A question on its way from one of our addresses to `node` at `to`.

    cause: the local pod whose packet waits, or the node that had word of the address.
    """

    question: Question
    node: str
    ours: Address
    to: Address
    cause: Address
    confirms: bool = False
    """Whether `node` waits for word that its answer was taken."""
    answer: str = ""
    """The uid that `node` has named."""


class Asker:
    """Asks other nodes and answers them, on the event loop that runs it.

    world: what is known now. post: where answers go.
    """

    def __init__(self, port: int, world: Callable[[], World], post: Post) -> None:
        self._port, self._world, self._post = port, world, post
        self._links: dict[Address, asyncio.DatagramTransport] = {}
        self._asked: dict[Address, _Asked] = {}
        self._per_cause: Counter[Address] = Counter()
        self._unheard: list[tuple[dict[tuple[Address, Address], Address], asyncio.Event]] = []
        """Per announcement: who has not heard of which address yet (the node's address, the pod's),
        and what is set when all have.
        """
        self._answers = Allowance(ANSWERS_PER_S)

    @property
    def listens(self) -> bool:
        """Whether it does at any address."""
        return bool(self._links)

    @property
    def in_flight(self) -> int:
        """Questions whose answer may still come."""
        return len(self._asked)

    async def run(self, wait_until: WaitUntil) -> None:
        """Listen on the node's InternalIPs, whatever they are, until cancelled.

        wait_until: returns when a condition on the World holds, or after so many seconds.
        """
        try:
            while True:
                wanted = self._wanted()
                patience_s = math.inf if await self._listen(wanted) else BIND_RETRY_S
                await wait_until(partial(self._wants_others, wanted), patience_s)
        finally:
            for link in self._links.values():
                link.close()

    def ask(self, pairs: Iterable[tuple[Address, Address]]) -> None:
        """Ask for each end of a packet's (source, destination) that is not known, if there is room
        for it now; what does not fit is asked when it comes again.
        """
        world = self._world()
        for source, destination in pairs:
            for address, local in ((source, destination), (destination, source)):
                node = None if address in self._asked else unresolved(world, address)
                if node is not None:
                    self._ask(node, address, local)

    async def announce(self, addresses: Iterable[Address]) -> bool:
        """Tell every other node that these addresses of ours were given to other pods. Whether all
        have heard in time: then none lets the new pod in by the rights of the former.
        """
        unheard = {
            (ends[1], address): ends[0]
            for node in self._others() if (ends := self._ends(node)) is not None
            for address in addresses
        }  # fmt: skip
        done = asyncio.Event()
        self._unheard.append((unheard, done))
        try:
            for patience_s in ANNOUNCED_FOR_S:
                for (to, address), ours in unheard.items():
                    self._send(ours, (str(to), self._port), GivenOn(address))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        if unheard:
                            await done.wait()
                        return True
            return False
        finally:
            self._unheard.remove((unheard, done))

    # --- sockets ---
    def _wanted(self) -> set[Address]:
        own = self._world().own_node()
        return {a for a in own.addresses if not a.is_link_local} if own is not None else set()

    def _wants_others(self, wanted: set[Address]) -> bool:
        return self._wanted() != wanted

    async def _listen(self, wanted: set[Address]) -> bool:
        """Whether there is a socket at every address of `wanted`, and at no other."""
        for address in self._links.keys() - wanted:
            self._links.pop(address).close()
        for address in wanted - self._links.keys():
            try:
                self._links[address] = await self._open(address)
            except OSError as error:
                said = {"address": str(address), "port": self._port, "why": str(error)}
                log.warning("cannot ask other nodes; setting ask-port names another port", said)
        return self._links.keys() == wanted

    async def _open(self, address: Address) -> asyncio.DatagramTransport:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        one = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            one.setsockopt(*_FREEBIND[family], 1)
            one.bind((str(address), self._port))
            link, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Link(address, self._heard), sock=one
            )
        except OSError:
            one.close()
            raise
        return link

    def _send(self, ours: Address, to: tuple[str, int], message: Message) -> None:
        link = self._links.get(ours)
        if link is not None:
            link.sendto(encode(message), to)

    # --- questions ---
    def _ask(self, node: Node, address: Address, cause: Address) -> None:
        ends = self._ends(node)
        if ends is None or len(self._asked) >= IN_FLIGHT_MAX:
            return
        if self._per_cause[cause] >= PER_CAUSE_MAX:
            return
        question = Question(secrets.token_bytes(NONCE_BYTES), address)
        asked = self._asked[address] = _Asked(question, node.ref.name, *ends, cause)
        self._per_cause[cause] += 1
        asyncio.get_running_loop().call_later(GIVE_UP_S, self._forget, asked)
        self._say(asked, AGAIN_S)

    def _others(self) -> Iterator[Node]:
        world = self._world()
        return (node for node in world.nodes() if node.ref.name != world.settings.node)

    def _ends(self, node: Node) -> tuple[Address, Address] | None:
        """The first of our addresses that `node` has one of the same family for, and that one."""
        for ours in self._links:
            for theirs in node.addresses:
                if theirs.version == ours.version and not theirs.is_link_local:
                    return ours, theirs
        return None

    def _say(self, asked: _Asked, again_s: float) -> None:
        """Again, and later again, until the answer is worth something here: a datagram may be lost,
        and the pod's own object may come later than word of its address.
        """
        address = asked.question.address
        if self._asked.get(address) is not asked:
            return
        if asked.answer and self._is_settled(asked):
            self._forget(asked)
            if asked.confirms:
                self._send(asked.ours, (str(asked.to), self._port), Heard(address))
            return
        self._send(asked.ours, (str(asked.to), self._port), asked.question)
        asyncio.get_running_loop().call_later(again_s, self._say, asked, 2 * again_s)

    def _is_settled(self, asked: _Asked) -> bool:
        """Whether World has taken the answer; an address given on, whether it has only that."""
        world, address = self._world(), asked.question.address
        if asked.confirms:
            return all(pod.uid == asked.answer for pod in pods_claiming(world, address))
        return unresolved(world, address) is None

    def _forget(self, asked: _Asked) -> None:
        if self._asked.get(asked.question.address) is asked:
            del self._asked[asked.question.address]
            self._per_cause[asked.cause] -= 1
            if not self._per_cause[asked.cause]:
                del self._per_cause[asked.cause]

    # --- what comes ---
    def _heard(self, ours: Address, data: bytes, sender: tuple[str, int]) -> None:
        message = decode(data)
        try:
            source = ip_address(sender[0])
        except ValueError:
            return  # link-local, with its scope: no InternalIP
        if isinstance(message, Answer):
            self._take(message, source)
        elif message is not None and self._is_node(source) and self._answers.take():
            if isinstance(message, Question):
                self._send(ours, sender, self._answer(message))
            elif isinstance(message, GivenOn):
                self._ask_again(message, source)
            else:
                self._strike(message, source)

    def _is_node(self, source: Address) -> bool:
        return any(self._world().nodes_at(source))

    def _answer(self, question: Question) -> Answer:
        """Of our own pods only, as their links have it."""
        held = holder(self._world(), question.address)
        if held is None:
            return Answer(question.nonce, question.address, Ref("", ""), "")
        return Answer(question.nonce, question.address, held.ref, held.uid)

    def _take(self, answer: Answer, source: Address) -> None:
        asked = self._asked.get(answer.address)
        if asked is None or asked.to != source or asked.question.nonce != answer.nonce:
            return
        if answer.uid:
            asked.answer = answer.uid
            said = Sighting(answer.address, answer.pod, answer.uid, asked.node)
            self._post(Moved(Kind.SIGHTING, said.key, said))

    def _ask_again(self, word: GivenOn, source: Address) -> None:
        node = owner(self._world(), word.address)
        own = self._world().settings.node
        if node is None or node.ref.name == own or source not in node.addresses:
            return
        if word.address not in self._asked:
            self._ask(node, word.address, source)
        if word.address in self._asked:
            self._asked[word.address].confirms = True

    def _strike(self, word: Heard, source: Address) -> None:
        for unheard, done in self._unheard:
            unheard.pop((source, word.address), None)
            if not unheard:
                done.set()


class _Link(asyncio.DatagramProtocol):
    def __init__(
        self, ours: Address, heard: Callable[[Address, bytes, tuple[str, int]], None]
    ) -> None:
        self._ours, self._heard = ours, heard

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._heard(self._ours, data, addr)


class Allowance:
    """So many in each second; what is above is not done."""

    def __init__(self, per_s: int) -> None:
        self._per_s, self._second, self._taken = per_s, 0, 0

    def take(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._per_s
