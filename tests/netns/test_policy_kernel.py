"""Policy in the kernel: rows read back, and the real programs' verdicts, against the API's text.

Rows reach the maps as in the daemon: only what a change names is planned, only the difference is
written. Packets go through the programs by BPF_PROG_TEST_RUN; no link is touched.
"""

import os
import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest

from tests.packet.packets import ACK, ICMP, ICMP6, SYN, TCP, Packet, echo
from tests.packet.runner import Action, Node, loaded
from tests.unit.policy.clusters import LOOPBACK, Dice, Flow, cluster_of, empty_world, step
from tests.unit.policy.evaluator import verdict
from tests.unit.policy.lookup import NAMES, Rows, allowed, planned
from weft.bpf.layout import Reason, Settings
from weft.proxy.apply.desired import Desired
from weft.proxy.apply.order import steps
from weft.proxy.plan import policy, workloads
from weft.proxy.plan.policy_world import forget

PLANNERS = (*policy.PLANNERS, workloads.PLANNER)
REFUSED = (Reason.POLICY_INGRESS, Reason.POLICY_EGRESS)
SCTP, PORTS_OF_FLOWS = 132, range(10_000, 60_000)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with loaded() as made:
        yield made


class Kernel:
    """A World whose rows the kernel has."""

    def __init__(self, node: Node) -> None:
        forget()
        node.clear()
        node.put("settings", 0, _settings())
        self.node, self.world, self._desired = node, empty_world(), Desired()

    def turn(self, dice: Dice, moves: int) -> None:
        stale: set[tuple[str, Hashable]] = set()
        for _ in range(moves):
            change, after = step(self.world, dice.move())
            for planner in PLANNERS:
                stale.update((planner.name, k) for k in planner.keys(change, self.world, after))
            self.world = after
        rows_of = {planner.name: planner.rows for planner in PLANNERS}
        for name, key in stale:
            self._desired.replace((name, key), rows_of[name](self.world, key))
        self._write()

    def _write(self) -> None:
        delta = self._desired.take_delta()
        for table, up in steps(delta):
            rows = delta.upserts[table] if up else dict.fromkeys(delta.deletes[table], b"")
            packed = {
                k: v for k, v in rows.items() if isinstance(k, bytes) and isinstance(v, bytes)
            }
            if up:
                self.node.tables[table].update(packed)
            else:
                self.node.tables[table].delete(packed)

    def rows(self) -> Rows:
        """What the kernel holds."""
        return {(name, key): value for name in NAMES for key, value in self.node.rows(name).items()}

    def is_plain(self, flow: Flow) -> bool:
        """An end of it is a link here, and no address is two links'."""
        claims = [len(self.world.workloads_at(address)) for address in flow[:2]]
        return max(claims) == 1

    def holders(self, flow: Flow) -> tuple[str, ...]:
        claims = (self.world.workloads_at(address) for address in flow[:2])
        return tuple(f"{one.key} {one.uid} {one.ref}" for at in claims for one in at)

    def admits(self, flow: Flow, sport: int, flags: int = SYN) -> bool:
        """The programs' verdict: at the source's link, and at the destination's by the stack."""
        source, destination = (bool(self.world.workloads_at(address)) for address in flow[:2])
        reason = Reason.STACK
        if source:
            reason = self._try("from_pod", flow, sport, flags)
        if destination and reason is Reason.STACK:
            reason = self._try("to_pod", flow, sport, flags)
        return reason not in REFUSED

    def _try(self, program: str, flow: Flow, sport: int, flags: int) -> Reason:
        frame = packet(flow, sport, flags).frame
        outcome = self.node.run(program, frame, ifindex=LOOPBACK, received_on=LOOPBACK)
        assert outcome.reason in (*REFUSED, Reason.STACK, Reason.DELIVERED), (flow, outcome)
        assert (outcome.action is Action.DROP) == (outcome.reason in REFUSED)
        return outcome.reason


@dataclass(frozen=True)
class Established:
    """holders: the links here that its ends were when it began; with another it has ended."""

    flow: Flow
    sport: int
    holders: tuple[str, ...]


def _settings() -> Settings:
    """No overlay, no masquerade: every packet that may go on is the stack's or a pod's."""
    return replace(Settings.unpack(bytes(Settings.SIZE)), hz=os.sysconf("SC_CLK_TCK"))


def packet(flow: Flow, sport: int, flags: int) -> Packet:
    source, destination, protocol, port = flow
    plain = Packet(src=source, dst=destination, proto=protocol, sport=sport, dport=port)
    if protocol in (ICMP, ICMP6):
        return echo(plain, sport)
    if protocol == SCTP:
        return replace(plain, data=struct.pack("!HHII", sport, port, 0, 0) + bytes(4))
    return replace(plain, flags=flags) if protocol == TCP else plain


def icmp_of_family(flow: Flow) -> Flow:
    source, destination, protocol, port = flow
    return source, destination, ICMP6 if (protocol, source.version) == (ICMP, 6) else protocol, port


def test_10000_random_flows_agree_with_rows_read_back_through_random_changes(node: Node) -> None:
    kernel, dice = Kernel(node), Dice(Random("read back"))
    kernel.turn(dice, 30)
    counts = {True: 0, False: 0}
    for _ in range(250):
        kernel.turn(dice, dice.random.randint(1, 4))
        cluster = cluster_of(kernel.world)
        for _ in range(40):
            flow = icmp_of_family(dice.flow(cluster))
            expected = verdict(cluster, *flow)
            given = allowed(node.tables, kernel.world, cluster.links, *flow)
            assert given == expected.allowed, (flow, expected)
            counts[given] += 1
    assert kernel.rows() == planned(kernel.world)
    assert sum(counts.values()) == 10_000
    assert min(counts.values()) > 1_000


def test_the_real_programs_give_the_apis_verdict_on_random_new_flows(node: Node) -> None:
    kernel, dice, sports = Kernel(node), Dice(Random("programs")), iter(PORTS_OF_FLOWS)
    kernel.turn(dice, 30)
    counts = {True: 0, False: 0}
    while sum(counts.values()) < 3_000:
        kernel.turn(dice, dice.random.randint(1, 4))
        cluster = cluster_of(kernel.world)
        for _ in range(30):
            flow = icmp_of_family(dice.flow(cluster))
            if kernel.is_plain(flow):
                given, expected = kernel.admits(flow, next(sports)), verdict(cluster, *flow)
                assert given == expected.allowed, (flow, expected)
                counts[given] += 1
    assert min(counts.values()) > 300


def test_an_established_flow_follows_every_change_of_its_answer(node: Node) -> None:
    """Its entry says which revisions admitted it: where the answer moved, they have moved too."""
    kernel, dice, sports = Kernel(node), Dice(Random("following")), iter(PORTS_OF_FLOWS)
    kernel.turn(dice, 30)
    alive: list[Established] = []
    checked = cut = 0
    for _ in range(120):
        kernel.turn(dice, 1)
        cluster = cluster_of(kernel.world)
        for one in [one for one in alive if kernel.holders(one.flow) == one.holders]:
            given, expected = kernel.admits(one.flow, one.sport, ACK), verdict(cluster, *one.flow)
            assert given == expected.allowed, (one.flow, expected)
            checked += 1
            cut += not given
        for _ in range(20):
            flow = icmp_of_family(dice.flow(cluster))
            if kernel.is_plain(flow) and kernel.admits(flow, sport := next(sports)):
                alive.append(Established(flow, sport, kernel.holders(flow)))
        alive = alive[-60:]
    assert checked > 2_000
    assert cut > 100
