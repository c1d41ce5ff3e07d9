"""One port of a client that dials one backend by two addresses: two connections, both go on."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, SYN, TCP, UDP, Address, Packet, read, unreachable
from tests.packet.runner import Outcome
from tests.packet.scene import HOST_MAC, MAC_A, MAC_B, SERVICE, UPLINK, Scene, answer
from weft.bpf.layout import Frontend, FrontendKey, Reason

UPLINK_MAC = bytes(6)
INSIDE = pytest.mark.parametrize("who", ["a", "outside"])
BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture
def served(scene: Scene) -> Scene:
    """Ports 80 and 81 of the VIP lead to pod b's 8080."""
    scene.two_pods()
    scene.uplink()
    scene.local_range()
    for proto in (TCP, UDP):
        for port in (80, 81):
            scene.service(proto, scene.at.b, port=port)
    return scene


def call(
    scene: Scene, who: str, port: int, proto: int = TCP, flags: int = SYN, sport: int = 4000
) -> Outcome:
    source: Address = getattr(scene.at, who)
    one = scene.udp(source, scene.at.vip, dport=port)
    if proto == TCP:
        one = scene.tcp(source, scene.at.vip, dport=port, flags=flags)
    one = replace(one, sport=sport)
    if who == "a":
        return scene.send(one)
    packet = replace(one, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)
    return scene.node.run("from_uplink", packet.frame, ifindex=UPLINK, received_on=UPLINK)


def reply(scene: Scene, got: Packet, flags: int = SYN | ACK) -> Packet:
    """What the client gets of b's answer to what it got."""
    sent = answer(replace(got, eth_src=MAC_A, eth_dst=MAC_B), flags=flags)
    outcome = scene.send(replace(sent, eth_src=MAC_B))
    assert outcome.reason in (Reason.DELIVERED, Reason.ANSWERED)
    return read(outcome.packet)


@INSIDE
@BOTH
def test_both_connections_are_answered_from_what_they_dialled(
    served: Scene, who: str, proto: int
) -> None:
    first = read(call(served, who, 80, proto).packet)
    second = read(call(served, who, 81, proto).packet)
    assert first.sport == 4000
    assert second.sport not in (0, 4000)
    assert second.checksums_hold
    for got, port in ((first, 80), (second, 81), (first, 80)):
        back = reply(served, got)
        assert (back.src, back.sport, back.dport) == (served.at.vip, port, 4000)
        assert back.checksums_hold


@INSIDE
@BOTH
def test_each_keeps_the_port_that_its_backend_knows(served: Scene, who: str, proto: int) -> None:
    ports = [read(call(served, who, port, proto).packet).sport for port in (80, 81)]
    for port, sport in zip((80, 81), ports, strict=True):
        assert read(call(served, who, port, proto, ACK).packet).sport == sport


@INSIDE
def test_a_syn_that_is_sent_again_keeps_it_too(served: Scene, who: str) -> None:
    call(served, who, 80)
    first = read(call(served, who, 81).packet)
    assert read(call(served, who, 81).packet).sport == first.sport


@INSIDE
def test_after_a_connection_has_closed_its_port_is_free(served: Scene, who: str) -> None:
    first = read(call(served, who, 80).packet)
    reply(served, first)
    call(served, who, 80, flags=FIN | ACK)
    reply(served, first, FIN | ACK)
    assert read(call(served, who, 81).packet).sport == 4000


def test_a_connection_without_a_service_is_not_broken_by_one_through_a_vip(
    served: Scene,
) -> None:
    direct = served.tcp(served.at.a, served.at.b, dport=8080)
    served.send(direct)
    second = read(call(served, "a", 80).packet)
    assert second.sport != 4000
    back = reply(served, read(served.send(replace(direct, flags=ACK)).packet))
    assert (back.src, back.sport, back.dport) == (served.at.b, 8080, 4000)


def test_a_privileged_port_becomes_a_privileged_one(served: Scene) -> None:
    call(served, "a", 80, sport=700)
    assert 512 <= read(call(served, "a", 81, sport=700).packet).sport < 1024


def test_where_no_port_is_found_free_the_connection_is_dropped(served: Scene) -> None:
    """The 512 privileged ones are few enough to be taken all."""
    for sport in range(512, 1024):
        call(served, "a", 80, sport=sport)
    assert call(served, "a", 81, sport=700).reason is Reason.SNAT_EXHAUSTED


def test_a_pod_that_dials_itself_twice_is_two_clients(served: Scene) -> None:
    for port in (80, 81):
        served.service(TCP, served.at.a, port=port)
    first, second = (read(call(served, "a", port).packet) for port in (80, 81))
    assert {first.src, second.src} == {served.at.gateway}
    assert first.sport != second.sport
    for got, port in ((first, 80), (second, 81)):
        sent = answer(replace(got, eth_src=MAC_B))
        back = read(served.send(replace(sent, eth_src=MAC_A)).packet)
        assert (back.src, back.sport, back.dport) == (served.at.vip, port, 4000)


@INSIDE
def test_a_backends_error_names_what_the_client_sent(served: Scene, who: str) -> None:
    call(served, who, 80, UDP)
    got = read(call(served, who, 81, UDP).packet)
    error = unreachable(served.at.b, got.src, got.network)
    outcome = served.send(replace(error, eth_src=MAC_B, eth_dst=HOST_MAC))
    about = served.embedded(read(outcome.packet))
    assert (about.sport, about.dst, about.dport) == (4000, served.at.vip, 81)
    assert read(outcome.packet).checksums_hold


def test_affinity_remembers_the_backend_and_no_port(served: Scene) -> None:
    row = Frontend(SERVICE, 0, 1, 0, 60, 0, 0)
    for port in (80, 81):
        served.node.put("frontends", FrontendKey(served.at.vip, port, TCP), row)
        call(served, "a", port)
    assert read(call(served, "a", 81, sport=4001).packet).sport == 4001
