"""A client that calls again from the same port: a SYN that is sent once more keeps its backend, a
new connection gets what the Service is now."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, SYN, TCP, UDP, Packet, read
from tests.packet.runner import Outcome
from tests.packet.scene import HOST_MAC, MAC_A, MAC_B, SERVICE, UPLINK, Scene, answer
from weft.bpf.layout import (
    Backend,
    Frontend,
    FrontendFlag,
    FrontendKey,
    RangeKey,
    Reason,
    Slot,
    SlotKey,
    pack_u32,
)

UPLINK_MAC = bytes(6)
INSIDE = pytest.mark.parametrize("who", ["a", "outside"])


@pytest.fixture
def served(scene: Scene) -> Scene:
    """Pods a and b here; the Service's one endpoint is b."""
    scene.two_pods()
    scene.uplink()
    scene.local_range()
    scene.service(TCP, scene.at.b)
    return scene


def call(scene: Scene, who: str, *, flags: int = SYN, proto: int = TCP) -> Outcome:
    source = getattr(scene.at, who)
    make = scene.udp(source, scene.at.vip)
    if proto == TCP:
        make = scene.tcp(source, scene.at.vip, flags=flags)
    if who == "a":
        return scene.send(make)
    packet = replace(make, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)
    return scene.node.run("from_uplink", packet.frame, ifindex=UPLINK, received_on=UPLINK)


def backend_of(outcome: Outcome) -> object:
    return read(outcome.packet).dst


def replied(scene: Scene, outcome: Outcome, flags: int = SYN | ACK) -> None:
    got: Packet = replace(read(outcome.packet), eth_src=MAC_A, eth_dst=MAC_B)
    scene.send(replace(answer(got, flags=flags), eth_src=MAC_B))


def drain(scene: Scene, proto: int = TCP) -> None:
    """b is on its way out, it still serves; new flows go to c, a pod of another node."""
    scene.remote_range()
    scene.node.put("backends", 2, Backend(SERVICE, 0))
    scene.node.put("slots", SlotKey(SERVICE, 0), Slot(2, scene.at.c, 8080))


@INSIDE
def test_a_syn_that_is_sent_again_keeps_its_backend(served: Scene, who: str) -> None:
    assert backend_of(call(served, who)) == served.at.b
    drain(served)
    served.age("translations", 3)
    served.age("flows", 3)
    assert backend_of(call(served, who)) == served.at.b


@INSIDE
def test_a_new_connection_leaves_a_backend_that_drains(served: Scene, who: str) -> None:
    replied(served, call(served, who))
    drain(served)
    assert backend_of(call(served, who, flags=ACK)) == served.at.b
    assert backend_of(call(served, who)) == served.at.c
    assert backend_of(call(served, who, flags=ACK)) == served.at.c


@INSIDE
def test_a_closed_connections_port_calls_what_serves_now(served: Scene, who: str) -> None:
    first = call(served, who)
    replied(served, first)
    call(served, who, flags=FIN | ACK)
    replied(served, first, FIN | ACK)
    drain(served)
    assert backend_of(call(served, who)) == served.at.c


@INSIDE
def test_a_client_that_only_ever_calls_gets_away_from_one_that_does_not_answer(
    served: Scene, who: str
) -> None:
    """Each SYN comes soon after the last: none makes the first choice younger."""
    call(served, who)
    drain(served)
    for _ in range(3):
        served.age("translations", 25)
        served.age("flows", 25)
        last = call(served, who)
    assert backend_of(last) == served.at.c


@INSIDE
def test_ranges_that_were_narrowed_hold_for_the_next_connection_on_the_port(
    served: Scene, who: str
) -> None:
    key, flags = FrontendKey(served.at.vip, 80, TCP), FrontendFlag.EXTERNAL | FrontendFlag.RANGES
    served.node.put("frontends", key, Frontend(SERVICE, 0, 1, 0, 0, flags, 0))
    within = RangeKey(64 + 128, SERVICE, 0, getattr(served.at, who))
    served.node.put("source_ranges", within, pack_u32(1))
    replied(served, call(served, who))
    served.node.tables["source_ranges"].delete([within.pack()])
    assert call(served, who, flags=ACK).reason is Reason.DELIVERED
    assert call(served, who).reason is Reason.SOURCE_RANGE
    assert call(served, who, flags=ACK).reason is Reason.DELIVERED


@INSIDE
def test_datagrams_stay_with_a_backend_that_drains_and_leave_one_that_serves_no_more(
    served: Scene, who: str
) -> None:
    """As kube-proxy cleans conntrack: policy and whether it terminates do not count."""
    served.service(UDP, served.at.b)
    call(served, who, proto=UDP)
    drain(served)
    assert backend_of(call(served, who, proto=UDP)) == served.at.b
    served.node.tables["backends"].delete([(1).to_bytes(8, "little")])
    assert backend_of(call(served, who, proto=UDP)) == served.at.c
