"""Owns a lab's twin: the same nodes and pods in namespaces of their own, served by the real
kube-proxy instead of Weft.

A pod is a routed link and nothing else; other nodes' pods are routes, what leaves the cluster is
masqueraded by a rule, as with the reference plugins (deploy/lab/reference.py). No policies.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import ClassVar

from deploy.lab import binaries
from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.manifests import Address, Manifest
from deploy.netlab.shell import in_namespace, run, stop, wait_for
from tests.twin import apiserver

API_PORT = 6443
PODS = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICES = ("10.96.0.0/16", "fd00:96::/108")
LINK_PREFIX = "pod"
GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
HOST_MAC, POD_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def kube_proxy() -> Path | None:
    """The lab's kube-proxy, if it was built (make lab-binaries)."""
    (wanted,) = (one for one in binaries.KUBERNETES if one.name == "kube-proxy")
    return binaries.built(wanted)


@dataclass(frozen=True, slots=True)
class ProxyMode:
    """backend: iptables or nftables. local: how kube-proxy tells this node's pods."""

    backend: str = "nftables"
    local: str = "ClusterCIDR"

    def config(self, node: str, kubeconfig: Path) -> Mapping[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.backend,
            "hostnameOverride": node,
            "clusterCIDR": ",".join(PODS),
            "detectLocalMode": self.local,
            "detectLocal": {"interfaceNamePrefix": LINK_PREFIX},
            "nodePortAddresses": ["primary"],
            "clientConnection": {
                "kubeconfig": str(kubeconfig),
                "contentType": "application/json",
                "acceptContentTypes": "application/json",
            },
            # The numbers of conntrack are the machine's: a namespace may not write them.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }


class ApiServer:
    """The process of apiserver.py, told of every manifest."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "listening\n"

    def put(self, item: Manifest) -> None:
        self._tell({"put": item})

    def remove(self, kind: str, name: str, namespace: str) -> None:
        self._tell({"remove": [kind, name, namespace]})

    def _tell(self, order: Mapping[str, object]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        stop(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@dataclass(slots=True)
class ProxyNode(LabNode):
    """A node whose Services are kube-proxy's, in the mode that it is started in."""

    proxy_mode: ProxyMode = ProxyMode()
    api_url: str = ""

    def await_ready(self, *, timeout_s: float = 60) -> None:
        """Until kube-proxy tells of its health; that is before its rules."""
        wait_for(f"{self.name} answers", self._alive, timeout_s=timeout_s)

    def launch(self) -> "subprocess.Popen[bytes]":
        config, kubeconfig = self.folder / "lib/config.yaml", self.folder / "lib/kubeconfig"
        kubeconfig.write_text(json.dumps(kubeconfig_of(self.api_url)))
        config.write_text(json.dumps(self.proxy_mode.config(self.name, kubeconfig)))
        binary = kube_proxy()
        assert binary
        command = self.command(binary, f"--config={config}")
        with (self.folder / "log" / "kube-proxy").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log)
        return self.daemon

    def _alive(self) -> bool:
        if self.daemon and self.daemon.poll() is not None:
            raise RuntimeError(f"kube-proxy of {self.name} ended:\n{self.log_tail()}")
        knock = "exec 3<>/dev/tcp/127.0.0.1/10256"
        return self.attempt("bash", "-c", knock).returncode == 0

    def log_tail(self, lines: int = 30) -> str:
        text = (self.folder / "log" / "kube-proxy").read_text()
        return "\n".join(text.splitlines()[-lines:])

    def restart(self, mode: ProxyMode) -> None:
        assert self.daemon
        stop(self.daemon)
        self.proxy_mode = mode
        self.start()

    def add_pod(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        space: str = "default",
        annotations: Mapping[str, str] | None = None,
        addresses: tuple[Address, ...] = (),
    ) -> Pod:
        """addresses: those of the pod's twin; else the next ones of the node's podCIDRs."""
        number = len(self.pods) + 2
        own = addresses or tuple(ip_network(cidr)[number] for cidr in self.pod_cidrs)
        namespace = f"{self.namespace}-{name}"
        run("ip", "netns", "add", namespace)
        pod = Pod(name, space, str(uuid.uuid4()), namespace, self.cgroup, own)
        self.pods[name] = pod
        self._wire(pod, f"{LINK_PREFIX}{number}")
        self.manifests.put(manifests.pod(name, space, pod.uid, self.name, own, labels or {},
                                         annotations))  # fmt: skip
        return pod

    def _wire(self, pod: Pod, link: str) -> None:
        node = [
            f"link add {link} address {HOST_MAC} type veth"
            f" peer name eth0 address {POD_MAC} netns {pod.namespace}",
            f"link set {link} up",
        ]
        inside = ["link set lo up", "link set eth0 up"]
        for address in pod.addresses:
            gateway, nodad = GATEWAYS[address.version], " nodad" * (address.version == 6)
            node += [
                f"neigh add {address} dev {link} lladdr {POD_MAC} nud permanent",
                f"route add {address} dev {link}",
            ]
            inside += [
                f"addr add {address} dev eth0{nodad}",
                f"neigh add {gateway} dev eth0 lladdr {HOST_MAC} nud permanent",
                f"route add default via {gateway} dev eth0 onlink",
            ]
        batch(self.namespace, node)
        batch(pod.namespace, inside)

    def delete_pod(self, name: str) -> None:
        pod = self.pods.pop(name)
        self.manifests.remove("Pod", pod.name, pod.space)
        self._drop_namespace(pod)


class ProxyLab(Lab):
    """A Lab whose nodes run kube-proxy; their API server is a process on the switch."""

    node_type: ClassVar[type[LabNode]] = ProxyNode

    def __init__(self, name: str, *, families: tuple[int, ...] = (4, 6)) -> None:
        super().__init__(name, mode="direct", families=families)
        argv = (sys.executable, apiserver.__file__, str(API_PORT))
        self.api = ApiServer(in_namespace(self.switch, self.cgroup, argv))
        self._undo.callback(self.api.close)
        self.manifests.followers.append(self.api)

    @property
    def proxies(self) -> list[ProxyNode]:
        return [node for node in self.nodes if isinstance(node, ProxyNode)]

    def start(self, mode: ProxyMode) -> None:
        """Every node, when all have been added."""
        for node in self.proxies:
            node.api_url = f"http://{self.outside[0]}:{API_PORT}"
            node.proxy_mode = mode
            self._route(node)
            node.start()

    def _route(self, node: ProxyNode) -> None:
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        others = [other for other in self.nodes if other is not node]
        batch(node.namespace, [
            f"route add {cidr} via {ip_interface(underlay).ip}"
            for other in others
            for cidr, underlay in zip(other.pod_cidrs, other.underlay, strict=True)
        ])  # fmt: skip
        node.run("nft", LEAVE)


LEAVE = (
    "table inet leave { chain leave { type nat hook postrouting priority 100;"
    f" ip saddr {PODS[0]} ip daddr != {{ {PODS[0]}, {SERVICES[0]} }} masquerade;"
    f" ip6 saddr {PODS[1]} ip6 daddr != {{ {PODS[1]}, {SERVICES[1]} }} masquerade; }}; }}"
)
"""What leaves the cluster leaves with the node's address."""


def batch(namespace: str, lines: list[str]) -> None:
    run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines))


def kubeconfig_of(url: str) -> Mapping[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "twin", "cluster": {"server": url}}],
        "users": [{"name": "twin", "user": {}}],
        "contexts": [{"name": "twin", "context": {"cluster": "twin", "user": "twin"}}],
        "current-context": "twin",
    }
