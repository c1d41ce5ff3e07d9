"""Services at the socket, by real sockets."""

import socket
from contextlib import ExitStack, suppress

import pytest

from tests.packet.packets import TCP, UDP
from tests.packet.runner import Node
from tests.packet.sockets import Sockets, received, socket_counts
from weft.bpf.layout import Reason, Sandbox, SandboxFlag, SettingFlag


def test_connect_to_a_vip_reaches_the_backend_and_the_peer_reads_as_the_vip(
    sockets: Sockets,
) -> None:
    server = sockets.server(socket.SOCK_STREAM)
    sockets.serve(TCP, server)
    client = sockets.open(socket.SOCK_STREAM)
    client.connect((sockets.vip, 80))
    with server.accept()[0]:
        assert client.getpeername()[:2] == (sockets.vip, 80)


def test_an_ipv6_socket_reaches_an_ipv4_vip_by_its_mapped_address(hooked: Node) -> None:
    hooked.clear()
    with ExitStack() as stack:
        sockets = Sockets(hooked, 4, stack)
        sockets.settings(host_netns=1)
        server = sockets.server(socket.SOCK_STREAM)
        sockets.serve(TCP, server)
        client = sockets.open(socket.SOCK_STREAM, socket.AF_INET6)
        client.connect((f"::ffff:{sockets.vip}", 80))
        with server.accept()[0]:
            assert client.getpeername()[:2] == (f"::ffff:{sockets.vip}", 80)


def test_connections_spread_over_all_backends(sockets: Sockets) -> None:
    servers = [sockets.server(socket.SOCK_STREAM) for _ in range(2)]
    sockets.serve(TCP, *servers)
    for one in servers:
        one.listen(64)
    for _ in range(40):
        sockets.open(socket.SOCK_STREAM).connect((sockets.vip, 80))
    for one in servers:
        # Each was chosen at least once: 40 fair draws miss one backend once in 10^11.
        one.accept()[0].close()


@pytest.mark.parametrize("port", [80, 81], ids=["no backend", "no such port"])
def test_connect_where_nobody_is_is_refused_at_once(sockets: Sockets, port: int) -> None:
    sockets.serve(TCP)
    before = socket_counts(sockets).get(Reason.NO_BACKEND, 0)
    with pytest.raises(ConnectionRefusedError):
        sockets.open(socket.SOCK_STREAM).connect((sockets.vip, port))
    assert socket_counts(sockets)[Reason.NO_BACKEND] == before + 1


def test_a_spared_pod_dials_the_vip_as_it_is(sockets: Sockets) -> None:
    sockets.serve(TCP, sockets.server(socket.SOCK_STREAM))
    sockets.node.put("sandboxes", sockets.netns_cookie(), Sandbox(SandboxFlag.NO_SOCKETS))
    assert not sockets.is_translated()
    # Nor is it refused here where the Service has no endpoints.
    sockets.serve(TCP)
    assert not sockets.is_translated()


def test_another_pods_sockets_are_translated_beside_a_spared_one(sockets: Sockets) -> None:
    sockets.serve(TCP, sockets.server(socket.SOCK_STREAM))
    other = sockets.netns_cookie() + 1
    sockets.node.put("sandboxes", other, Sandbox(SandboxFlag.NO_SOCKETS))
    assert sockets.is_translated()


def test_where_only_the_nodes_sockets_are_translated_pods_dial_as_it_is(sockets: Sockets) -> None:
    sockets.serve(TCP, sockets.server(socket.SOCK_STREAM))
    sockets.settings(host_netns=1, flags=SettingFlag.NODE_SOCKETS)
    assert not sockets.is_translated()
    sockets.settings(host_netns=sockets.netns_cookie(), flags=SettingFlag.NODE_SOCKETS)
    assert sockets.is_translated()


def test_what_is_no_services_is_left_alone(sockets: Sockets) -> None:
    server = sockets.server(socket.SOCK_STREAM)
    client = sockets.open(socket.SOCK_STREAM)
    client.connect(server.getsockname())
    assert client.getpeername() == server.getsockname()
    assert not sockets.node.rows("sockets")


def test_a_pods_udp_socket_is_not_translated(sockets: Sockets) -> None:
    """Its packets are, one by one. Nothing is sent here: connect() of UDP only notes the peer."""
    sockets.serve(UDP, sockets.server(socket.SOCK_DGRAM))
    # A VIP that stays one may have no route.
    with suppress(OSError):
        sockets.open(socket.SOCK_DGRAM).connect((sockets.vip, 80))
    assert not sockets.node.rows("sockets")
    assert not sockets.node.rows("translations")


def test_the_nodes_datagrams_reach_a_backend_and_answers_come_from_the_vip(
    sockets: Sockets,
) -> None:
    sockets.be_the_node()
    server = sockets.server(socket.SOCK_DGRAM)
    sockets.serve(UDP, server)
    client = sockets.open(socket.SOCK_DGRAM)
    client.sendto(b"question", (sockets.vip, 80))
    data, who = server.recvfrom(100)
    server.sendto(b"answer", who)
    answer, vip = client.recvfrom(100)
    assert (data, answer) == (b"question", b"answer")
    assert vip[:2] == (sockets.vip, 80)


def test_the_nodes_connected_datagrams_do_too(sockets: Sockets) -> None:
    sockets.be_the_node()
    server = sockets.server(socket.SOCK_DGRAM)
    sockets.serve(UDP, server)
    client = sockets.open(socket.SOCK_DGRAM)
    client.connect((sockets.vip, 80))
    client.send(b"question")
    _, who = server.recvfrom(100)
    server.sendto(b"answer", who)
    assert client.recv(100) == b"answer"
    assert client.getpeername()[:2] == (sockets.vip, 80)


def test_one_sockets_datagrams_keep_their_backend_until_it_is_gone(sockets: Sockets) -> None:
    sockets.be_the_node()
    first, other = (sockets.server(socket.SOCK_DGRAM) for _ in range(2))
    sockets.serve(UDP, first, other)
    client = sockets.open(socket.SOCK_DGRAM)
    for _ in range(20):
        client.sendto(b"same", (sockets.vip, 80))
    kept, left = (first, other) if received(first) else (other, first)
    assert not received(left)
    number = 1 if kept is first else 2
    sockets.node.tables["backends"].delete([number.to_bytes(8, "little")])
    sockets.serve_only(left, 3)
    client.sendto(b"moved", (sockets.vip, 80))
    assert left.recv(100) == b"moved"


def test_the_nodes_datagrams_to_an_empty_service_are_refused(sockets: Sockets) -> None:
    sockets.be_the_node()
    sockets.serve(UDP)
    client = sockets.open(socket.SOCK_DGRAM)
    with pytest.raises(ConnectionRefusedError):
        client.sendto(b"question", (sockets.vip, 80))
    with pytest.raises(ConnectionRefusedError):
        client.connect((sockets.vip, 80))
