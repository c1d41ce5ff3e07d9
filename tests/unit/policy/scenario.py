"""A small cluster in manifests, and the question "does a reach b" put to the planned tables.

Every pod has both families; `Scenario(6)` asks over IPv6. Pods of node n1 are links of this node.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from tests.unit.policy.clusters import cluster_of, empty_world, step
from tests.unit.policy.evaluator import verdict
from tests.unit.policy.lookup import allowed, fake_tables, planned
from weft.proxy.model.decode import decode_manifest
from weft.proxy.model.objects import (
    PROTOCOL_NUMBERS,
    Address,
    Broken,
    Kind,
    Protocol,
    Ref,
    Workload,
)
from weft.proxy.model.world import World
from weft.proxy.plan.policy_explain import Explanation, explain
from weft.proxy.plan.policy_rules import Direction

Manifest = dict[str, Any]
EVERYONE: Manifest = {}
WEB = {"matchLabels": {"app": "web"}}
CLIENT = {"matchLabels": {"app": "client"}}


@dataclass
class Scenario:
    """Namespaces a and b with a web and a client each, all here; b/far is on node n2."""

    family: int = 4
    world: World = field(default_factory=empty_world)
    _count: int = 0

    def __post_init__(self) -> None:
        self.node("n1", 1)
        self.node("n2", 2)
        for name, team in (("a", "red"), ("b", "blue")):
            self.namespace(name, team=team)
            self.pod(f"{name}/web", app="web")
            self.pod(f"{name}/client", app="client")
        self.pod("b/far", node="n2", app="client")

    def apply(self, manifest: Manifest) -> None:
        decoded = decode_manifest(manifest)
        assert decoded is not None
        assert not isinstance(decoded, Broken), decoded.why
        kind, record = decoded
        assert not isinstance(record, Workload)
        self.world = step(self.world, (kind, getattr(record, "ref"), record))[1]  # noqa: B009

    def namespace(self, name: str, **labels: str) -> None:
        labels |= {"kubernetes.io/metadata.name": name}
        self.apply(_manifest("v1", "Namespace", "", name, {}, labels))

    def node(self, name: str, number: int) -> None:
        addresses = (f"192.0.2.{number}", f"2001:db8::{number}")
        cidrs = [f"10.244.{number}.0/24", f"fd00:{number}::/64"]
        manifest = _manifest("v1", "Node", "", name, {"podCIDR": cidrs[0], "podCIDRs": cidrs})
        listed = [{"type": "InternalIP", "address": address} for address in addresses]
        self.apply(manifest | {"status": {"addresses": listed}})

    def pod(
        self,
        name: str,
        node: str = "n1",
        phase: str = "Running",
        ports: tuple[Manifest, ...] = (),
        ips_of: str = "",
        **labels: str,
    ) -> None:
        """A pod; one that exists keeps its addresses, or it takes those of another, `ips_of`."""
        namespace, short = name.split("/")
        known = self.world.pod(Ref(*(ips_of or name).split("/")))
        if known is not None and known.addresses:
            ips = [str(address) for address in known.addresses]
        else:
            self._count += 1
            ips = [f"10.244.{node[1:]}.{10 + self._count}", f"fd00:{node[1:]}::{10 + self._count}"]
        spec = {"nodeName": node, "containers": [{"name": "c", "ports": list(ports)}]}
        manifest = _manifest("v1", "Pod", namespace, short, spec, labels)
        manifest["metadata"]["uid"] = f"uid {name}"
        self.apply(manifest | {"status": {"phase": phase, "podIPs": [{"ip": ip} for ip in ips]}})
        if node == "n1":
            self.link(name, *ips)

    def host_pod(self, name: str, node: str, **labels: str) -> None:
        """A pod on its node's network."""
        namespace, short = name.split("/")
        known = self.world.node(node)
        ips = [{"ip": str(address)} for address in (known.addresses if known else ())]
        manifest = _manifest("v1", "Pod", namespace, short, {"hostNetwork": True}, labels)
        self.apply(manifest | {"status": {"phase": "Running", "podIPs": ips}})

    def link(self, name: str, *ips: str, uid: str | None = None) -> None:
        namespace, short = name.split("/")
        uid = f"uid {name}" if uid is None else uid
        addresses = tuple(map(ip_address, ips))
        link = Workload(name, Ref(namespace, short), uid, addresses, 7, bytes(6), bytes(6))
        self.world = step(self.world, (Kind.ATTACHMENT, name, link))[1]

    def policy(self, name: str, **spec: Any) -> None:
        """A NetworkPolicy; keyword `from_` and friends are the caller's plain dicts."""
        namespace, short = name.split("/")
        spec.setdefault("podSelector", {})
        self.apply(_manifest("networking.k8s.io/v1", "NetworkPolicy", namespace, short, spec))

    def delete(self, kind: Kind, name: str) -> None:
        ref = Ref(*name.split("/")) if "/" in name else Ref("", name)
        self.world = step(self.world, (kind, ref, None))[1]

    def ip(self, name: str) -> Address:
        """The address of a pod ("a/web"), a node ("n1") or the text of an address itself."""
        if "/" in name:
            pod = self.world.pod(Ref(*name.split("/")))
            found = pod.addresses if pod else ()
        else:
            node = self.world.node(name)
            found = node.addresses if node else (ip_address(name),)
        return next(a for a in found if a.version == self.family)

    def reaches(self, source: str, destination: str, port: str = "TCP/80") -> bool:
        """The tables' answer, which must be the evaluator's too. `port`: "TCP/80" or "ICMP"."""
        answer = self.tables_allow(source, destination, port)
        flow = (self.ip(source), self.ip(destination), *self._port(port))
        expected = verdict(cluster_of(self.world), *flow)
        assert answer == expected.allowed, expected
        return answer

    def tables_allow(self, source: str, destination: str, port: str) -> bool:
        """The tables' answer alone, where they may be narrower than the API."""
        flow = (self.ip(source), self.ip(destination), *self._port(port))
        return allowed(
            fake_tables(planned(self.world)), self.world, tuple(self.world.workloads()), *flow
        )

    def why(self, direction: Direction, link: str, peer: str, port: str = "TCP/80") -> Explanation:
        workload = self.world.workload(link)
        assert workload is not None
        return explain(self.world, direction, workload, self.ip(peer), *self._port(port))

    def _port(self, port: str) -> tuple[int, int]:
        if port == "ICMP":
            return (1 if self.family == 4 else 58), 0
        protocol, _, number = port.partition("/")
        return PROTOCOL_NUMBERS[Protocol(protocol)], int(number)

    def text(self, v4: str, v6: str) -> str:
        """The one of two spellings that is of this scenario's family."""
        return v4 if self.family == 4 else v6

    def block(self, v4: str, v6: str, *excepts: tuple[str, str]) -> Manifest:
        """A peer that is an ipBlock of this family."""
        holes = [self.text(*hole) for hole in excepts]
        return {"ipBlock": {"cidr": self.text(v4, v6)} | ({"except": holes} if holes else {})}


def _manifest(
    version: str,
    kind: str,
    namespace: str,
    name: str,
    spec: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    metadata: Manifest = {"name": name, "labels": dict(labels or {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": dict(spec)}
