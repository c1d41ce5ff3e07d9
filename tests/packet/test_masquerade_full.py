"""The range of ports near its end: who still gets one, and who is not touched by it."""

import random
from dataclasses import replace

import pytest

from tests.packet.packets import UDP, Packet, read
from tests.packet.runner import Outcome
from tests.packet.scene import LINK, SNAT_PORTS, Scene, answer
from weft.bpf.features import jiffies_now
from weft.bpf.layout import FlowFlag, Frontend, FrontendFlag, FrontendKey, Reason, Snat, Tuple

LOW, HIGH = SNAT_PORTS
RANGE = HIGH - LOW + 1


@pytest.fixture
def outbound(scene: Scene) -> Scene:
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    return scene


def leave(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("to_uplink", packet.frame, received_on=LINK)


def flow(scene: Scene, number: int) -> Packet:
    return replace(scene.udp(scene.at.a, scene.at.outside), sport=3000 + number)


def arriving(scene: Scene, port: int) -> bytes:
    return Tuple(scene.at.outside, scene.at.uplink, 80, port, UDP).pack()


def take(scene: Scene, ports: list[int]) -> None:
    """Another pod's live flows to the same place hold `ports`."""
    row = Snat(scene.at.b, 4000, FlowFlag.REPLIED, jiffies_now() & 0xFFFFFFFF).pack()
    scene.node.tables["snat"].update({arriving(scene, port): row for port in ports})


def attempts(scene: Scene, times: int) -> int:
    """How many of `times` new flows get a port at once, each with what the others left free."""
    succeeded = 0
    for number in range(times):
        sent = flow(scene, number)
        outcome = leave(scene, sent)
        if outcome.reason is Reason.MASQUERADED:
            succeeded += 1
            port = read(outcome.packet).sport
            ends = Tuple(sent.src, sent.dst, sent.sport, sent.dport, UDP).pack()
            scene.node.tables["snat"].delete([arriving(scene, port), ends])
        else:
            assert outcome.reason is Reason.SNAT_EXHAUSTED
    return succeeded


def test_of_a_range_that_is_nine_tenths_full_every_flow_gets_a_port(outbound: Scene) -> None:
    take(outbound, random.Random(1).sample(range(LOW, HIGH + 1), RANGE * 90 // 100))
    assert attempts(outbound, 200) == 200


def test_a_full_neighbourhood_keeps_nobody_from_what_is_free_elsewhere(outbound: Scene) -> None:
    take(outbound, list(range(LOW, LOW + RANGE * 90 // 100)))
    assert attempts(outbound, 200) == 200


def test_with_one_port_in_a_hundred_free_every_flow_gets_one_at_once(outbound: Scene) -> None:
    take(outbound, random.Random(2).sample(range(LOW, HIGH + 1), RANGE * 99 // 100))
    assert attempts(outbound, 200) == 200


def test_the_last_ports_are_found_and_then_there_is_none(outbound: Scene) -> None:
    free = set(random.Random(3).sample(range(LOW, HIGH + 1), 5))
    take(outbound, [port for port in range(LOW, HIGH + 1) if port not in free])
    outcomes = [leave(outbound, flow(outbound, number)) for number in range(len(free))]
    assert {one.reason for one in outcomes} == {Reason.MASQUERADED}
    assert {read(one.packet).sport for one in outcomes} == free
    reasons = [leave(outbound, flow(outbound, number)).reason for number in range(20)]
    assert reasons == [Reason.MASQUERADED] * 5 + [Reason.SNAT_EXHAUSTED] * 15
    other = replace(flow(outbound, 900), dst=outbound.at.outside + 1)
    assert leave(outbound, other).reason is Reason.MASQUERADED
    tcp = replace(outbound.tcp(outbound.at.a, outbound.at.outside), sport=3900)
    assert leave(outbound, tcp).reason is Reason.MASQUERADED


def test_who_sends_again_gets_the_one_free_port_of_a_range_that_is_not_searched_at_once(
    outbound: Scene,
) -> None:
    """4,000 ports are searched in four parts, the next where the last has ended."""
    low, high, free = 50_000, 53_999, 52_345
    outbound.settings(snat_port_min=low, snat_port_max=high)
    take(outbound, [port for port in range(low, high + 1) if port != free])
    sent = flow(outbound, 0)
    outcomes = [leave(outbound, sent) for _ in range(5)]
    assert outcomes[-1].reason is Reason.MASQUERADED
    assert read(outcomes[-1].packet).sport == free
    assert {one.reason for one in outcomes} <= {Reason.SNAT_EXHAUSTED, Reason.MASQUERADED}


def test_a_port_at_which_the_node_serves_clients_is_nobodys(outbound: Scene) -> None:
    """NodePorts may lie in the range: the last that is left is not given to a flow of its
    protocol."""
    outbound.settings(snat_port_min=61_000, snat_port_max=61_001)
    key = FrontendKey(outbound.at.uplink, 61_000, UDP)
    flags = FrontendFlag.EXTERNAL | FrontendFlag.NODE_PORT
    outbound.node.put("frontends", key, Frontend(1, 0, 1, 0, 0, flags, 0))
    assert read(leave(outbound, flow(outbound, 0)).packet).sport == 61_001
    assert leave(outbound, flow(outbound, 1)).reason is Reason.SNAT_EXHAUSTED
    tcp = [replace(outbound.tcp(outbound.at.a, outbound.at.outside), sport=n) for n in (31, 32)]
    assert {read(leave(outbound, one).packet).sport for one in tcp} == {61_000, 61_001}


def test_a_small_range_is_used_to_its_last_port(outbound: Scene) -> None:
    outbound.settings(snat_port_min=61_000, snat_port_max=61_099)
    reasons = [leave(outbound, flow(outbound, number)).reason for number in range(101)]
    assert reasons == [Reason.MASQUERADED] * 100 + [Reason.SNAT_EXHAUSTED]


def test_ports_whose_flows_are_idle_are_taken_over_where_none_is_free(outbound: Scene) -> None:
    take(outbound, list(range(LOW, HIGH + 1)))
    assert attempts(outbound, 5) == 0
    outbound.age("snat", 181)
    assert attempts(outbound, 5) == 5


def test_a_flow_whose_reservation_the_table_lost_keeps_its_port(outbound: Scene) -> None:
    sent = flow(outbound, 0)
    port = read(leave(outbound, sent).packet).sport
    outbound.node.tables["snat"].delete([arriving(outbound, port)])
    outbound.age("snat", 2)
    left = read(leave(outbound, sent).packet)
    assert left.sport == port
    back = outbound.node.run("from_uplink", answer(left).frame)
    assert back.reason is Reason.RESTORED
