"""Real sockets on the loopback, hooked by the socket programs in a cgroup of the tests' own: the
kernel has no test run for these programs."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.packet.packets import UDP
from tests.packet.runner import Node
from tests.packet.scene import ADDRESSES, SERVICE, Scene
from weft.bpf import syscall
from weft.bpf.layout import Backend, Direction, Frontend, FrontendKey, Reason, Slot, SlotKey
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
        self.node.put(
            "frontends", FrontendKey(self.at.vip, 80, UDP), Frontend(SERVICE, 0, 1, 0, 0, 0, 0)
        )

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


def socket_counts(scene: Scene) -> dict[Reason, int]:
    counted = scene.node.counts()
    return {reason: n for (reason, way), n in counted.items() if way is Direction.SOCKET}


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


@contextmanager
def hook(node: Node) -> Iterator[Node]:
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
