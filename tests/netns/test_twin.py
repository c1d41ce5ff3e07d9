"""Weft beside the real kube-proxy: two clusters of the same objects are asked the same questions.

No expectation is written by hand: what kube-proxy 1.36 does is what is right, but for ALLOWED.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

import pytest

from deploy.netlab import Lab
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.twin import matrix
from tests.twin.matrix import NODES, PODS, Cell
from tests.twin.proxy import ProxyLab, ProxyMode, kube_proxy
from tests.twin.rig import Answers, Rig

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(kube_proxy() is None, reason="kube-proxy is not built: make lab-binaries"),
]

PEER = ProxyMode("nftables", "ClusterCIDR")
OTHER_PEERS = (
    ProxyMode("nftables", "NodeCIDR"),
    ProxyMode("nftables", "InterfaceNamePrefix"),
    ProxyMode("iptables", "ClusterCIDR"),
)
CELLS = tuple(matrix.cells())
# Both daemons load their programs, one after the other.
START_S = 240


@dataclass(frozen=True, slots=True)
class Leave:
    """Where a backend of kube-proxy is no example; an empty set: anywhere."""

    reason: str
    backend: str
    clients: frozenset[str]
    places: frozenset[str]

    def covers(self, mode: ProxyMode, cell: Cell) -> bool:
        return (
            mode.backend == self.backend
            and cell.client in (self.clients or {cell.client})
            and cell.place in (self.places or {cell.place})
        )


ALLOWED = (
    Leave(
        "nothing but the Service's ports is known: the rest goes to the default route",
        "iptables", frozenset(), frozenset({"unserved"}),
    ),
    Leave(
        "refusals stand in FORWARD and INPUT, which the node's own packets do not meet",
        "iptables", frozenset({"east"}), frozenset({"balancer", "external"}),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """How Weft is set. hook: whose sockets translate; client: whom endpoints see."""

    mode: str
    hook: str
    client: str

    def flags(self, turn: int) -> tuple[str, ...]:
        """Ports to masquerade with that no other turn had: flows outlive the daemon, and go on as
        they began."""
        first = 61_000 + 800 * (turn % 5)
        ports = ("--snat-port-min", str(first), "--snat-port-max", str(first + 799))
        return ("--socket-hook", self.hook, "--client-address", self.client, *ports)


@dataclass(slots=True)
class Twins:
    """Both clusters, and what each said already in a way of being set."""

    ours: Lab
    theirs: ProxyLab
    rigs: dict[str, Rig]
    said: dict[ProxyMode | Variant, Answers] = field(default_factory=dict)
    _sentinels: Iterator[int] = field(default_factory=lambda: count(1))

    def of_weft(self, variant: Variant) -> Answers:
        if variant not in self.said:
            for node in self.ours.nodes:
                assert node.daemon
                stop(node.daemon)
                node.mode, node.flags = variant.mode, variant.flags(len(self.said))
                node.launch()
            for node in self.ours.nodes:
                node.await_ready(timeout_s=START_S)
            self._await(self.rigs["ours"])
            self.said[variant] = self._ask_ours()
        return self.said[variant]

    def _ask_ours(self) -> Answers:
        """Where it was silent and kube-proxy is not, once more, alone: of questions that share a
        port and a backend at a time one may be lost, for which conntrack changes the port."""
        peer, said = self.of_kube_proxy(PEER), dict(self.rigs["ours"].ask(CELLS))
        lost = [cell for cell in CELLS if "silent" in said[cell] - peer[cell]]
        return said | dict(self.rigs["ours"].ask(lost))

    def of_kube_proxy(self, mode: ProxyMode) -> Answers:
        if mode not in self.said:
            for node in self.theirs.proxies:
                node.restart(mode)
            self._await(self.rigs["theirs"])
            self.said[mode] = self.rigs["theirs"].ask(CELLS)
        return self.said[mode]

    def publish(self) -> None:
        for lab in (self.ours, self.theirs):
            lab.manifests.put(*matrix.objects(self.rigs["ours"].servers))

    def _await(self, rig: Rig) -> None:
        """What was published before a new Service is served when that is."""
        sentinel = matrix.Sentinel(next(self._sentinels))
        rig.lab.manifests.put(*sentinel.objects(rig.servers))
        wait_for("the sentinel", lambda: rig.is_served(sentinel), timeout_s=60)


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    name = lab_name()
    with ExitStack() as stack:
        ours = stack.enter_context(Lab(f"{name}o"))
        theirs = stack.enter_context(ProxyLab(f"{name}t"))
        for name in NODES:
            ours.add_node(name).launch()
            theirs.add_node(name)
        for node in ours.nodes:
            node.await_ready(timeout_s=START_S)
        theirs.start(PEER)
        first = Rig(ours)
        stack.callback(first.close)
        addresses = {name: pod.addresses for name, pod in first.pods.items()}
        second = Rig(theirs, addresses)
        stack.callback(second.close)
        made_twins = Twins(ours, theirs, {"ours": first, "theirs": second})
        made_twins.publish()
        yield made_twins


@pytest.fixture(autouse=True)
def law(twins: Twins) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in twins.ours.nodes:
        assert_dump_equals_plan(node)


MASQUERADING = (
    Variant("vxlan", "all", "masquerade"),
    Variant("vxlan", "node", "masquerade"),
    Variant("auto", "all", "masquerade"),
)
KEEPING = Variant("vxlan", "all", "keep"), Variant("auto", "node", "keep")


def shown(variant: Variant) -> str:
    return f"{variant.mode}-hook-{variant.hook}"


@pytest.mark.parametrize("mode", OTHER_PEERS, ids=lambda mode: f"{mode.backend}-{mode.local}")
def test_kube_proxy_says_the_same_however_it_is_set(twins: Twins, mode: ProxyMode) -> None:
    """So that one of its ways stands for all."""
    peer, other = twins.of_kube_proxy(PEER), twins.of_kube_proxy(mode)
    assert_none({
        cell: (answers, other[cell])
        for cell, answers in peer.items()
        if answers != other[cell] and not any(leave.covers(mode, cell) for leave in ALLOWED)
    })  # fmt: skip


@pytest.mark.parametrize("variant", MASQUERADING, ids=shown)
def test_masquerading_weft_is_kube_proxy(twins: Twins, variant: Variant) -> None:
    """The same servers answer, and see the same clients."""
    peer, ours = twins.of_kube_proxy(PEER), twins.of_weft(variant)
    expected = {
        cell: frozenset(at_the_socket(cell, answer, variant) for answer in answers)
        for cell, answers in peer.items()
    }
    assert_none(differing(expected, ours))


@pytest.mark.parametrize("variant", KEEPING, ids=shown)
def test_keeping_weft_differs_in_the_client_alone(twins: Twins, variant: Variant) -> None:
    """Servers see it wherever their answer finds back to where it came in."""
    peer, ours = twins.of_kube_proxy(PEER), twins.of_weft(variant)
    expected = {
        cell: frozenset(
            at_the_socket(cell, with_client_kept(cell, answer), variant) for answer in answers
        )
        for cell, answers in peer.items()
    }
    assert_none(differing(expected, ours))


def differing(one: Answers, other: Answers) -> dict[Cell, tuple[frozenset[str], frozenset[str]]]:
    return {cell: (answers, other[cell]) for cell, answers in one.items() if answers != other[cell]}


def at_the_socket(cell: Cell, answer: str, variant: Variant) -> str:
    """A pod that its socket sends to itself never leaves itself: it sees its own address. Another
    node's ports, and packets that are to be masqueraded, are no matter of its socket."""
    server, _, seen = answer.partition(" saw ")
    masked = (
        variant.client == "masquerade"
        and cell.place != "cluster-ip"
        and "externalTrafficPolicy" not in matrix.POLICIES[cell.policy]
    )
    at_socket = variant.hook == "all" and cell.protocol == "tcp" and not masked
    here = PODS.get(cell.client) == matrix.entry_node(cell)
    itself = bool(seen) and server == cell.client
    return f"{server} saw the client" if itself and here and at_socket else answer


def with_client_kept(cell: Cell, answer: str) -> str:
    """kube-proxy's answer if its server saw whom it can answer."""
    server, _, seen = answer.partition(" saw ")
    if not seen or server == cell.client:
        return answer
    entry, on = matrix.entry_node(cell), PODS.get(server, server)
    client = matrix.client_at(cell, entry)
    if on == entry:
        return f"{server} saw {client}"
    # Another node's own address answers past the entry, and so does whoever is asked by a node.
    passes_by = server in NODES or (client in NODES and cell.client != entry)
    return f"{server} saw {entry if passes_by else client}"


def assert_none(differences: dict[Cell, tuple[frozenset[str], frozenset[str]]]) -> None:
    """Says the first of them in a line each: kube-proxy's answer, then the other."""
    lines = [
        f"{'/'.join(map(str, cell))}: {sorted(theirs)}, here {sorted(ours)}"
        for cell, (theirs, ours) in list(differences.items())[:40]
    ]
    assert not differences, f"{len(differences)} cells differ\n" + "\n".join(lines)
