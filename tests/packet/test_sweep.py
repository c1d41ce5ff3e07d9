"""Rows that no packet will find any more: swept with what belongs to them, live ones never."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, SYN, TCP, UDP, Packet, read
from tests.packet.runner import Node, loaded
from tests.packet.scene import ADDRESSES, HOST_MAC, MAC_B, UPLINK, Scene, answer
from weft.bpf import syscall
from weft.bpf.layout import Tuple
from weft.proxy.apply.sweep import CLOSED_S, CLOSED_WHEN_FULL_S, KEYS, NUMBERS, Sweep


@pytest.fixture
def served(scene: Scene) -> Scene:
    scene.two_pods()
    for proto in (TCP, UDP):
        for port in (80, 81):
            scene.service(proto, scene.at.b, port=port)
    return scene


@pytest.fixture
def sweep(node: Node) -> Sweep:
    return Sweep(node.programs["sweep"].fd, node.tables)


def swept(sweep: Sweep, name: str, version: int) -> int:
    """How many rows a walk through one table deleted, all of this family."""
    (family,) = {f"IPv{version}"}
    counts = [page.deleted for page in sweep.pages(name)]
    assert not any(count for one in counts for key, count in one.items() if key != family)
    return sum(one[family] for one in counts)


def rows(scene: Scene, *names: str) -> list[int]:
    return [len(scene.node.rows(name)) for name in names or ("flows", "translations")]


def age(scene: Scene, seconds: int) -> None:
    for name in NUMBERS:
        scene.age(name, seconds)


def converse(scene: Scene, sent: Packet, *flags: int) -> None:
    """A connection through the VIP; both ends send each of the flags."""
    for flag in flags:
        got = read(scene.send(replace(sent, flags=flag)).packet)
        back = answer(replace(got, eth_dst=MAC_B), flags=flag | ACK)
        scene.send(replace(back, eth_src=got.eth_dst))


STATES = [
    pytest.param((), 61, True, id="unanswered for a minute"),
    pytest.param((), 30, False, id="unanswered for less"),
    pytest.param((SYN,), 80_000, False, id="established and silent"),
    pytest.param((SYN,), 86_402, True, id="silent for more than a day"),
    pytest.param((SYN, FIN | ACK), CLOSED_S + 2, True, id="closed"),
    pytest.param((SYN, FIN | ACK), CLOSED_S - 5, False, id="closed just now"),
]


@pytest.mark.parametrize(("flags", "seconds", "goes"), STATES)
@pytest.mark.parametrize("who", ["a", "b"])
def test_a_connection_goes_with_its_translation_when_it_is_dead(
    served: Scene, sweep: Sweep, who: str, flags: tuple[int, ...], seconds: int, *, goes: bool
) -> None:
    """Of a (the flow's first end), and of b, which reaches itself."""
    sent = served.tcp(getattr(served.at, who), served.at.vip)
    served.send(sent)
    converse(served, sent, *flags)
    age(served, seconds)
    assert rows(served) == [1, 1]
    assert swept(sweep, "flows", served.version) == (2 if goes else 0)
    assert rows(served) == ([0, 0] if goes else [1, 1])


def test_the_translation_of_another_connection_stays(served: Scene, sweep: Sweep) -> None:
    """One port dialled two addresses: the flow that closed is told by its port at the backend."""
    first, second = (served.tcp(served.at.a, served.at.vip, dport=port) for port in (80, 81))
    served.send(first)
    served.send(second)
    converse(served, second, SYN, FIN | ACK)
    age(served, CLOSED_S + 2)
    served.send(first)
    assert swept(sweep, "flows", served.version) == 2
    (left,) = served.node.rows("translations")
    assert Tuple.unpack(left).dport == 80


def test_datagrams_translations_go_by_themselves(served: Scene, sweep: Sweep) -> None:
    served.send(served.udp(served.at.a, served.at.vip))
    served.node.tables["flows"].delete(list(served.node.rows("flows")))
    age(served, 170)
    assert swept(sweep, "translations", served.version) == 0
    age(served, 12)
    assert swept(sweep, "translations", served.version) == 1
    assert rows(served) == [0, 0]


def test_a_row_that_came_alive_after_it_was_listed_stays(served: Scene, sweep: Sweep) -> None:
    sent = served.tcp(served.at.a, served.at.vip)
    served.send(sent)
    age(served, 70)
    (listed,) = served.node.rows("flows")
    served.send(sent)
    context = bytearray(192)
    struct.pack_into("=II", context, 48, CLOSED_S, NUMBERS["flows"])
    program = served.node.programs["sweep"].fd
    assert syscall.run_program(program, listed, bytes(context)).verdict == 0
    assert rows(served, "flows") == [1]


def test_more_rows_than_the_program_takes_at_once_all_go(served: Scene, sweep: Sweep) -> None:
    count = 2 * KEYS + 3
    for port in range(2_000, 2_000 + count):
        served.send(replace(served.udp(served.at.a, served.at.b), sport=port))
    age(served, 61)
    assert swept(sweep, "flows", served.version) == count


def masqueraded(scene: Scene, proto: int) -> Packet:
    """A pod's packet to the outside, and as it left."""
    scene.uplink()
    scene.local_range()
    make = {TCP: scene.tcp, UDP: scene.udp}.get(proto)
    sent = make(scene.at.a, scene.at.outside) if make else scene.ping(scene.at.a, scene.at.outside)
    return read(scene.node.run("to_uplink", sent.frame, received_on=1).packet)


@pytest.mark.parametrize("proto", [TCP, UDP, 1], ids=["tcp", "udp", "echo"])
def test_both_rows_of_a_mask_go_by_what_arrived_last(
    scene: Scene, sweep: Sweep, proto: int
) -> None:
    scene.pod(scene.at.a)
    left = masqueraded(scene, proto)
    back = replace(answer(left), eth_src=HOST_MAC, eth_dst=bytes(6))
    if proto == 1:
        back = replace(scene.ping(left.dst, left.src, reply=True), data=left.data)
    scene.node.run("from_uplink", back.frame, ifindex=UPLINK, received_on=UPLINK)
    assert rows(scene, "snat") == [2]
    age(scene, 170)
    assert swept(sweep, "snat", scene.version) == 0
    age(scene, 86_400)
    assert swept(sweep, "snat", scene.version) == 2
    assert rows(scene, "snat") == [0]


def test_a_mask_that_nobody_answered_goes_after_a_minute(scene: Scene, sweep: Sweep) -> None:
    scene.pod(scene.at.a)
    masqueraded(scene, TCP)
    age(scene, 62)
    assert swept(sweep, "snat", scene.version) == 2


def test_a_mask_that_was_parted_from_its_reservation_is_kept(scene: Scene, sweep: Sweep) -> None:
    """Its connection may live: the next packet makes the reservation again."""
    scene.pod(scene.at.a)
    left = masqueraded(scene, TCP)
    arriving = Tuple(left.dst, left.src, left.dport, left.sport, TCP)
    scene.node.tables["snat"].delete([arriving.pack()])
    age(scene, 3_000)
    assert swept(sweep, "snat", scene.version) == 0


@pytest.fixture(scope="module")
def small() -> Iterator[Node]:
    with loaded({"flows": 1_024}) as node:
        yield node


def test_a_table_that_fills_up_loses_closed_connections_early(small: Node) -> None:
    scene = Scene(small, ADDRESSES[4])
    scene.settings()
    scene.two_pods()
    sent = [replace(scene.tcp(scene.at.a, scene.at.b), sport=port) for port in range(2_000, 2_800)]
    for one in sent:
        small.repeat("from_pod", one.frame, 1)
    closing = sent[:10]
    for one in closing:
        small.repeat("from_pod", replace(one, flags=FIN | ACK).frame, 1)
        back = replace(answer(one, flags=FIN | ACK), eth_src=MAC_B)
        small.repeat("from_pod", back.frame, 1)
    scene.age("flows", CLOSED_WHEN_FULL_S + 2)
    sweep = Sweep(small.programs["sweep"].fd, small.tables)
    assert swept(sweep, "flows", 4) == 0, "how full it is, it knows from the walk before"
    assert swept(sweep, "flows", 4) == len(closing)
