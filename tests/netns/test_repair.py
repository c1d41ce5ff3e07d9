"""What other hands do to a node: undone within two seconds, seen by traffic that works again."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import wait_for
from tests.netns.ask import Host
from tests.netns.outside import serve
from tests.netns.path_stage import underlay
from tests.netns.strict import take_strict_paths

pytestmark = pytest.mark.long

PORT = 8080
VIP_PORT = 80
VIPS = {4: "10.96.2.1", 6: "fd00:10:96::2:1"}
HOSTED_VIPS = {4: "10.96.2.2", 6: "fd00:10:96::2:2"}
"""Of the Service whose endpoint is east itself: the stack carries its clients' flows."""
NODE_PORT = 30_095
REPAIRED_WITHIN_S = 2.0
ASKING_S = 1.0
"""What asking everybody may take when all answer."""

# Asks all servers at once, each over TCP and UDP; prints those that do not answer.
ASK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def silent(asked):
    name, address, port, kind = asked
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, getattr(socket, kind)) as s:
        s.settimeout(0.3)
        try:
            s.connect((address, port))
            s.send(b"?")
            return [] if s.recv(512) else [name]
        except OSError as error:
            return [f"{name} ({kind}, {address}): {error}"]
asked = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(asked)) as pool:
    print(json.dumps(sum(pool.map(silent, asked), [])))
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A client and a server on east, a server on west, and one outside; Services over west's pod,
    exposed at a node port too, and over east. The host outside comes to all of them by east."""

    lab: Lab
    client: Pod
    here: Pod
    there: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    @property
    def outside(self) -> Host:
        return Host(self.lab.switch, self.lab.cgroup)

    def pairs(self, version: int) -> Iterator[tuple[Pod | LabNode | Host, str, str, int]]:
        """Everyone who talks to someone by way of east: from where, in words, to what address."""
        east, west = self.lab.nodes
        here, there = (str(pod.address(version)) for pod in (self.here, self.there))
        yield self.client, "pod to pod here", here, PORT
        yield self.client, "pod to pod there", there, PORT
        yield self.client, "pod to VIP", VIPS[version], VIP_PORT
        yield self.client, "pod to its node", underlay(east, version), PORT
        yield self.client, "pod to the other node", underlay(west, version), PORT
        yield self.client, "pod to outside", self.lab.outside[version == 6], PORT
        yield self.there, "pod there to pod here", here, PORT
        yield east, "node to pod here", here, PORT
        yield east, "node to pod there", there, PORT
        yield east, "node to VIP", VIPS[version], VIP_PORT
        yield west, "other node to pod here", here, PORT
        yield self.outside, "outside to pod here", here, PORT
        yield self.outside, "outside to VIP", VIPS[version], VIP_PORT
        yield self.outside, "outside to VIP of the node", HOSTED_VIPS[version], VIP_PORT
        yield self.outside, "outside to node port", underlay(east, version), NODE_PORT

    def silent(self) -> list[str]:
        """The pairs that do not talk now."""
        pairs = [*self.pairs(4), *self.pairs(6)]
        askers: tuple[Pod | LabNode | Host, ...] = (
            self.client, self.there, *self.lab.nodes, self.outside,
        )  # fmt: skip

        def ask(asker: Pod | LabNode | Host) -> list[str]:
            asked = [
                (name, address, port, kind)
                for who, name, address, port in pairs
                for kind in ("SOCK_STREAM", "SOCK_DGRAM")
                if who == asker
            ]
            found: list[str] = json.loads(asker.run(sys.executable, "-c", ASK, json.dumps(asked)))
            return found

        with ThreadPoolExecutor(len(askers)) as pool:
            return list(chain.from_iterable(pool.map(ask, askers)))


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    east, west = lab.nodes
    stage = Stage(lab, east.add_pod("client"), east.add_pod("here"), west.add_pod("there"))
    east.serve(stage.here, PORT)
    west.serve(stage.there, PORT)
    route_from_outside(stage)
    publish(stage)
    with ExitStack() as stack:
        for name, namespace in hosts_of(lab).items():
            serve(lab, stack, namespace, name, PORT)
        wait_for("everyone to talk", lambda: not stage.silent(), timeout_s=20)
        yield stage


def hosts_of(lab: Lab) -> dict[str, str]:
    """Namespaces of who answers beside pods, by name."""
    return {**{node.name: node.namespace for node in lab.nodes}, "outside": lab.switch}


def route_from_outside(stage: Stage) -> None:
    """What an operator's router has for clients of pods and Services: all by east."""
    for version, cidr in zip((4, 6), stage.east.pod_cidrs, strict=True):
        east = underlay(stage.east, version)
        for target in (cidr, VIPS[version], HOSTED_VIPS[version]):
            stage.outside.run("ip", "route", "replace", target, "via", east)


def publish(stage: Stage) -> None:
    hosts = [ip_address(underlay(stage.east, version)) for version in (4, 6)]
    ports = [("tcp", "TCP", VIP_PORT), ("udp", "UDP", VIP_PORT)]
    targets = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
    for name, vips, endpoints in (
        ("web", VIPS, list(stage.there.addresses)),
        ("hosted", HOSTED_VIPS, hosts),
    ):
        service: Any = manifests.service(name, "default", list(vips.values()), ports)
        if name == "web":
            exposed = [{**one, "nodePort": NODE_PORT} for one in service["spec"]["ports"]]
            service["spec"] |= {"type": "NodePort", "ports": exposed}
        slices = [
            manifests.endpoint_slice(f"{name}-{v}", "default", name, endpoints, targets, v)
            for v in (4, 6)
        ]
        stage.lab.manifests.put(service, *slices)


def link_of(node: LabNode, pod: Pod) -> str:
    """The name of the pod's host end."""
    peer = re.search(r"eth0@if(\d+):", pod.run("ip", "link"))
    assert peer is not None
    found = re.search(rf"^{peer[1]}: (\w+)@", node.run("ip", "link"), re.MULTILINE)
    assert found is not None
    return found[1]


Vandalism = Callable[[Stage], object]


def on_east(*commands: str) -> Vandalism:
    """Shell commands on east. $POD: the host end of a pod there; $PINS: the daemon's pins;
    $SCRATCH: a file."""

    def wreak(stage: Stage) -> object:
        pins = stage.east.folder / "bpf" / "weft"
        link = link_of(stage.east, stage.here)
        names = f"POD={link}; PINS={pins}; SCRATCH={stage.east.folder}/scratch"
        return stage.east.run("sh", "-c", "; ".join((names, *commands)))

    return wreak


# The node's own routes come back as they would from whoever configures its network.
FLUSH_MAIN = """
for family in -4 -6; do
  ip $family route show | grep -v "proto 8[78]" > $SCRATCH
  ip $family route flush table main
  sed -E 's/ (expires [0-9]+sec|pref medium|linkdown)//g' $SCRATCH | while read route
  do ip $family route replace $route; done
done
"""

# What systemd-networkd does to a link that a .network file of the operator's matches by accident.
NETWORKD = """
for link in $(ls /sys/class/net | grep ^weft); do
  ip addr flush dev $link; ip route flush dev $link; ip -6 route flush dev $link
  ip neigh flush nud permanent dev $link
  for one in ipv4/conf/$link/forwarding=0 ipv4/conf/$link/rp_filter=1 ipv6/conf/$link/accept_ra=0 \
    ipv6/conf/$link/forwarding=0 ipv6/conf/$link/disable_ipv6=1
  do echo ${one#*=} > /proc/sys/net/${one%=*}; done
done
"""

# sysctl --system reads the machine's own files, sysctl -p this one alone.
HARDENED = """
net.ipv4.ip_forward = 0
net.ipv6.conf.all.forwarding = 0
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.conf.*.rp_filter = 1
net.ipv4.ip_local_reserved_ports =
"""

DETACH = """
import ctypes, os, struct, sys
call = ctypes.CDLL(None, use_errno=True).syscall
for pin in os.scandir(sys.argv[1]):
    if pin.name.startswith("link-"):
        name = ctypes.create_string_buffer(os.fsencode(pin.path) + b"\\0")
        get = ctypes.create_string_buffer(struct.pack("=Q8x", ctypes.addressof(name)))
        link = call(321, 7, get, 16)
        assert link >= 0
        assert call(321, 34, struct.pack("=I4x", link), 8) == 0
"""


EVERYWHERE: dict[str, Vandalism] = {
    "forwarding off": on_east("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"),
    "forwarding off on each link": on_east(
        "for f in /proc/sys/net/ipv4/conf/*/forwarding; do echo 0 > $f; done"
    ),
    "a file for sysctl": on_east(f"printf '{HARDENED}' | sysctl -qp -"),
    "systemd-networkd": on_east(NETWORKD),
    "tcx hooks detached": lambda stage: stage.east.run(
        sys.executable, "-c", DETACH, stage.east.folder / "bpf" / "weft" / "hooks"
    ),
    "strict rp_filter on each link": on_east(
        "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done"
    ),
    "node's routes to pods there": on_east("ip route flush proto 88", "ip -6 route flush proto 88"),
    "the main table flushed": on_east(FLUSH_MAIN),
    "every neighbour": on_east("ip neigh flush all nud permanent", "ip neigh flush all"),
    "a pod's link down": on_east("ip link set $POD down"),
    "a pod's qdisc": on_east("tc qdisc del dev $POD clsact"),
    "the filters of all pods' links": on_east(f"tc filter del block {0x57454649}"),
    "pins of hooks": on_east("rm $PINS/hooks/*"),
    "pins of maps": on_east("rm $PINS/maps/*"),
    "every pin": on_east("rm -r $PINS"),
    "iptables' FORWARD policy": on_east(
        "iptables-nft -P FORWARD DROP", "ip6tables-nft -P FORWARD DROP"
    ),
    "iptables' FORWARD flushed": on_east(
        "iptables-nft -P FORWARD DROP", "iptables-nft -F FORWARD", "ip6tables-nft -F FORWARD"
    ),
    "a firewall of nftables": on_east(
        "nft 'add table inet fw; "
        "add chain inet fw f { type filter hook forward priority 10; policy drop; }'"
    ),
    "nft flush ruleset": on_east("nft flush ruleset"),
    "strict reverse paths": lambda stage: take_strict_paths(*stage.lab.nodes),
    "the hold link deleted": on_east("ip link del weft.hold"),
    "legacy iptables": on_east(
        "iptables-legacy -P FORWARD DROP", "ip6tables-legacy -P FORWARD DROP"
    ),
}
ROUTED = {"routes to pods here": on_east("ip route flush proto 87", "ip -6 route flush proto 87")}
BY_MODE: dict[str, dict[str, Vandalism]] = {
    "vxlan": ROUTED
    | {
        "the overlay's addresses": on_east("ip addr flush dev weft.vx"),
        "the overlay down": on_east("ip link set weft.vx down"),
        "the overlay deleted": on_east("ip link del weft.vx"),
    },
    "direct": ROUTED,
    "auto": ROUTED,
    "bridge": {
        "the bridge's addresses": on_east("ip addr flush dev weft0"),
        "the bridge down": on_east("ip link set weft0 down"),
        "the bridge deleted": on_east("ip link del weft0"),
        "a pod off the bridge": on_east("ip link set $POD nomaster"),
        "the overlay deleted": on_east("ip link del weft.vx"),
    },
}
FORWARD_DROPS = (
    "iptables' FORWARD policy", "iptables' FORWARD flushed", "a firewall of nftables",
    "legacy iptables",
)  # fmt: skip
"""Without an overlay a client outside goes on to another node's pod from uplink to uplink, by no
link of Weft's: what forwards that is the operator's to accept (docs/troubleshooting.md)."""
CASES = [(mode, name) for mode, own in BY_MODE.items() for name in EVERYWHERE | own]


@pytest.mark.parametrize(
    ("mode", "name"), CASES, ids=lambda one: str(one).replace(" ", "-"), scope="module"
)
def test_all_talk_again_within_two_seconds(stage: Stage, mode: str, name: str) -> None:
    maps = stage.east.folder / "bpf" / "weft" / "maps"
    pinned = sorted(path.name for path in maps.iterdir())
    links = weft_links(stage.east)
    (EVERYWHERE | BY_MODE[mode])[name](stage)
    silent: list[str] = []

    passes_by = mode == "direct" and name in FORWARD_DROPS

    def talk() -> bool:
        by_links = (one for one in stage.silent() if not (passes_by and is_passing_by(one)))
        silent[:] = by_links
        return not silent

    try:
        wait_for("all to talk", talk, timeout_s=REPAIRED_WITHIN_S + ASKING_S)
    except TimeoutError:
        pytest.fail(f"{silent}\n{stage.east.log_tail(5)}")
    wait_for("the pins", lambda: maps.exists() and pinned == sorted(p.name for p in maps.iterdir()))
    wait_for("its links", lambda: weft_links(stage.east) == links)


def is_passing_by(pair: str) -> bool:
    return pair.startswith(("outside to VIP (", "outside to node port ("))


def weft_links(node: LabNode) -> set[str]:
    return {name for name in node.run("ls", "/sys/class/net").split() if name.startswith("weft")}


@pytest.mark.parametrize("mode", ["vxlan", "bridge"], scope="module")
def test_the_own_node_keeps_its_devices_and_routes_while_its_object_is_made_anew(
    stage: Stage, mode: str
) -> None:
    """West, to whom east is a peer that is gone, lets go of it; what east itself leads goes on."""
    east = stage.east
    hosts = [underlay(east, version) for version in (4, 6)]
    before = east.run("ip", "-o", "link"), east.run("ip", "route"), east.run("ip", "-6", "route")
    stage.lab.manifests.remove("Node", "east")
    wait_for("the news", lambda: "the own Node was deleted" in east.log_tail())
    assert not [
        one for one in stage.silent() if not re.search(r"there|VIP|other node|node port", one)
    ]
    assert "the Node object was deleted" in east.weft("status", check=False)
    stage.lab.manifests.put(manifests.node("east", hosts, east.pod_cidrs))
    wait_for("all to talk", lambda: not stage.silent())
    assert "was deleted" not in east.weft("status", check=False)
    after = east.run("ip", "-o", "link"), east.run("ip", "route"), east.run("ip", "-6", "route")
    assert after == before
