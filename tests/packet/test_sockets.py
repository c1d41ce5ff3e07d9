"""Services at the socket, by real sockets on the loopback in a cgroup of the tests' own: the kernel
has no test run for these programs."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.packet.packets import TCP, UDP
from tests.packet.runner import Node
from tests.packet.scene import ADDRESSES, SERVICE, Scene
from weft.bpf import syscall
from weft.bpf.layout import (
    Backend,
    Direction,
    Frontend,
    FrontendKey,
    Reason,
    Sandbox,
    SandboxFlag,
    SettingFlag,
    Slot,
    SlotKey,
)
from weft.bpf.syscall import ProgramType

SO_NETNS_COOKIE = 71
TIMEOUT_S = 5.0


def cgroup2_root() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise FileNotFoundError("no cgroup2 hierarchy is mounted: socket programs need one")


def own_cgroup(root: Path) -> Path:
    (path,) = (
        line.rpartition("::")[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    return root / path.strip("/")


@pytest.fixture(scope="module")
def hooked(node: Node) -> Iterator[Node]:
    """This process in a cgroup with every socket program."""
    root = cgroup2_root()
    home, place = own_cgroup(root), root / f"wt-packet-{os.getpid()}"
    with ExitStack() as undo:
        place.mkdir()
        undo.callback(place.rmdir)
        target = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        undo.callback(os.close, target)
        for program in node.programs.values():
            if program.kind is ProgramType.CGROUP_SOCK_ADDR:
                link = syscall.create_link(program.fd, target, program.attach, program.name)
                undo.callback(os.close, link)
        (place / "cgroup.procs").write_text(str(os.getpid()))
        undo.callback((home / "cgroup.procs").write_text, str(os.getpid()))
        yield node


class Sockets(Scene):
    """One family's sockets; every one of them waits for a limited time and is closed at the end."""

    def __init__(self, node: Node, version: int, stack: ExitStack) -> None:
        super().__init__(node, ADDRESSES[version])
        self._stack = stack
        self.loopback = type(self.at.a)("127.0.0.1" if version == 4 else "::1")
        self.vip = str(self.at.vip)

    def open(self, kind: int, family: int | None = None) -> socket.socket:
        default = socket.AF_INET if self.version == 4 else socket.AF_INET6
        one = self._stack.enter_context(socket.socket(family or default, kind))
        one.settimeout(TIMEOUT_S)
        return one

    def server(self, kind: int) -> socket.socket:
        one = self.open(kind)
        one.bind((str(self.loopback), 0))
        if kind == socket.SOCK_STREAM:
            one.listen()
        return one

    def serve(self, proto: int, *servers: socket.socket) -> None:
        """The service's endpoints, ids 1, 2, ... in their order."""
        self.service(proto, *(self.loopback for _ in servers))
        for number, one in enumerate(servers):
            slot = Slot(number + 1, self.loopback, one.getsockname()[1])
            self.node.put("slots", SlotKey(SERVICE, number), slot)

    def serve_only(self, server: socket.socket, number: int) -> None:
        """From now on the service's one endpoint, under the id `number`."""
        self.node.put("backends", number, Backend(SERVICE, 0))
        slot = Slot(number, self.loopback, server.getsockname()[1])
        self.node.put("slots", SlotKey(SERVICE, 0), slot)
        self.node.put("frontends", FrontendKey(self.at.vip, 80, UDP), Frontend(SERVICE, 0, 1, 0, 0, 0))

    def netns_cookie(self) -> int:
        raw = self.open(socket.SOCK_DGRAM).getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, "little")

    def be_the_node(self) -> None:
        """From now on this process counts as the node's."""
        self.settings(host_netns=self.netns_cookie())

    def is_translated(self) -> bool:
        """Whether a new connect() to the VIP is translated, or refused, at the socket."""
        client = self.open(socket.SOCK_STREAM)
        client.setblocking(False)
        before = socket_counts(self)
        with suppress(OSError):
            client.connect((self.vip, 80))
        return socket_counts(self) != before


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def sockets(request: pytest.FixtureRequest, hooked: Node) -> Iterator[Sockets]:
    hooked.clear()
    with ExitStack() as stack:
        made = Sockets(hooked, request.param, stack)
        made.settings(host_netns=1)  # no namespace's: this process counts as a pod's
        yield made


def socket_counts(scene: Scene) -> dict[Reason, int]:
    counted = scene.node.counts()
    return {reason: n for (reason, way), n in counted.items() if way is Direction.SOCKET}


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


def received(server: socket.socket) -> int:
    """How many datagrams wait."""
    server.setblocking(False)
    count = 0
    try:
        while server.recv(100):
            count += 1
    except BlockingIOError:
        server.settimeout(TIMEOUT_S)
    return count
