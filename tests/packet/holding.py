"""The hold link in packet tests: a node that has one, and what goes round by it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from tests.packet.packets import Packet
from tests.packet.runner import Action, Outcome
from tests.packet.scene import HOST_MAC, LINK, UPLINK, Scene
from tests.packet.test_fragments import fragments
from weft.bpf.layout import Direction, Reason

HELD_MARK = 0x68656C64
# Jiffies in a second that make the time a key waits two ticks, and its rest long.
SHORT_HZ = 9

# A key that waited rests for seconds: each test has its own peers and datagrams.
_numbers = count(1)


def with_hold_link(scene: Scene) -> Scene:
    """Its pod `a` and another node's `c` are unknown to all tests before."""
    number = next(_numbers)
    made = Scene(scene.node, replace(scene.at, a=scene.at.a + 16 + number, c=scene.at.c + number))
    made.settings(hold_from_pod=LINK, hold_to_pod=LINK)
    made.pod(made.at.a)
    made.local_range()
    made.remote_range()
    return made


def assert_held(outcome: Outcome, direction: Direction, sent: Packet) -> None:
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.HELD, direction): 1}
    assert outcome.mark == HELD_MARK
    assert outcome.packet == sent.frame, "it comes back as it was"


def later_of(packet: Packet) -> tuple[Packet, Packet]:
    first, later = fragments(packet)
    ident = 0x2000 + next(_numbers)
    return replace(first, ident=ident), replace(later, ident=ident)


def by_uplink(scene: Scene, packet: Packet, *, mark: int = 0) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=bytes(6)).frame
    return scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK, mark=mark)


def out_of_the_link(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("held_to_pod", packet.frame, mark=HELD_MARK)


def until_dropped(send: Callable[[], Outcome]) -> Outcome:
    """Each attempt is in a later tick."""
    outcomes = (send() for _ in range(20))
    return next(one for one in outcomes if one.action is Action.DROP)
