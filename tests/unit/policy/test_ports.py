"""Which ports a rule means (policy S12-S14), and how a set's ports become classes and LPM rows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.lookup import port_class
from tests.unit.policy.scenario import Manifest, Scenario
from weft.bpf.layout import TABLES, pack_u32
from weft.bpf.table import FakeTable
from weft.proxy.plan.policy import problems
from weft.proxy.plan.policy_ports import (
    EVERY_PORT,
    NO_PORT,
    PortClasses,
    PortRange,
    Ports,
    partition,
    ports_of,
    union,
)
from weft.proxy.plan.policy_rules import Direction

SET = 0x0123456789ABCDEF


def allow_ports(scene: Scenario, *ports: Manifest) -> None:
    scene.policy("a/p", ingress=[{"ports": list(ports)}])


def test_a_port_without_a_protocol_is_tcps(scene: Scenario) -> None:
    allow_ports(scene, {"port": 80})
    assert scene.reaches("b/client", "a/web", "TCP/80")
    assert not scene.reaches("b/client", "a/web", "UDP/80")
    assert not scene.reaches("b/client", "a/web", "TCP/81")


def test_a_protocol_without_a_port_is_all_of_its_ports(scene: Scenario) -> None:
    allow_ports(scene, {"protocol": "UDP"})
    assert scene.reaches("b/client", "a/web", "UDP/1")
    assert scene.reaches("b/client", "a/web", "UDP/65535")
    assert not scene.reaches("b/client", "a/web", "TCP/1")


def test_both_ends_of_a_range_belong_to_it(scene: Scenario) -> None:
    allow_ports(scene, {"port": 8000, "endPort": 8042})
    for port, expected in ((7999, False), (8000, True), (8031, True), (8042, True), (8043, False)):
        assert scene.reaches("b/client", "a/web", f"TCP/{port}") == expected, port


def test_a_named_port_is_the_selected_pods_by_name_and_protocol(scene: Scenario) -> None:
    tcp = {"name": "api", "containerPort": 8080}
    scene.pod("a/web", ports=(tcp,), app="web")
    scene.pod("a/client", ports=({"name": "api", "containerPort": 53, "protocol": "UDP"},), app="x")
    allow_ports(scene, {"port": "api"})
    assert scene.reaches("b/client", "a/web", "TCP/8080")
    assert not scene.reaches("b/client", "a/web", "UDP/8080")
    assert not scene.reaches("b/client", "a/client", "UDP/53")
    assert not scene.reaches("b/client", "a/client", "TCP/53")


def test_one_name_is_two_numbers_on_two_pods(scene: Scenario) -> None:
    scene.pod("a/web", ports=({"name": "api", "containerPort": 8080},), app="web")
    scene.pod("a/client", ports=({"name": "api", "containerPort": 9090},), app="client")
    allow_ports(scene, {"port": "api"})
    assert scene.reaches("b/client", "a/web", "TCP/8080")
    assert scene.reaches("b/client", "a/client", "TCP/9090")
    assert not scene.reaches("b/client", "a/client", "TCP/8080")


def test_a_named_port_in_egress_opens_nothing_and_says_so(scene: Scenario) -> None:
    scene.pod("b/web", ports=({"name": "api", "containerPort": 8080},), app="web")
    scene.policy("a/p", policyTypes=["Egress"],
                 egress=[{"ports": [{"port": "api"}, {"port": 53}]}])  # fmt: skip
    assert not scene.reaches("a/client", "b/web", "TCP/8080")
    assert scene.reaches("a/client", "b/web", "TCP/53")
    assert [(str(ref), why) for ref, why in problems(scene.world)] == [
        ("a/p", "egress[0]: ports named api are not resolved and allow nothing")
    ]


def test_ports_beyond_256_classes_stay_closed_and_it_is_said(scene: Scenario) -> None:
    """Each rule has a peer of its own, so no two ports are alike."""
    rules = [
        {
            "from": [{"podSelector": {"matchLabels": {"n": str(i)}}}],
            "ports": [{"port": 1000 + 2 * i}],
        }
        for i in range(300)
    ]
    scene.policy("a/p", ingress=rules)
    for number, expected in ((0, True), (254, True), (255, False), (299, False)):
        scene.pod("a/client", app="client", n=str(number))
        port = f"TCP/{1000 + 2 * number}"
        assert scene.tables_allow("a/client", "a/web", port) == expected, number
    found = list(problems(scene.world))
    assert len(found) == 1
    assert "45 classes more than the 256" in found[0][1]
    assert "port classes" in scene.why(Direction.INGRESS, "a/web", "a/client", "TCP/1598").reason


def test_what_a_port_list_does_not_say_opens_nothing(scene: Scenario) -> None:
    allow_ports(scene, {"protocol": "QUIC"}, {"port": 70000}, {"port": 90, "endPort": 80})
    for port in ("TCP/80", "TCP/90", "UDP/443", "ICMP"):
        assert not scene.reaches("b/client", "a/web", port)


def test_unions_are_written_one_way() -> None:
    halves = ports_of([PortRange(6, 5, 9), PortRange(6, 1, 4)])
    assert halves == ports_of([PortRange(6, 1, 9)]) == union([halves, NO_PORT])
    assert union([halves, EVERY_PORT]) == EVERY_PORT
    assert ports_of([PortRange(6, 1, 4), PortRange(17, 5, 9)]) != halves


edges = st.sampled_from((0, 1, 2, 7, 8, 80, 81, 1023, 1024, 32768, 65534, 65535))
ranges = st.builds(
    lambda protocol, a, b: PortRange(protocol, min(a, b), max(a, b)),
    st.sampled_from((6, 17, 132)),
    edges | st.integers(0, 65535),
    edges | st.integers(0, 65535),
)
lists = st.lists(ranges, max_size=5).map(ports_of) | st.just(EVERY_PORT)


@settings(deadline=None)
@given(st.lists(lists, max_size=12), st.data())
def test_every_port_gets_the_bits_of_exactly_the_lists_that_name_it(
    port_lists: list[Ports], data: st.DataObject
) -> None:
    classes = partition(frozenset(port_lists))
    table = port_table(classes)
    near = [p + d for ports in port_lists for r in ports.ranges for p in r[1:] for d in (-1, 0, 1)]
    ports = [port for port in near if 0 <= port <= 65535] + [data.draw(st.integers(0, 65535))]
    for protocol in (1, 6, 17, 132):
        for port in ports:
            found = port_class({"ports": table}, SET, protocol, port)
            assert found == classes.class_of(protocol, port)
            for one in port_lists:
                assert bool(classes.bits[one] >> found & 1) == one.allows(protocol, port)


def test_a_range_costs_at_most_30_rows() -> None:
    assert len(partition(frozenset([ports_of([PortRange(6, 1, 65534)])])).rows) == 30
    assert len(partition(frozenset([ports_of([PortRange(6, 0, 65535)])])).rows) == 1


def port_table(classes: PortClasses) -> FakeTable:
    table = FakeTable(TABLES["ports"])
    table.update({row.key(SET): pack_u32(row.port_class) for row in classes.rows})
    return table
