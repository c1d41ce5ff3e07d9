"""Nodes ask each other over real sockets: who is answered, and which answers count."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from weft.proxy.model.objects import Address, Kind, Node, Ref, Sighting, Workload
from weft.proxy.model.world import Change, Key, Record, Settings, World
from weft.proxy.watch import ask
from weft.proxy.watch.ask import Allowance, Asker
from weft.proxy.watch.askwire import (
    NONCE_BYTES,
    Answer,
    GivenOn,
    Question,
    decode,
    encode,
)
from weft.proxy.watch.events import Event, Moved

HERE, THERE, STRANGER = (f"127.0.53.{number}" for number in (1, 2, 9))
LOCAL, X, Y = map(ip_address, ("10.244.1.5", "10.244.2.5", "10.244.2.6"))
WEB = Ref("default", "web")
LINK = Workload("weft1", WEB, "uid of web", (X,), 7, bytes(6), bytes(6))


def world_of(name: str, *links: Workload) -> World:
    """What node `name` knows: two nodes, and its own pods."""
    world = World(Settings(name))
    records: list[tuple[Kind, Key, Record]] = [(Kind.ATTACHMENT, one.key, one) for one in links]
    for number, address in ((1, HERE), (2, THERE)):
        ref = Ref("", f"n{number}")
        node = Node(ref, (ip_address(address),), (ip_network(f"10.244.{number}.0/24"),))
        records.append((Kind.NODE, ref, node))
    for kind, key, record in records:
        world = world.with_change(Change(kind, key, None, record))
    return world


async def never(condition: Callable[[], bool], patience_s: float) -> bool:
    """No World of these tests alters."""
    if condition():
        return True
    await asyncio.sleep(3600 if math.isinf(patience_s) else 0.01)
    return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


@dataclass
class Side:
    asker: Asker
    said: "asyncio.Queue[Event]"

    async def hears(self) -> Event:
        async with asyncio.timeout(10):
            return await self.said.get()


@asynccontextmanager
async def asking(port: int, world: World) -> AsyncIterator[Side]:
    """An asker that runs and listens."""
    said: asyncio.Queue[Event] = asyncio.Queue()
    asker = Asker(port, lambda: world, said.put_nowait)
    running = asyncio.create_task(asker.run(never))
    await until(lambda: asker.listens)
    try:
        yield Side(asker, said)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HERE, 0))
        return int(one.getsockname()[1])


class Player:
    """A socket at an address, which plays a node or a stranger by hand."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((address, port))

    async def hears(self) -> tuple[object, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            data, sender = await loop.sock_recvfrom(self.socket, 2048)
        return decode(data), sender

    def says(self, message: Question | Answer | GivenOn, to: str, port: int) -> None:
        self.socket.sendto(encode(message), (to, port))


def sighting(address: Address = X) -> Moved:
    said = Sighting(address, WEB, "uid of web", "n2")
    return Moved(Kind.SIGHTING, said.key, said)


def test_a_node_asks_and_the_owner_names_its_pod() -> None:
    async def story() -> None:
        port = free_port()
        async with asking(port, world_of("n1")) as here, asking(port, world_of("n2", LINK)):
            here.asker.ask([(X, LOCAL)])
            assert await here.hears() == sighting()

    asyncio.run(story())


def test_either_end_of_a_packet_is_asked_for() -> None:
    async def story() -> None:
        port = free_port()
        async with asking(port, world_of("n1")) as here, asking(port, world_of("n2", LINK)):
            here.asker.ask([(LOCAL, X)])
            assert await here.hears() == sighting()

    asyncio.run(story())


def test_an_address_is_asked_once_for_many_packets_and_a_few_times_again() -> None:
    async def story() -> None:
        port = free_port()
        there = Player(THERE, port)
        async with asking(port, world_of("n1")) as here:
            here.asker.ask([(X, LOCAL)] * 5)
            here.asker.ask([(X, LOCAL), (Y, LOCAL)])
            first, second, *again = [(await there.hears())[0] for _ in range(6)]
            assert isinstance(first, Question)
            assert isinstance(second, Question)
            assert (first.address, second.address) == (X, Y)
            assert again == [first, second] * 2

    asyncio.run(story())


def test_an_answer_counts_with_its_nonce_from_the_node_that_was_asked() -> None:
    async def story() -> None:
        port = free_port()
        there, stranger = Player(THERE, port), Player(STRANGER, port)
        async with asking(port, world_of("n1")) as here:
            here.asker.ask([(X, LOCAL)])
            question, asker = await there.hears()
            assert isinstance(question, Question)
            right = Answer(question.nonce, X, WEB, "uid of web")
            stranger.says(right, *asker)
            there.says(Answer(bytes(16), X, WEB, "uid of web"), *asker)
            there.says(Answer(question.nonce, Y, WEB, "uid of web"), *asker)
            there.says(Answer(question.nonce, X, Ref("", ""), ""), *asker)
            there.says(Answer(question.nonce, X, Ref("a", "late"), "uid"), *asker)
            there.says(right, *asker)
            late = Sighting(X, Ref("a", "late"), "uid", "n2")
            assert await here.hears() == Moved(Kind.SIGHTING, str(X), late)
            assert await here.hears() == sighting()
            assert here.said.empty()

    asyncio.run(story())


def test_only_nodes_are_answered_and_only_of_pods_of_this_node() -> None:
    async def story() -> None:
        port = free_port()
        node, stranger = Player(HERE, port), Player(STRANGER, port)
        async with asking(port, world_of("n2", LINK)):
            stranger.says(Question(bytes(16), X), THERE, port)
            node.says(Question(bytes(16), Y), THERE, port)
            node.says(Question(bytes(16), X), THERE, port)
            assert (await node.hears())[0] == Answer(bytes(16), Y, Ref("", ""), "")
            assert (await node.hears())[0] == Answer(bytes(16), X, WEB, "uid of web")
            with_nothing = asyncio.get_running_loop().sock_recv(stranger.socket, 1)
            done, pending = await asyncio.wait([asyncio.ensure_future(with_nothing)], timeout=0.05)
            assert not done
            for one in pending:
                one.cancel()

    asyncio.run(story())


def test_known_and_foreign_addresses_are_not_asked_for() -> None:
    async def story() -> None:
        port = free_port()
        there = Player(THERE, port)
        async with asking(port, world_of("n1")) as here:
            here.asker.ask([(LOCAL, ip_address("203.0.113.1")), (ip_address("10.244.1.9"), LOCAL)])
            here.asker.ask([(X, LOCAL)])
            question, _ = await there.hears()
            assert isinstance(question, Question)
            assert question.address == X

    asyncio.run(story())


def test_one_local_pod_that_scans_leaves_room_for_others() -> None:
    async def story() -> None:
        port = free_port()
        there = Player(THERE, port)
        async with asking(port, world_of("n1")) as here:
            scanned = [ip_address(f"10.244.2.{number}") for number in range(10, 210)]
            here.asker.ask([(LOCAL, address) for address in scanned])
            here.asker.ask([(ip_address("10.244.1.6"), X)])
            heard = [(await there.hears())[0] for _ in range(ask.PER_CAUSE_MAX + 1)]
            addresses = [one.address for one in heard if isinstance(one, Question)]
            assert addresses == [*scanned[: ask.PER_CAUSE_MAX], X]

    asyncio.run(story())


def test_a_question_without_an_answer_is_forgotten_and_may_be_asked_again() -> None:
    async def story() -> None:
        port = free_port()
        there = Player(THERE, port)
        async with asking(port, world_of("n1")) as here:
            here.asker.ask([(X, LOCAL)])
            first = (await there.hears())[0]
            await until(lambda: not here.asker.in_flight)
            here.asker.ask([(X, LOCAL)])
            async with asyncio.timeout(10):
                while (await there.hears())[0] == first:
                    pass

    asyncio.run(story())


def test_word_that_an_address_was_given_on_makes_its_hearer_ask_the_owner() -> None:
    async def story() -> None:
        port = free_port()
        there, stranger = Player(THERE, port), Player(STRANGER, port)
        async with asking(port, world_of("n1")):
            stranger.says(GivenOn(Y), HERE, port)
            there.says(GivenOn(LOCAL), HERE, port)
            there.says(GivenOn(X), HERE, port)
            question, _ = await there.hears()
            assert isinstance(question, Question)
            assert question.address == X

    asyncio.run(story())


def test_one_nodes_word_of_addresses_given_on_leaves_room_for_questions() -> None:
    """Anybody who can write a node's address as its source can say so."""

    async def story() -> None:
        port = free_port()
        there = Player(THERE, port)
        async with asking(port, world_of("n1")) as here:
            for number in range(10, 250):
                there.says(GivenOn(ip_address(f"10.244.2.{number}")), HERE, port)
            there.says(Question(bytes(NONCE_BYTES), LOCAL), HERE, port)
            # The answer to what was said last: all before was heard.
            while not isinstance((await there.hears())[0], Answer):
                pass
            assert here.asker.in_flight <= ask.PER_CAUSE_MAX

    asyncio.run(story())


def test_an_address_given_on_is_known_to_other_nodes_without_a_packet_of_its_pod() -> None:
    async def story() -> None:
        port = free_port()
        async with (
            asking(port, world_of("n1")) as here,
            asking(port, world_of("n2", LINK)) as there,
        ):
            assert await there.asker.announce([X])
            assert await here.hears() == sighting()

    asyncio.run(story())


def test_a_node_that_does_not_hear_of_an_address_given_on_is_waited_for_no_longer_than_that() -> (
    None
):
    async def story() -> None:
        port = free_port()
        silent = Player(HERE, port)
        async with asking(port, world_of("n2", LINK)) as there:
            assert not await there.asker.announce([X])
            said = [(await silent.hears())[0] for _ in ask.ANNOUNCED_FOR_S]
            assert said == [GivenOn(X)] * len(said)

    asyncio.run(story())


def test_a_taken_port_is_asked_for_again() -> None:
    async def story() -> None:
        port = free_port()
        other = Player(HERE, port)
        said: asyncio.Queue[Event] = asyncio.Queue()
        asker = Asker(port, lambda: world_of("n1"), said.put_nowait)
        running = asyncio.create_task(asker.run(never))
        await asyncio.sleep(0)
        assert not asker.listens
        other.socket.close()
        await until(lambda: asker.listens)
        running.cancel()

    asyncio.run(story())


def test_an_allowance_ends_within_its_second() -> None:
    allowance = Allowance(3)
    assert [allowance.take() for _ in range(4)].count(True) in (3, 4)
    assert sum(allowance.take() for _ in range(100)) <= 6
