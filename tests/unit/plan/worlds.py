"""Small random clusters: few names and addresses, so that records meet and compete."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from weft.proxy.model.objects import (
    Address,
    EndpointSlice,
    HostPort,
    Kind,
    Link,
    Need,
    Network,
    Node,
    PathMtu,
    Pod,
    Protocol,
    Ref,
    Service,
    ServiceCIDR,
    ServicePort,
    Shaping,
    SliceEndpoint,
    SlicePort,
    Workload,
)
from weft.proxy.model.world import Key, Mode, Record, Settings
from weft.proxy.plan.node import BRIDGE, HELD, HOLD, OVERLAY

Move = tuple[Kind, Key, Record | None]

OWN_NODE = "n1"
NAMES = ("a", "b", "c")
PORT_NAMES = ("", "web")
VIPS = tuple(map(ip_address, ("10.96.0.1", "10.96.0.2", "fd00:96::1")))
POD_IPS = tuple(map(ip_address, ("10.244.1.5", "10.244.1.6", "10.244.2.5", "fd00:1::5")))
NODE_IPS = tuple(
    map(ip_address, ("192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "2001:db8::2"))
)
POD_CIDRS = tuple(map(ip_network, ("10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64")))
NETWORKS = tuple(map(ip_network, ("192.0.2.0/24", "192.0.2.1/32", "192.0.2.0/31", "2001:db8::/64")))
LINKS = ("eth0", "eth1", "lo", OVERLAY, BRIDGE, HOLD, HELD)
EXPOSED = tuple(
    map(
        ip_address,
        ("10.96.0.1", "192.0.2.1", "10.244.1.5", "10.244.2.9", "198.51.100.9", "2001:db8::1"),
    )
)
RANGES = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/25", "0.0.0.0/0", "2001:db8::/32")))
SERVICE_CIDRS = tuple(map(ip_network, ("10.96.0.0/16", "10.0.0.0/9", "10.244.1.0/24", "fd00::/16")))
ZONES = ("", "z1", "z2")
NEVER = tuple(map(ip_network, ("10.0.0.0/8", "10.244.1.0/26", "fd00:1::/64", "::/0")))

refs = st.builds(Ref, st.sampled_from(("default", "other")), st.sampled_from(NAMES))
protocols = st.sampled_from(Protocol)


def some(values: tuple[Address, ...], most: int = 2) -> SearchStrategy[tuple[Address, ...]]:
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


settings = st.builds(
    Settings,
    node=st.just(OWN_NODE),
    mode=st.sampled_from(Mode),
    overlay=st.booleans(),
    never_masquerade=st.lists(st.sampled_from(NEVER), unique=True).map(tuple),
    node_port_addresses=st.lists(st.sampled_from(NETWORKS), max_size=1).map(tuple),
    external_ips=st.booleans(),
    service_cidrs=st.lists(st.sampled_from(SERVICE_CIDRS), max_size=1).map(tuple),
    table_sizes=st.sampled_from(({}, {"frontends": 7}, {"slots": 3, "rings": 4})),
)

service_ports = st.builds(
    ServicePort,
    st.sampled_from(PORT_NAMES),
    protocols,
    st.sampled_from((53, 80)),
    st.sampled_from((0, 80, 30080)),
)
host_ports = st.builds(
    HostPort,
    st.sampled_from((80, 30080)),
    protocols,
    st.sampled_from((8080, 8081)),
    st.sampled_from((None, *map(ip_address, ("192.0.2.1", "127.0.0.1", "2001:db8::1")))),
)
slice_ports = st.builds(
    SlicePort, st.sampled_from(PORT_NAMES), protocols, st.sampled_from((8080, 8081))
)
slice_endpoints = st.builds(
    SliceEndpoint,
    st.sampled_from(POD_IPS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(("", OWN_NODE, "n2")),
    st.none(),
    st.just(""),
    st.lists(st.sampled_from(ZONES[1:]), max_size=1).map(tuple),
    st.lists(st.sampled_from((OWN_NODE, "n2")), max_size=1).map(tuple),
)


@st.composite
def services(draw: st.DrawFn) -> Move:
    ref = draw(refs)
    ports = tuple(draw(st.lists(service_ports, max_size=2)))
    record = Service(
        ref,
        "LoadBalancer",
        draw(some(VIPS)),
        ports,
        draw(st.sampled_from((True, True, False))),
        external_ips=draw(some(EXPOSED)),
        load_balancer_ips=draw(some(EXPOSED)),
        source_ranges=tuple(draw(st.lists(st.sampled_from(RANGES), max_size=2, unique=True))),
        internal_local=draw(st.booleans()),
        external_local=draw(st.booleans()),
        affinity_s=draw(st.sampled_from((0, 60))),
        created_ns=draw(st.sampled_from((0, 1, 2))),
    )
    return Kind.SERVICE, ref, draw(st.sampled_from((record, record, None)))


@st.composite
def slices(draw: st.DrawFn) -> Move:
    ref = draw(refs)
    record = EndpointSlice(
        ref,
        draw(st.sampled_from(("", *NAMES, "kubernetes"))),
        tuple(draw(st.lists(slice_ports, max_size=2))),
        tuple(draw(st.lists(slice_endpoints, max_size=3))),
    )
    return Kind.SLICE, ref, draw(st.sampled_from((record, record, None)))


@st.composite
def service_cidrs(draw: st.DrawFn) -> Move:
    ref = Ref("", draw(st.sampled_from(NAMES)))
    networks = tuple(draw(st.lists(st.sampled_from(SERVICE_CIDRS), max_size=2, unique=True)))
    record = ServiceCIDR(ref, networks)
    return Kind.SERVICE_CIDR, ref, draw(st.sampled_from((record, record, None)))


@st.composite
def nodes(draw: st.DrawFn) -> Move:
    ref = Ref("", draw(st.sampled_from((OWN_NODE, "n2", "n3"))))
    cidrs: SearchStrategy[tuple[Network, ...]] = st.lists(
        st.sampled_from(POD_CIDRS), max_size=2, unique=True
    ).map(tuple)
    labels = {"topology.kubernetes.io/zone": draw(st.sampled_from(ZONES))}
    record = Node(ref, draw(some(NODE_IPS)), draw(cidrs), labels)
    return Kind.NODE, ref, draw(st.sampled_from((record, record, None)))


@st.composite
def links(draw: st.DrawFn) -> Move:
    """Each name has ifindexes of its own: the kernel never gives one to two links."""
    name = draw(st.sampled_from(LINKS))
    ifindex = draw(st.integers(1, 2)) * 10 + LINKS.index(name)
    mtu = draw(st.sampled_from((1500, 9000, 65_535)))
    networks = tuple(draw(st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True)))
    flags = draw(st.booleans()), networks, draw(st.booleans())
    record = Link(name, ifindex, mtu, draw(some(NODE_IPS)), *flags)
    return Kind.LINK, name, draw(st.sampled_from((record, record, None)))


@st.composite
def workloads(draw: st.DrawFn) -> Move:
    key = draw(st.sampled_from(("w1", "w2", "w3")))
    record = Workload(
        key,
        draw(refs),
        "uid",
        draw(some(POD_IPS)),
        100 + int(key[1]),
        bytes(6),
        bytes(6),
        draw(st.sampled_from((0, 200 + int(key[1])))),
    )
    return Kind.ATTACHMENT, key, draw(st.sampled_from((record, record, None)))


@st.composite
def pods(draw: st.DrawFn) -> Move:
    """Of this node, with what pods may need; sometimes another pod of the same name."""
    ref, uid = draw(refs), draw(st.sampled_from(("uid", "uid", "other")))
    needs = tuple(draw(st.lists(st.sampled_from(Need), max_size=2, unique=True)))
    asked = tuple(draw(st.lists(host_ports, max_size=2)))
    record = Pod(ref, uid, OWN_NODE, {}, draw(some(POD_IPS)), False, False, (), needs, asked)
    return Kind.POD, ref, draw(st.sampled_from((record, record, None)))


@st.composite
def shapings(draw: st.DrawFn) -> Move:
    key = draw(st.sampled_from(("w1", "w2", "w3")))
    record = Shaping(key, draw(st.sampled_from((("tbf",), ("ingress",), ("ingress", "tbf")))))
    return Kind.SHAPING, key, draw(st.sampled_from((record, record, None)))


@st.composite
def path_mtus(draw: st.DrawFn) -> Move:
    record = PathMtu(draw(st.sampled_from(NODE_IPS)), draw(st.sampled_from((600, 1400, 8000))))
    return Kind.PATH_MTU, record.key, draw(st.sampled_from((record, record, None)))


MOVES: Mapping[Kind, SearchStrategy[Move]] = {
    Kind.SERVICE: services(),
    Kind.SLICE: slices(),
    Kind.SERVICE_CIDR: service_cidrs(),
    Kind.NODE: nodes(),
    Kind.LINK: links(),
    Kind.ATTACHMENT: workloads(),
    Kind.POD: pods(),
    Kind.SHAPING: shapings(),
    Kind.PATH_MTU: path_mtus(),
}


def turns(*kinds: Kind) -> SearchStrategy[list[list[Move]]]:
    """A few turns of a few moves each, of these kinds."""
    move = st.one_of(*(MOVES[kind] for kind in kinds))
    return st.lists(st.lists(move, min_size=1, max_size=4), min_size=1, max_size=8)
