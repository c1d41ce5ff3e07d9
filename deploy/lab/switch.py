"""The wire between the lab's machines, and the world outside of them.

Owns the switch's namespace: a bridge that every machine's `eth0` ends in, the nodes' default
gateway, addresses that stand for the outside, a server and a resolver on them. Forwards nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.lab import host, spec
from deploy.lab.spec import Address, Cluster

BRIDGE = "switch"
OUTSIDE_PORT = 8080
OUTSIDE_UDP_PORT = 8081
# SHAPE=kind sends what asks RESOLVER_ADDRESS to this one: the address in resolv.conf is a fiction.
HIDDEN_RESOLVER = Address(spec.NODE_NETWORK4[4], spec.NODE_NETWORK6[4])
HIDDEN_RESOLVER_PORT = 5053

_COREFILE = """\
.:{port} {{
    bind {addresses}
    hosts {{
        {outside4} {name}
        {outside6} {name}
    }}
    errors
}}
"""


def create(cluster: Cluster) -> None:
    """Makes the namespace, the bridge and the addresses that stand for the outside."""
    namespace = cluster.switch_namespace
    host.run("ip", "netns", "add", namespace)
    addresses = [f"{spec.OUTSIDE4}/32", f"{spec.OUTSIDE6}/128"]
    lines = [
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"link set {BRIDGE} up",
        *(f"address add {address} dev lo" for address in addresses),
    ]
    for own in (spec.SWITCH_ADDRESS, resolver(cluster)[0]):
        lines += _address_lines(own, BRIDGE)
    ip_batch(namespace, lines)
    # Routes of several nodes (balancer) are chosen by connection, not by client.
    for family in ("ipv4", "ipv6"):
        setting = f"net.{family}.fib_multipath_hash_policy=1"
        host.run(*host.namespace_exec(namespace), "sysctl", "-qw", setting)


def plug_in(cluster: Cluster, namespace: str, port: str, address: Address) -> None:
    """Makes a machine's namespace with an `eth0` on the switch and the default routes."""
    host.run("ip", "netns", "add", namespace)
    link = f"link add {port} type veth peer name eth0 netns {namespace}"
    ip_batch(
        cluster.switch_namespace, [link, f"link set {port} master {BRIDGE}", f"link set {port} up"]
    )
    gateway = spec.SWITCH_ADDRESS
    ip_batch(
        namespace,
        [
            "link set lo up",
            "link set eth0 up",
            *_address_lines(address, "eth0"),
            f"route add default via {gateway.v4}",
            f"route add default via {gateway.v6}",
        ],
    )


def route_pods(cluster: Cluster, prefixes: Mapping[str, list[str]]) -> None:
    """Gives the control plane, which is no node, its ways to pods: the API server's proxy and
    webhooks dial them, as where a cloud routes podCIDRs to nodes.
    """
    ways = [
        f"route replace {prefix} via {node.address.v6 if ':' in prefix else node.address.v4}"
        for node in cluster.nodes()
        for prefix in prefixes[node.name]
    ]
    ip_batch(cluster.control_namespace, ways)


def start_outside(cluster: Cluster, agnhost: Path, coredns: Path) -> None:
    """Starts the server (HTTP and UDP echo of the client's address) and the resolver."""
    inside = host.namespace_exec(cluster.switch_namespace)
    # A UDP server on the wildcard would answer from the bridge's address, not the one asked.
    server = [
        str(agnhost),
        "netexec",
        f"--http-port={OUTSIDE_PORT}",
        f"--udp-port={OUTSIDE_UDP_PORT}",
        f"--udp-listen-addresses={spec.OUTSIDE4},{spec.OUTSIDE6}",
    ]
    logs = cluster.state / "log"
    host.spawn([*inside, *server], log=logs / "outside.log", cgroup=f"{cluster.cgroup}/sw")
    corefile = cluster.state / "resolver.Corefile"
    corefile.write_text(_server_block(*resolver(cluster)))
    answers = [*inside, str(coredns), "-conf", str(corefile)]
    host.spawn(answers, log=logs / "resolver.log", cgroup=f"{cluster.cgroup}/sw")


def resolver(cluster: Cluster) -> tuple[Address, int]:
    """Where the resolver really listens: SHAPE=kind hides it from what resolv.conf names."""
    if cluster.shape is spec.Shape.KIND:
        return HIDDEN_RESOLVER, HIDDEN_RESOLVER_PORT
    return spec.RESOLVER_ADDRESS, 53


def ip_batch(namespace: str, lines: list[str]) -> None:
    """Runs the lines through one `ip -batch` in a namespace; the first failure ends it."""
    host.run("ip", "-n", namespace, "-batch", "-", stdin="".join(f"{line}\n" for line in lines))


def _address_lines(address: Address, link: str) -> list[str]:
    return [
        f"address add {address.v4}/{spec.NODE_NETWORK4.prefixlen} dev {link}",
        f"address add {address.v6}/{spec.NODE_NETWORK6.prefixlen} dev {link} nodad",
    ]


def _server_block(address: Address, port: int) -> str:
    return _COREFILE.format(
        port=port,
        addresses=f"{address.v4} {address.v6}",
        outside4=spec.OUTSIDE4,
        outside6=spec.OUTSIDE6,
        name=spec.OUTSIDE_NAME,
    )
